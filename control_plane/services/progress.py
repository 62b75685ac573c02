"""Docker's JSON progress streams: one object a line, `\\r\\n` after each, errors as the last line.

Fact source: moby's stream formatter and the texts of its progress bar.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson

from control_plane.errors import DockerError
from control_plane.store.base import StoreFull

Line = dict[str, Any]

_BAR = 50
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def status_line(status: str, id: str = "") -> Line:
    """A plain status, of a layer or of the whole."""
    return {"status": status, "id": id} if id else {"status": status}


def progress_line(id: str, action: str, current: int = 0, total: int = 0) -> Line:
    """An action on a layer; with numbers when there are any."""
    detail: dict[str, int] = {}
    if current > 0:
        detail["current"] = current
    if total > 0:
        detail["total"] = total
    line: Line = {"status": action, "progressDetail": detail}
    if detail:
        line["progress"] = _bar(current, total)
    line["id"] = id
    return line


def stream_line(text: str) -> Line:
    """A line of text (`docker load`)."""
    return {"stream": text}


def error_line(message: str) -> Line:
    """The last line when it went wrong."""
    return {"errorDetail": {"message": message}, "error": message}


def encode(line: Line) -> bytes:
    """One line's bytes."""
    return orjson.dumps(line) + b"\r\n"


async def encoded(lines: AsyncIterator[Line]) -> AsyncIterator[bytes]:
    """The stream's bytes; an error after the first line becomes the last line."""
    async with aclosing(lines):  # type: ignore[type-var]
        try:
            async for line in lines:
                yield encode(line)
        except (DockerError, StoreFull) as error:
            yield encode(error_line(str(error)))


def _bar(current: int, total: int) -> str:
    if total <= 0:
        return f"{human_size(current):>8}"
    done = min(int(current / total * 100), 100) // 2
    # One place less for the head of the arrow, as Docker draws it.
    return f"[{'=' * done}>{' ' * (_BAR - done)}] {human_size(current):>8}/{human_size(total)}"


def human_size(size: float) -> str:
    """`1.234MB`: four significant digits, powers of 1000."""
    unit = 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    return f"{size:.4g}{_UNITS[unit]}"
