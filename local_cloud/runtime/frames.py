"""What the runtime and its launcher say to each other: JSON objects, each after its length.

A frame is four bytes of length (big-endian) and that many bytes of UTF-8 JSON. The socket is a unix socket of mode
0600 in the data directory; a frame is still bounded, so a broken peer cannot make the other side hold more than one
of them. Requests carry a number `n`; the answer carries the same number. Both sides load this module: it imports
nothing heavy.
"""

from __future__ import annotations

import json
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_FRAME = 16 << 20
"""Room for the largest argument list and environment that Linux can pass to a process (a few MiB), as JSON."""

_LENGTH = struct.Struct(">I")


class FrameError(ValueError):
    """The peer sent something that is not a frame: the connection is to be closed."""


def encode(message: dict[str, Any]) -> bytes:
    """One frame; raises FrameError when the message is larger than a peer accepts."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME:
        raise FrameError(f"a message of {len(body)} bytes is larger than {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Collects bytes as they arrive and hands out the complete messages among them."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Messages completed by these bytes; raises FrameError for an oversized or malformed one."""
        self._pending += data
        messages: list[dict[str, Any]] = []
        while len(self._pending) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._pending)
            if length > MAX_FRAME:
                raise FrameError(f"a frame of {length} bytes is larger than {MAX_FRAME}")
            end = _LENGTH.size + length
            if len(self._pending) < end:
                break
            body = bytes(self._pending[_LENGTH.size : end])
            del self._pending[:end]
            messages.append(_object(body))
        return messages


def _object(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FrameError("a frame is not JSON") from error
    if not isinstance(message, dict):
        raise FrameError("a frame is not a JSON object")
    return message
