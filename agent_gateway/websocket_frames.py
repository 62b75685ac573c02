"""Frames of RFC 6455 as our peers send them: whole messages without extensions, from clients, so masked."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from agent_gateway.protocol import CLOSE_PROTOCOL_ERROR, ProtocolViolation

TEXT = 1
BINARY = 2
CLOSE = 8
PING = 9
PONG = 10
CLOSE_TOO_BIG = 1009

LONGEST_HEADER = 14
_CONTROL_MAX = 125
_FIN = 0x80
_MASKED = 0x80
_NO_KEY = b"\0\0\0\0"
_KINDS = frozenset((TEXT, BINARY, CLOSE, PING, PONG))


@dataclass(slots=True)
class FrameHeader:
    """What stands before a payload."""

    kind: int
    length: int
    key: bytes
    """Of the mask; empty for a mask of zeros, which changes nothing."""
    size: int
    """Bytes of the header itself."""


def parse_header(data: bytes | bytearray | memoryview, limit: int) -> FrameHeader | None:
    """The header at the beginning of `data`, None when it is not all there. Raises ProtocolViolation.

    `limit` bounds the payload; fragments, extensions and unmasked frames are refused.
    """
    if len(data) < 2:
        return None
    kind, length = data[0] ^ _FIN, data[1] ^ _MASKED
    if kind not in _KINDS:
        raise ProtocolViolation("fragments and extensions are not served", CLOSE_PROTOCOL_ERROR)
    if length > 127:
        raise ProtocolViolation("a client masks its frames", CLOSE_PROTOCOL_ERROR)
    if kind >= CLOSE and length > _CONTROL_MAX:
        raise ProtocolViolation("control frame longer than 125 bytes", CLOSE_PROTOCOL_ERROR)
    start = 2
    if length > 125:
        start = 4 if length == 126 else 10
        if len(data) < start:
            return None
        length = int.from_bytes(data[2:start], "big")
        if length > limit:
            raise ProtocolViolation(f"a message of {length} bytes", CLOSE_TOO_BIG)
    if len(data) < start + 4:
        return None
    key = bytes(data[start : start + 4])
    return FrameHeader(kind, length, b"" if key == _NO_KEY else key, start + 4)


def unmasked(data: memoryview, key: bytes, offset: int) -> bytes:
    """Payload freed of its mask; `offset` is where in the message it begins."""
    turn = offset % 4
    whole = (key[turn:] + key[:turn]) * (len(data) // 4 + 1)
    size = len(data)
    return (int.from_bytes(data, "little") ^ int.from_bytes(whole[:size], "little")).to_bytes(size, "little")


def server_header(kind: int, length: int) -> bytes:
    """Before a server's payload."""
    if length < 126:
        return struct.pack("!BB", _FIN | kind, length)
    if length < 0x10000:
        return struct.pack("!BBH", _FIN | kind, 126, length)
    return struct.pack("!BBQ", _FIN | kind, 127, length)


def client_header(kind: int, length: int) -> bytes:
    """Before a client's payload, with a mask of zeros.

    Masks keep naive proxies from bytes that a browser's script has chosen; there is no browser here, and with zeros the
    payload goes out as it is.
    """
    header = server_header(kind, length)
    return header[:1] + bytes((header[1] | _MASKED,)) + header[2:] + _NO_KEY
