"""The filters of `docker container prune`: `until`, `label`, `label!`."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

from control_plane.errors import InvalidParameter
from control_plane.model import Container
from control_plane.timestamps import nanoseconds, unix_timestamp

_ACCEPTED = {"until", "label", "label!"}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


class PruneFilters:
    """Built from the request's filters. Raises InvalidParameter with moby's texts."""

    def __init__(self, filters: Mapping[str, Sequence[str]]) -> None:
        for name in filters:
            if name not in _ACCEPTED:
                raise InvalidParameter(f"invalid filter '{name}'")
        until = filters.get("until") or []
        if len(until) > 1:
            raise InvalidParameter("more than one until filter specified")
        self._until = point_in_time(until[0]) if until else None
        self._wanted = list(filters.get("label") or [])
        self._unwanted = list(filters.get("label!") or [])

    def __call__(self, container: Container) -> bool:
        """Whether the container is to go."""
        if self._until is not None and nanoseconds(container.created_at) > self._until:
            return False
        if not all(_has(container.labels, label) for label in self._wanted):
            return False
        return not (self._unwanted and all(_has(container.labels, label) for label in self._unwanted))


def _has(labels: Mapping[str, str], label: str) -> bool:
    name, given, value = label.partition("=")
    return name in labels and (not given or labels[name] == value)


def point_in_time(text: str) -> int:
    """Unix nanoseconds of a Go duration (before now), an RFC 3339 time, a date, or a Unix time."""
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return time.time_ns() - sum(int(float(number) * _UNITS[unit]) for number, unit in parts)
    if "-" in text:
        day, _, clock = text.partition("T")
        zone = re.search(r"(Z|[+-]\d\d:\d\d)$", clock)
        whole = (clock[: zone.start()] if zone else clock) or "00:00:00"
        whole += ":00" * (2 - whole.count(":"))
        try:
            return nanoseconds(f"{day}T{whole}{zone.group() if zone else 'Z'}")
        except (ValueError, IndexError):
            raise InvalidParameter(f'failed to parse value as time or duration: "{text}"') from None
    try:
        return unix_timestamp(text) or 0
    except InvalidParameter:
        raise InvalidParameter(f'failed to parse value as time or duration: "{text}"') from None
