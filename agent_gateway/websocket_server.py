"""The server's end of a websocket, on an HTTP connection that was taken over.

Payload goes to the listener as it comes in, in pieces of a message too, and where the mask is zero (our agents' is)
straight from the buffer that the kernel wrote it to. All connections of a server share that buffer, because what is
read is consumed before anything else is: an idle connection holds no memory.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Iterable
from typing import Any, cast

from agent_gateway.asgi import message_body
from agent_gateway.protocol import MAX_BINARY, ProtocolViolation
from agent_gateway.websocket_frames import (
    BINARY,
    CLOSE,
    LONGEST_HEADER,
    PING,
    PONG,
    TEXT,
    FrameHeader,
    parse_header,
    server_header,
    unmasked,
)
from agent_gateway.websockets import Socket

READ_BUFFER = 256 * 1024 + LONGEST_HEADER
_WRITE_HIGH = 512 * 1024
_WRITE_LOW = 128 * 1024
_PING_SECONDS = 30.0
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def take_over(
    transport: asyncio.Transport,
    headers: Iterable[tuple[bytes, bytes]],
    early: bytes,
    listener: Socket,
    buffer: memoryview,
    *,
    ping: bool = True,
) -> None:
    """Makes an HTTP connection whose request head has been read into a websocket served by `listener`.

    `early` is what came after the head, `buffer` what the server's connections read into. A handshake that is none is
    answered 400 and the connection closed. With `ping` a peer that is silent for a minute is cut off.
    """
    named = dict(headers)
    key = named.get(b"sec-websocket-key", b"")
    if not key or named.get(b"sec-websocket-version") != b"13":
        body = message_body("a websocket handshake of version 13 is wanted")
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nsec-websocket-version: 13\r\n"
        transport.write(head + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
        transport.close()
        return
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    transport.set_write_buffer_limits(_WRITE_HIGH, _WRITE_LOW)
    transport.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    connection = Connection(transport, listener, buffer)
    transport.set_protocol(connection)
    connection.open(early, ping=ping)


class Connection(asyncio.BufferedProtocol):
    """One accepted websocket. Towards its listener it has the names that picows' transport has."""

    is_client_side = False

    def __init__(self, transport: asyncio.Transport, listener: Socket, buffer: memoryview) -> None:
        self.underlying_transport = transport
        self.is_secure = transport.get_extra_info("ssl_object") is not None
        self._listener = listener
        self._buffer = buffer
        self._head = b""
        """The beginning of a header that is not all there."""
        self._frame: FrameHeader | None = None
        """The frame whose payload is being read."""
        self._left = 0
        """Bytes of it that are missing."""
        self._message = bytearray()
        """Of a text or control message, what is there."""
        self._heard = True
        self._asked = False
        """A ping is out and nothing was heard since."""
        self._timer: asyncio.TimerHandle | None = None

    def open(self, early: bytes, *, ping: bool) -> None:
        """The handshake is answered."""
        if ping:
            self._timer = asyncio.get_running_loop().call_later(_PING_SECONDS, self._tick)
        self._listener.on_ws_connected(cast(Any, self))
        if early:
            self._received(memoryview(early))

    # What the listener does.

    def send(self, kind: int, data: bytes | memoryview | str) -> None:
        """One message."""
        payload = data.encode() if isinstance(data, str) else data
        if not self.underlying_transport.is_closing():
            self.underlying_transport.write(server_header(int(kind), len(payload)) + payload)

    def send_close(self, code: int, reason: str = "") -> None:
        """A close frame."""
        self.send(CLOSE, int(code).to_bytes(2, "big") + reason.encode()[:120])

    def disconnect(self, graceful: bool = True) -> None:
        """Ends the connection, with or without what is still to be written."""
        if graceful:
            self.underlying_transport.close()
        else:
            self.underlying_transport.abort()

    # asyncio's side.

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Something was read."""
        self._received(self._buffer[:nbytes])

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._listener.on_ws_disconnected(cast(Any, self))

    def pause_writing(self) -> None:
        """Too much is waiting to be written."""
        self._listener.pause_writing()

    def resume_writing(self) -> None:
        """Writing goes on."""
        self._listener.resume_writing()

    def _tick(self) -> None:
        self._timer = None
        if self.underlying_transport.is_closing():
            return
        if self._heard or self._listener.reading_paused:  # what is not read cannot be heard
            self._heard = self._asked = False
        elif self._asked:
            self.underlying_transport.abort()
            return
        else:
            self._asked = True
            self.send(PING, b"")
        self._timer = asyncio.get_running_loop().call_later(_PING_SECONDS, self._tick)

    def _received(self, view: memoryview) -> None:
        self._heard = True
        try:
            while view and not self.underlying_transport.is_closing():
                view = self._payload(view) if self._left else self._header(view)
        except ProtocolViolation as violation:
            self._left = 1 << 62  # nothing that follows is a frame
            self._frame = None
            if not self._listener.closing:
                self._listener.refuse(violation.code, str(violation))

    def _header(self, view: memoryview) -> memoryview:
        held = len(self._head)
        data = self._head + view[:LONGEST_HEADER] if held else view
        header = parse_header(data, MAX_BINARY)
        if header is None:
            self._head = bytes(data)
            return view[len(view) :]
        self._head = b""
        self._frame, self._left = header, header.length
        if not header.length:
            self._finish(header.kind, b"")
        return view[header.size - held :]

    def _payload(self, view: memoryview) -> memoryview:
        frame = self._frame
        if frame is None:
            return view[len(view) :]
        piece, rest = view[: self._left], view[self._left :]
        data: memoryview | bytes = piece
        if frame.key:
            data = unmasked(piece, frame.key, frame.length - self._left)
        self._left -= len(piece)
        if frame.kind == BINARY:
            if not self._listener.closing:
                self._listener.binary(memoryview(data))
            return rest
        self._message += data
        if not self._left:
            whole = bytes(self._message)
            self._message = bytearray()
            self._finish(frame.kind, whole)
        return rest

    def _finish(self, kind: int, data: bytes) -> None:
        if kind == CLOSE:
            self._listener.closed_by_peer(data)
        elif self._listener.closing or kind in (BINARY, PONG):
            return
        elif kind == TEXT:
            self._listener.text_bytes(data)
        elif kind == PING:
            self.send(PONG, data)
