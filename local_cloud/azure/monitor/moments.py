"""Times as nanoseconds: Kusto's datetimes and timespans, and the ISO 8601 intervals that limit a query."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

SECOND = 1_000_000_000
_MOMENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?\s*(Z|[+-]\d\d:\d\d)?", re.IGNORECASE
)
_DURATION = re.compile(r"P(?:(\d+(?:\.\d+)?)D)?(?:T(?:(\d+(?:\.\d+)?)H)?(?:(\d+(?:\.\d+)?)M)?(?:(\d+(?:\.\d+)?)S)?)?")
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "microsecond": 1e-6, "tick": 1e-7}
_LITERAL = re.compile(r"(\d+(?:\.\d+)?)([a-z]+)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER = (0, (1 << 63) - 1)


def parse_moment(text: str) -> int | None:
    """A datetime, UTC unless it says otherwise; None when it is none."""
    match = _MOMENT.fullmatch(text.strip())
    if match is None:
        return None
    zone = UTC
    if match[8] and match[8] not in "Zz":
        minutes = int(match[8][1:3]) * 60 + int(match[8][4:6])
        zone = timezone(timedelta(minutes=-minutes if match[8][0] == "-" else minutes))
    try:
        parts = [int(match[number] or 0) for number in range(1, 7)]
        whole = datetime(parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], tzinfo=zone)
    except ValueError:
        return None
    seconds = int((whole - _EPOCH) / timedelta(seconds=1))
    return seconds * SECOND + int((match[7] or "").ljust(9, "0")) // 100 * 100


def format_moment(moment: int) -> str:
    """A datetime as Log Analytics writes it: seven digits, none of them when all are 0."""
    whole = _EPOCH + timedelta(seconds=moment // SECOND)
    ticks = moment % SECOND // 100
    return whole.strftime("%Y-%m-%dT%H:%M:%S") + (f".{ticks:07d}".rstrip("0") if ticks else "") + "Z"


def parse_timespan(literal: str) -> int:
    """A timespan literal: `1d`, `2.5h`, `10ms`."""
    match = _LITERAL.fullmatch(literal)
    assert match is not None
    return round(float(match[1]) * _UNITS[match[2]] * SECOND)


def format_timespan(span: int) -> str:
    """`[d.]hh:mm:ss[.fffffff]`."""
    sign, span = ("-", -span) if span < 0 else ("", span)
    seconds, rest = divmod(span, SECOND)
    days, seconds = divmod(seconds, 86400)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return sign + (f"{days}." if days else "") + text + (f".{rest // 100:07d}" if rest else "")


def parse_interval(text: str, now: int) -> tuple[int, int] | None:
    """The `timespan` of a query as (since, until): a duration up to now, or start/end, start/duration, duration/end.
    None when it is none of these."""
    first, slash, second = text.partition("/")
    if not slash:
        span = _parse_duration(first)
        return None if span is None else (now - span, now)
    begin, end = parse_moment(first), parse_moment(second)
    if begin is not None and end is not None:
        return begin, end
    span = _parse_duration(second if end is None else first)
    if span is None or (begin is None and end is None):
        return None
    return (begin, begin + span) if begin is not None else ((end or 0) - span, end or 0)


def _parse_duration(text: str) -> int | None:
    match = _DURATION.fullmatch(text.strip().upper())
    if match is None or not any(match.groups()):
        return None
    units = (86400.0, 3600.0, 60.0, 1.0)
    return round(sum(float(value or 0) * unit for value, unit in zip(match.groups(), units, strict=True)) * SECOND)
