"""One line of a container's output as a log entry, as Cloud Run's logging agent makes it.

Facts: cloud.google.com/run/docs/logging and logging/docs/structured-logging: a line that is a JSON object becomes
`jsonPayload`, its special fields are moved to the entry, a lone `message` becomes `textPayload`; any other line is
`textPayload`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

PIECE = (256 << 10) - 4096
"""Longest text of one entry (bytes): the entry limit of 256 KiB less its envelope.
Longer lines become several entries."""
_SEVERITIES = {
    "DEFAULT": 0, "DEBUG": 100, "INFO": 200, "NOTICE": 300, "WARNING": 400, "ERROR": 500, "CRITICAL": 600, "ALERT": 700,
    "EMERGENCY": 800, "WARN": 400, "FATAL": 600, "PANIC": 800, "TRACE": 100,
}  # fmt: skip
_MOVED = {
    "logging.googleapis.com/operation": "operation",
    "logging.googleapis.com/sourceLocation": "source_location",
    "httpRequest": "http_request",
}
_OLDEST, _NEWEST = 30 * 86400 * 10**9, 86400 * 10**9
"""Entries' own times may be this far (ns) before or after they are received."""


@dataclass(slots=True)
class Entry:
    """A log entry, from a file or written through the API."""

    timestamp: int
    """Unix nanoseconds."""
    insert_id: str
    log_name: str
    resource_type: str
    resource_labels: dict[str, str]
    labels: dict[str, str]
    received: int
    severity: int = 0
    text: str | None = None
    json: dict[str, Any] | None = None
    trace: str = ""
    span_id: str = ""
    trace_sampled: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    """Sub-messages moved out of a structured line, as JSON."""
    message: Any = None
    """The whole LogEntry when it was written through the API."""


def severity_number(name: Any) -> int | None:
    """The number of a severity's name; None for an unknown one."""
    return _SEVERITIES.get(name.upper()) if isinstance(name, str) else None


def parse_time(text: str) -> int | None:
    """RFC 3339 → Unix nanoseconds, up to nine fractional digits; None when it is none."""
    body, dot, rest = text.partition(".")
    digits = ""
    if dot:
        end = next((i for i, char in enumerate(rest) if not char.isdecimal()), len(rest))
        digits, body = rest[:end], body + rest[end:]
    try:
        moment = datetime.fromisoformat(body)
    except ValueError:
        return None
    if len(digits) > 9 or (dot and not digits):
        return None
    if moment.tzinfo is None:
        if len(text) > 10:
            return None
        moment = datetime.fromisoformat(f"{body}T00:00:00+00:00")  # a bare date is midnight UTC
    return int(moment.timestamp()) * 10**9 + int(digits.ljust(9, "0") or 0)


def pieces(line: bytes) -> list[bytes]:
    """A line cut so that each piece fits one entry, never inside a UTF-8 character."""
    if len(line) <= PIECE:
        return [line]
    found, start = [], 0
    while start < len(line):
        end = min(start + PIECE, len(line))
        while start + PIECE - 4 < end < len(line) and line[end] & 0xC0 == 0x80:
            end -= 1
        found.append(line[start:end])
        start = end
    return found


def read_line(entry: Entry, line: bytes) -> Entry:
    """Fills an entry from one line of output."""
    if line[:1] == b"{" and line.rstrip()[-1:] == b"}":
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            _structured(entry, value)
            return entry
    entry.text = line.decode("utf-8", "replace")
    return entry


def _structured(entry: Entry, value: dict[str, Any]) -> None:
    severity = severity_number(value.get("severity"))
    if severity is not None:
        entry.severity = severity
        del value["severity"]
    own = _own_time(value)
    if own is not None and entry.received - _OLDEST < own < entry.received + _NEWEST:
        entry.timestamp = own
    identity = value.get("logging.googleapis.com/insertId")
    if isinstance(identity, str) and identity:
        entry.insert_id = identity
        del value["logging.googleapis.com/insertId"]
    labels = value.get("logging.googleapis.com/labels")
    if isinstance(labels, dict):
        entry.labels = {str(key): str(label) for key, label in labels.items()} | entry.labels
        del value["logging.googleapis.com/labels"]
    entry.trace = str(value.pop("logging.googleapis.com/trace", ""))
    entry.span_id = str(value.pop("logging.googleapis.com/spanId", ""))
    entry.trace_sampled = value.pop("logging.googleapis.com/trace_sampled", False) is True
    for key, target in _MOVED.items():
        if isinstance(value.get(key), dict):
            entry.extra[target] = value.pop(key)
    if set(value) == {"message"} and isinstance(value["message"], str):
        entry.text = value["message"]
    else:
        entry.json = value


def _own_time(value: dict[str, Any]) -> int | None:
    for key in ("time", "timestamp"):
        found = value.get(key)
        own = None
        if isinstance(found, str):
            own = parse_time(found)
        elif isinstance(found, dict) and isinstance(found.get("seconds"), int) and isinstance(found.get("nanos"), int):
            own = found["seconds"] * 10**9 + found["nanos"]
        if own is not None:
            del value[key]
            return own
    seconds, nanos = value.get("timestampSeconds"), value.get("timestampNanos")
    if isinstance(seconds, int) and isinstance(nanos, int):
        del value["timestampSeconds"], value["timestampNanos"]
        return seconds * 10**9 + nanos
    return None
