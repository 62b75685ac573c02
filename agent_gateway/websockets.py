"""Websockets as both sides of the gateway use them: `Socket`, and dialling with picows.

Source of the odd parts: picows 2.3. It sets TCP options on whatever socket it is given (which fails on unix sockets),
and copies each message it sends. Hence the stand-in for unix transports, and `send_binary`, which hands header and
payload to the kernel in one call.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from typing import Any, cast

from picows import WSListener, WSMsgType, WSTransport, picows, ws_connect

from agent_gateway import trace_context
from agent_gateway import websocket_frames as frames
from agent_gateway.protocol import CLOSE_OK, CLOSE_PROTOCOL_ERROR, MAX_BINARY

BINARY = WSMsgType.BINARY
TEXT = WSMsgType.TEXT
CLOSE = WSMsgType.CLOSE
PONG = WSMsgType.PONG

CLOSE_TIMEOUT_SECONDS = 5.0
HANDSHAKE_SECONDS = 10.0
_MAX_FRAME = MAX_BINARY + 4096
_READ_BUFFER = 16 * 1024
_WRITE_HIGH = 512 * 1024
_WRITE_LOW = 128 * 1024
_PING_IDLE_SECONDS = 30.0

_LOGGER = logging.getLogger("agent_gateway.websocket")
# picows logs each peer's mistake as an error of ours, and each connection at INFO.
_LOGGER.setLevel(logging.CRITICAL)


class _UnixSocket:
    """A socket without TCP's options."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def setsockopt(self, *_: object) -> None:
        pass

    def getsockopt(self, *_: object) -> int:
        return 0

    def fileno(self) -> int:
        return cast(int, self._sock.fileno())


