"""The scalar functions of one argument that are served."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from local_cloud.azure.monitor.moments import format_moment, format_timespan, parse_moment


@dataclass(frozen=True, slots=True)
class Function:
    """What it takes (no types: any), what it gives, and how: from the argument's type and value."""

    takes: tuple[str, ...]
    gives: str
    work: Callable[[str, Any], Any]


def text(kind: str, value: Any) -> str:
    """`tostring()`."""
    if value is None:
        return ""
    if kind == "datetime":
        return format_moment(value)
    if kind == "timespan":
        return format_timespan(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return str(value)


def _parse_json(kind: str, value: Any) -> Any:
    if kind == "dynamic":
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _number(kind: str, value: Any) -> int | None:
    try:
        return int(float(value)) if not isinstance(value, int) else int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _real(kind: str, value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _moment(kind: str, value: Any) -> int | None:
    return value if kind == "datetime" else parse_moment(text(kind, value))


def _boolean(kind: str, value: Any) -> bool | None:
    if isinstance(value, (bool, int)):
        return bool(value)
    return {"true": True, "false": False}.get(str(value).lower())


_TEXT = ("string", "dynamic")
FUNCTIONS: dict[str, Function] = {
    "tostring": Function((), "string", text),
    "parse_json": Function(_TEXT, "dynamic", _parse_json),
    "todynamic": Function(_TEXT, "dynamic", _parse_json),
    "tolong": Function((), "long", _number),
    "toint": Function((), "long", _number),
    "todouble": Function((), "real", _real),
    "toreal": Function((), "real", _real),
    "todatetime": Function((), "datetime", _moment),
    "tobool": Function((), "bool", _boolean),
    "tolower": Function(("string",), "string", lambda _kind, value: value.lower()),
    "toupper": Function(("string",), "string", lambda _kind, value: value.upper()),
    "strlen": Function(("string",), "long", lambda _kind, value: len(value)),
    "isempty": Function((), "bool", lambda kind, value: text(kind, value) == ""),
    "isnotempty": Function((), "bool", lambda kind, value: text(kind, value) != ""),
    "isnull": Function((), "bool", lambda _kind, value: value is None),
    "isnotnull": Function((), "bool", lambda _kind, value: value is not None),
    "not": Function(("bool",), "bool", lambda _kind, value: not value),
}
