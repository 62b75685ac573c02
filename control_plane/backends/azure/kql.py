"""The queries we send to Log Analytics. Pure: every value from outside is escaped here.

Source: Kusto Query Language, "The string data type" (escapes), "in~ operator", "datetime literals" (ticks of 100 ns).
"""

from __future__ import annotations

import time
from collections.abc import Iterable

CONSOLE_LOGS = "AppServiceConsoleLogs"
"""Output of App Service containers: one row a line, written by a diagnostic setting of the site."""

_TICK = 100
"""Nanoseconds of the service's clock."""


def quoted(text: str) -> str:
    """A KQL string literal. Only printable ASCII stands for itself, the rest is escaped: nothing ends the literal."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if " " <= character <= "~":
        return character
    number = ord(character)
    if number > 0xFFFF:
        pair = character.encode("utf-16-be")
        return "".join(f"\\u{pair[at] << 8 | pair[at + 1]:04x}" for at in (0, 2))
    return f"\\u{number:04x}"


def instant(nanoseconds: int) -> str:
    """A `datetime(…)` literal in UTC, rounded down to a tick."""
    seconds, fraction = divmod(max(nanoseconds, 0), 1_000_000_000)
    day = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"datetime({day}.{fraction // _TICK:07d}Z)"


def console_lines(
    resource_ids: Iterable[str], *, since: int | None, before: int | None, newest_first: bool, limit: int
) -> str:
    """Rows of these sites with `since` ≤ TimeGenerated < `before` (Unix nanoseconds), in the order asked for."""
    sites = ", ".join(quoted(one.lower()) for one in sorted(resource_ids))
    steps = [CONSOLE_LOGS]
    if since is not None:
        steps.append(f"where TimeGenerated >= {instant(since)}")
    if before is not None:
        steps.append(f"where TimeGenerated < {instant(before)}")
    steps += [
        f"where _ResourceId in~ ({sites})",
        "project TimeGenerated, Level, ResultDescription, _ResourceId",
        f"order by TimeGenerated {'desc' if newest_first else 'asc'}",
        f"take {limit}",
    ]
    return "\n| ".join(steps)