class _UnixTransport:
    """An asyncio transport over a unix socket, as picows can use it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._socket = _UnixSocket(transport.get_extra_info("socket"))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._socket if name == "socket" else self._transport.get_extra_info(name, default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _adapted(transport: asyncio.Transport) -> Any:
    name = transport.get_extra_info("sockname")
    return transport if isinstance(name, tuple) else _UnixTransport(transport)


def feed(protocol: Any, data: bytes) -> None:
    """Gives a buffered protocol bytes that were read before it was there."""
    view = memoryview(data)
    while view:
        buffer = protocol.get_buffer(-1)
        size = min(len(buffer), len(view))
        buffer[:size] = view[:size]
        protocol.buffer_updated(size)
        view = view[size:]


async def dial(
    url: str, listener: WSListener, token: str, *, tls: ssl.SSLContext | None = None, proxy: str | None = None
) -> WSTransport:
    """Dials `http(s)://…`, `ws(s)://…` or `unix:///path.sock:/path`. Raises OSError or picows' WSHandshakeError.

    `tls` and `proxy` (`http://host:port`) are for `https` and `wss`, and for what is not on this machine.
    """
    headers = {"Authorization": f"Bearer {token}", **trace_context.carried()}
    if url.startswith("unix://"):
        transport = await _dial_unix(url, listener, headers)
    else:
        transport = await _dial_tcp(url, listener, headers, tls, proxy)
    if transport.response is None:
        # picows takes a connection that is lost during the handshake for a success.
        raise ConnectionResetError("the connection was lost during the handshake")
    return transport


async def _dial_tcp(
    url: str, listener: WSListener, headers: dict[str, str], tls: ssl.SSLContext | None, proxy: str | None
) -> WSTransport:
    scheme, rest = url.split("://", 1)
    target = f"{'wss' if scheme in ('https', 'wss') else 'ws'}://{rest}"
    transport, _ = await ws_connect(
        lambda: listener,
        target,
        logger_name=_LOGGER,
        websocket_handshake_timeout=HANDSHAKE_SECONDS,
        enable_auto_ping=True,
        auto_ping_idle_timeout=_PING_IDLE_SECONDS,
        auto_ping_reply_timeout=_PING_IDLE_SECONDS,
        max_frame_size=_MAX_FRAME,
        extra_headers=headers,
        max_redirects=0,
        read_buffer_init_size=_READ_BUFFER,
        use_aiofastnet=False,
        ssl_context=tls,
        proxy=proxy,
    )
    transport.underlying_transport.set_write_buffer_limits(_WRITE_HIGH, _WRITE_LOW)
    return transport


async def _dial_unix(url: str, listener: WSListener, headers: dict[str, str]) -> WSTransport:
    path, _, resource = url.removeprefix("unix://").partition(":")
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_unix_connection(asyncio.Protocol, path)
    # Not in the stubs of picows: its asyncio protocol, which nothing but its own connect and listen make otherwise.
    protocol = cast(Any, picows).WSProtocol(
        "gateway",
        resource or "/",
        True,
        lambda *_: listener,
        _LOGGER,
        True,
        HANDSHAKE_SECONDS,
        True,
        _PING_IDLE_SECONDS,
        _PING_IDLE_SECONDS,
        1,  # WSAutoPingStrategy.PING_WHEN_IDLE
        True,
        _MAX_FRAME,
        headers,
        _READ_BUFFER,
    )
    transport.set_protocol(protocol)
    transport.set_write_buffer_limits(_WRITE_HIGH, _WRITE_LOW)
    protocol.connection_made(_adapted(transport))
    try:
        await protocol.wait_until_handshake_complete()
    except BaseException:
        transport.abort()
        raise
    return cast(WSTransport, protocol.transport)


def write_view(transport: asyncio.Transport, fd: int, parts: tuple[bytes | memoryview, ...]) -> None:
    """Writes to a plain socket without copying what the kernel takes at once; the rest is copied and queued.

    asyncio's own `write` keeps a reference to a memoryview (3.12), and what we are given is picows' read buffer.
    """
    written = 0
    if not transport.get_write_buffer_size() and not transport.is_closing():
        try:
            written = os.writev(fd, parts)
        except BlockingIOError:
            pass
        except OSError:
            # The transport meets the same error and reports it where errors are handled.
            written = 0
    for part in parts:
        if written >= len(part):
            written -= len(part)
        else:
            transport.write(bytes(part[written:]) if written else bytes(part))
            written = 0


class Socket(WSListener):
    """One websocket: sending without copies, an orderly close, and the protocol's rules for what comes in.

    Subclasses override `opened`, `binary`, `text`, `lost`, `congested` and `drained`.
    """

    def __init__(self) -> None:
        self.ws: WSTransport | None = None
        self.closing = False
        self._fd = -1
        self.reading_paused = False
        self._client_side = False
        self._code: int | None = None

    def opened(self) -> None:
        """The handshake is done."""

    def binary(self, view: memoryview) -> None:
        """A binary message; `view` is valid only during the call."""

    def text(self, text: str) -> None:
        """A text message."""

    def lost(self, code: int) -> None:
        """The socket is gone; `code` is the peer's close code, 1006 without one. Not called after our own `close`."""

    def congested(self) -> None:
        """Too much waits to be written."""

    def drained(self) -> None:
        """Writing goes on."""

    def send_binary(self, data: bytes | memoryview) -> None:
        """One binary message."""
        ws = self.ws
        if ws is None or self.closing:
            return
        if self._fd < 0:
            ws.send(BINARY, data)
            return
        make = frames.client_header if self._client_side else frames.server_header
        header = make(frames.BINARY, len(data))
        write_view(ws.underlying_transport, self._fd, (header, data))

    def send_text(self, text: str) -> None:
        """One text message."""
        ws = self.ws
        # Of a connection that breaks down picows still writes: a control must not go where payload before it did not.
        if ws is not None and not self.closing and not ws.underlying_transport.is_closing():
            ws.send(TEXT, text)

    def close(self, code: int = CLOSE_OK, reason: str = "") -> None:
        """Sends a close frame and waits a little for the peer's, so that nothing sent before is lost to a reset."""
        ws = self.ws
        if ws is None or self.closing:
            return
        self.closing = True
        cast(Any, ws).send_close(code, reason)
        self.resume_reading()
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_SECONDS, ws.disconnect, False)

    def abort(self) -> None:
        """Cuts the connection without a word."""
        self.closing = True
        if self.ws is not None:
            self.ws.disconnect(False)

    def pause_reading(self) -> None:
        """Stops reading: the peer's TCP window closes."""
        if self.ws is not None and not self.reading_paused and not self.closing:
            self.reading_paused = True
            self.ws.underlying_transport.pause_reading()

    def resume_reading(self) -> None:
        """Reads on."""
        if self.ws is not None and self.reading_paused:
            self.reading_paused = False
            self.ws.underlying_transport.resume_reading()

    # picows' side.

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is done."""
        self.ws = transport
        self._client_side = transport.is_client_side
        if not transport.is_secure:
            self._fd = transport.underlying_transport.get_extra_info("socket").fileno()
        self.opened()

    def on_ws_frame(self, transport: WSTransport, frame: Any) -> None:
        """One frame, which is one message."""
        kind = frame.msg_type
        if kind == CLOSE:
            self.closed_by_peer(frame.get_payload_as_bytes())
        elif self.closing:
            return
        elif not frame.fin or frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.refuse(CLOSE_PROTOCOL_ERROR, "fragments and extensions are not served")
        elif kind == BINARY:
            self.binary(frame.get_payload_as_memoryview())
        elif kind == TEXT:
            self.text_bytes(frame.get_payload_as_bytes())
        elif kind != PONG:
            self.refuse(CLOSE_PROTOCOL_ERROR, "fragments are not served")

    def text_bytes(self, data: bytes) -> None:
        """A text message."""
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self.refuse(1007, "not UTF-8")
            return
        self.text(text)

    def closed_by_peer(self, data: bytes) -> None:
        """The peer's close frame: it is answered, and the connection ends."""
        ws = self.ws
        if ws is None:
            return
        if not self.closing:
            self._code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
            cast(Any, ws).send_close(CLOSE_OK if self._code == 1005 else self._code)
        ws.disconnect()

    def refuse(self, code: int, reason: str) -> None:
        """Closes because of the peer's fault."""
        self.close(code, reason)
        self.lost(code)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The connection is gone."""
        self.ws = None
        if not self.closing:
            self.closing = True
            self.lost(self._code or 1006)

    def pause_writing(self) -> None:
        """The transport's buffer is above its high-water mark."""
        self.congested()

    def resume_writing(self) -> None:
        """The transport's buffer is below its low-water mark."""
        self.drained()
