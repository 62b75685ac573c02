"""The `filters` of list and prune requests: moby's names, matching rules and texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from control_plane.errors import InvalidParameter
from control_plane.services.event_filters import matches_labels
from control_plane.services.prune_filters import point_in_time

_PATTERN_LIMIT = 256
_repetition = re.compile(r"[*+{]")
_repeated_group = re.compile(r"\)[*+?{]")


class Filters:
    """Filters judged against the names a resource accepts. Raises InvalidParameter."""

    def __init__(self, filters: Mapping[str, Sequence[str]], accepted: Iterable[str]) -> None:
        known = set(accepted)
        for name in filters:
            if name not in known:
                raise InvalidParameter(f"invalid filter '{name}'")
        self._filters = {name: list(dict.fromkeys(values)) for name, values in filters.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._filters

    def values(self, name: str) -> list[str]:
        """The values given, none when the filter was not."""
        return self._filters.get(name, [])

    def flag(self, name: str, *, default: bool) -> bool:
        """A boolean filter: `1`, `true`, `0`, `false`."""
        if name not in self._filters:
            return default
        values = set(self._filters[name])
        false, true = bool(values & {"0", "false"}), bool(values & {"1", "true"})
        if false == true:
            given = f"=[{' '.join(sorted(values))}]" if values else ""
            raise InvalidParameter(f"invalid filter '{name}{given}'")
        return true

    def labels(self, labels: Mapping[str, str]) -> bool:
        """`label`: every one must be there."""
        return matches_labels(self.values("label"), labels)

    def prunable(self, labels: Mapping[str, str]) -> bool:
        """`label` and `label!` of prune requests."""
        unwanted = self.values("label!")
        return self.labels(labels) and not (unwanted and matches_labels(unwanted, labels))

    def exact(self, name: str, value: str) -> bool:
        """Whether the value is one of those given, or none was."""
        values = self.values(name)
        return not values or value in values

    def similar(self, name: str, value: str) -> bool:
        """Equal to one of the values, or matched by one as a regular expression found anywhere."""
        values = self.values(name)
        return not values or value in values or any(_found(pattern, value) for pattern in values)

    def until(self) -> int | None:
        """`until` of prune requests in Unix nanoseconds."""
        if "until" not in self._filters:
            return None
        values = self.values("until")
        if len(values) != 1:
            raise InvalidParameter("more than one until filter specified" if values else "invalid filter 'until'")
        return point_in_time(values[0])


def _found(pattern: str, value: str) -> bool:
    """Go's regular expressions never run long, Python's may: one that repeats a group, or repeats often, is taken
    literally."""
    if len(pattern) > _PATTERN_LIMIT or _repeated_group.search(pattern) or len(_repetition.findall(pattern)) > 2:
        return pattern in value
    try:
        return re.search(pattern, value) is not None
    except (re.error, RecursionError):
        return False


def path_match(pattern: str, name: str) -> bool:
    """Go's `path.Match`: `*` and `?` stop at a slash. Raises InvalidParameter on a malformed pattern."""
    out: list[str] = []
    place = 0
    while place < len(pattern):
        letter = pattern[place]
        place += 1
        if letter == "*":
            # Repeated stars are one: they would cost time and mean the same.
            if not out or out[-1] != "[^/]*":
                out.append("[^/]*")
        elif letter == "?":
            out.append("[^/]")
        elif letter == "[":
            end = pattern.find("]", place + 1 + (pattern[place : place + 1] == "^"))
            if end < 0:
                raise InvalidParameter("syntax error in pattern")
            body = pattern[place:end]
            negated = body.startswith("^")
            body = re.sub(r"([\[\]^&~|])", r"\\\1", body.removeprefix("^"))
            out.append(f"[{'^' if negated else ''}{body}]")
            place = end + 1
        else:
            if letter == "\\":
                if place == len(pattern):
                    raise InvalidParameter("syntax error in pattern")
                letter = pattern[place]
                place += 1
            out.append(re.escape(letter))
    if len(pattern) > _PATTERN_LIMIT or out.count("[^/]*") > 8:
        raise InvalidParameter("pattern is too long")
    try:
        return re.fullmatch("".join(out), name) is not None
    except re.error:
        raise InvalidParameter("syntax error in pattern") from None
