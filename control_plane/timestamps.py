"""Docker's times: RFC 3339 with nanoseconds in UTC, and the words `docker ps` says them with."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache

from control_plane.errors import InvalidParameter
from control_plane.model import ZERO_TIME

_SECOND = 1_000_000_000


def rfc3339(nanoseconds: int) -> str:
    """Unix nanoseconds as Go prints them: trailing zeros of the fraction are dropped."""
    seconds, fraction = divmod(nanoseconds, _SECOND)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


def padded(nanoseconds: int) -> str:
    """Unix nanoseconds as `docker logs -t` shows them: always nine digits of the fraction."""
    seconds, fraction = divmod(nanoseconds, _SECOND)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09d}Z"


def now() -> str:
    """The present instant."""
    return rfc3339(time.time_ns())


@lru_cache(maxsize=50_000)
def nanoseconds(text: str) -> int:
    """Unix nanoseconds of an RFC 3339 time; 0 for Docker's "never". Raises ValueError."""
    if text == ZERO_TIME or not text:
        return 0
    day, _, clock = text.partition("T")
    offset = 0
    if clock.endswith(("Z", "z")):
        clock = clock[:-1]
    else:
        mark = max(clock.rfind("+"), clock.rfind("-"))
        if mark < 0:
            raise ValueError(f"no time zone in {text!r}")
        hours, _, minutes = clock[mark + 1 :].partition(":")
        offset = (int(hours) * 3600 + int(minutes) * 60) * (-1 if clock[mark] == "-" else 1)
        clock = clock[:mark]
    whole, _, fraction = clock.partition(".")
    seconds = int(datetime.fromisoformat(f"{day}T{whole}").replace(tzinfo=UTC).timestamp()) - offset
    return seconds * _SECOND + int((fraction + "000000000")[:9])


def unix_timestamp(text: str | None) -> int | None:
    """A `since` or `until` query parameter (`1136073600.000000001`) in nanoseconds, None when empty.

    The Docker CLI turns durations and dates into this form itself; moby takes nothing else here.
    """
    if not text:
        return None
    whole, _, fraction = text.partition(".")
    try:
        if len(whole) > 12:
            raise ValueError
        seconds = int(whole)
        rest = int((fraction + "000000000")[:9]) if fraction else 0
    except ValueError:
        raise InvalidParameter(f'strconv.ParseInt: parsing "{text[:64]}": invalid syntax') from None
    return seconds * _SECOND + rest


def human_duration(seconds: float) -> str:
    """How long, in the words of Docker's status column ("About a minute", "3 days")."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    return _long_duration(seconds / 3600)


def _long_duration(exact_hours: float) -> str:
    hours = int(exact_hours + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(exact_hours) // 24 // 365} years"
