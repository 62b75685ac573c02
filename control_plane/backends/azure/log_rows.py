"""Rows of `AppServiceConsoleLogs` as lines of a container's output. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from control_plane.backends.base import LogLine
from control_plane.timestamps import nanoseconds

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = 1000
"""Nanoseconds: as exact as the SDK's times are."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    generated: int
    """`TimeGenerated` in Unix nanoseconds, cut to microseconds."""
    resource: str
    """The site's resource id in lower case."""
    level: str
    text: str
    twin: int = 0
    """How many rows with the same content at the same instant came before it."""

    @property
    def key(self) -> str:
        """Tells rows apart, the same in every reading of the row's instant."""
        text = f"{self.generated}\n{self.resource}\n{self.level}\n{self.text}".encode("utf-8", "surrogatepass")
        return f"{hashlib.blake2b(text, digest_size=12).hexdigest()}-{self.twin}"


def row_of(generated: Any, level: Any, text: Any, resource: Any) -> Row:
    """From the columns as the SDK gives them."""
    return Row(_nanoseconds(generated), str(resource or "").lower(), str(level or ""), str(text or ""))


def _nanoseconds(at: Any) -> int:
    if isinstance(at, datetime):
        aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return (aware - _EPOCH) // timedelta(microseconds=1) * MICROSECOND
    return nanoseconds(str(at)) // MICROSECOND * MICROSECOND


def numbered(rows: Iterable[Row]) -> list[Row]:
    """The same rows, equal ones of an instant told apart. All rows of an instant must be among them."""
    seen: dict[Row, int] = {}
    found = []
    for row in rows:
        twin = seen.get(row, 0)
        seen[row] = twin + 1
        found.append(Row(row.generated, row.resource, row.level, row.text, twin) if twin else row)
    return found


@dataclass(frozen=True, slots=True)
class ReadLine:
    """A row's line, and what puts it in order."""

    line: LogLine
    order: tuple[int, int]
    """The agent's own time and number; a line that is not the agent's stands where the platform saw it."""
    generated: int


def line_of(row: Row, container: str) -> ReadLine | None:
    """The line of a container's output that a row holds. None for what the agent says to the operator, and for the
    output of another container.

    The agent writes `{"message" or "base64", "time", "sockerless": {"run", "partial", "container", "stream", "n"}}`:
    the line without its newline, `partial` where the process had not ended the line. Whatever else is on the app's
    output stands for itself.
    """
    body = _object(row.text)
    ours = body.get("sockerless") if body is not None else None
    if body is None or not isinstance(ours, Mapping):
        stream = "stderr" if row.level.lower() == "error" else "stdout"
        text = row.text.rstrip("\r\n").encode("utf-8", "replace") + b"\n"
        return ReadLine(LogLine(row.generated, stream, text, row.key), (row.generated, 0), row.generated)
    if ours.get("agent") is True or ours.get("container", container) != container:
        return None
    at = _time(body.get("time"), row.generated)
    stream = str(ours.get("stream"))
    if stream not in ("stdout", "stderr"):
        stream = "stderr" if row.level.lower() == "error" else "stdout"
    text = _bytes(body) + (b"" if ours.get("partial") is True else b"\n")
    number = ours.get("n")
    order = (at, number if isinstance(number, int) else 0)
    return ReadLine(LogLine(at, stream, text, row.key), order, row.generated)


def _object(text: str) -> dict[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _time(text: Any, otherwise: int) -> int:
    if isinstance(text, str):
        try:
            return nanoseconds(text) or otherwise
        except ValueError:
            return otherwise
    return otherwise


def _bytes(body: Mapping[str, Any]) -> bytes:
    encoded = body.get("base64")
    if isinstance(encoded, str):
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return encoded.encode("utf-8", "replace")
    return str(body.get("message", "")).encode("utf-8", "replace")
