"""Reads request bodies without h11's copies: chunked ones (RFC 9112, section 7.1), and large ones of a known length.

The zero-size chunk, trailers and what follows are left to h11, which keeps the connection's state. A large body of a
known length is shown to h11 as a chunked one, so that both end alike.
"""

from __future__ import annotations

import re

_MAX_LINE = 4096
_HEX = frozenset(b"0123456789abcdefABCDEF")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*(?=\r\n)", re.IGNORECASE)
_FRAMING = re.compile(rb"\r\n(?:content-length|transfer-encoding)[ \t]*:", re.IGNORECASE)
LARGE = 1024 * 1024


class MalformedChunk(Exception):
    """The framing is wrong; the connection can't go on."""


def rewrite_large(head: bytes) -> tuple[bytes, int]:
    """A request head with its large Content-Length made `Transfer-Encoding: chunked`, and the length; or itself, 0."""
    match = _LENGTH.search(head)
    if match is None or int(match[1]) < LARGE or len(_FRAMING.findall(head)) != 1:
        return head, 0
    return head[: match.start()] + b"\r\ntransfer-encoding: chunked" + head[match.end() :], int(match[1])


class FixedBody:
    """A body of a known length."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length

    def feed(self, data: bytes) -> tuple[list[memoryview], bytes | None]:
        """As `ChunkedBody.feed`."""
        view = memoryview(data)
        part, rest = view[: self._left], view[self._left :]
        self._left -= len(part)
        return [part] if part else [], None if self._left else b"0\r\n\r\n" + rest


class ChunkedBody:
    """Feed it what the socket gives."""

    __slots__ = ("_left", "_line", "_trailing")

    def __init__(self) -> None:
        self._left = 0
        """Bytes missing of the present chunk."""
        self._trailing = 0
        """Of the CRLF after a chunk: how many bytes are still to come."""
        self._line = b""
        """The beginning of a size line cut off by a packet."""

    def feed(self, data: bytes) -> tuple[list[memoryview], bytes | None]:
        """Payload in order; and, after the last chunk, everything from the zero-size line on."""
        parts: list[memoryview] = []
        view = memoryview(data)
        position, end = 0, len(data)
        while position < end:
            if self._left:
                take = min(self._left, end - position)
                parts.append(view[position : position + take])
                position += take
                self._left -= take
                if not self._left:
                    self._trailing = 2
            elif self._trailing:
                if data[position] != b"\r\n"[2 - self._trailing]:
                    raise MalformedChunk
                self._trailing -= 1
                position += 1
            else:
                line_end = data.find(b"\n", position)
                if line_end < 0:
                    self._line += data[position:]
                    if len(self._line) > _MAX_LINE:
                        raise MalformedChunk
                    break
                line = self._line + data[position : line_end + 1]
                self._line = b""
                position = line_end + 1
                self._left = _size(line)
                if not self._left:
                    return parts, line + data[position:]
        return parts, None


def _size(line: bytes) -> int:
    if len(line) > _MAX_LINE or not line.endswith(b"\r\n"):
        raise MalformedChunk
    digits = line[:-2].partition(b";")[0].rstrip(b" \t")
    if not 1 <= len(digits) <= 15 or not _HEX.issuperset(digits):
        raise MalformedChunk
    return int(digits, 16)
