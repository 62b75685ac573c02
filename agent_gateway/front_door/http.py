"""The HTTP/1.1 server: uvicorn's H11Protocol with the three things it lacks.

1. `scope["extensions"]["tcp.hijack"]`: an app may take the connection over (attach and exec), with the bytes that came
   early and with half-close both ways.
2. Websockets of the relay on the same port.
3. Large request bodies (`docker cp`, `docker load`) bypass h11.

uvicorn's internals are not an interface: its minor version is pinned, and `tests/contract/test_gateway_http.py` and
`test_gateway_hijack.py` hold it to this use.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections.abc import Iterable
from typing import Any, Protocol, cast
from urllib.parse import unquote

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent_gateway.asgi import App, message_body
from agent_gateway.front_door.chunked import ChunkedBody, FixedBody, MalformedChunk, rewrite_large
from agent_gateway.front_door.cycle import Cycle
from agent_gateway.front_door.proxy_protocol import Proxied
from agent_gateway.front_door.shared_state import SharedState
from agent_gateway.relay.pairing import StreamRefused
from agent_gateway.websocket_server import READ_BUFFER, take_over
from agent_gateway.websockets import Socket, feed

_HEAD_SECONDS = 10.0
"""For the first request of a connection; later ones have the keep-alive time."""
_KEEP_ALIVE_SECONDS = 3600
_MAX_HEAD = 64 * 1024
_BODY_HIGH_WATER = 1024 * 1024
_UNIX_SEND_BUFFER = 512 * 1024
_REASONS = {400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found", 410: b"Gone"}


class WebsocketRouter(Protocol):
    """Says which websockets are the relay's."""

    def websocket(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> Socket | None:
        """What serves a websocket; None when it is not ours. Raises StreamRefused."""
        ...


class HttpServer:
    """Makes the protocols of any number of listeners that serve one app."""

    def __init__(
        self,
        app: App,
        websockets: WebsocketRouter | None,
        *,
        keep_alive_seconds: float = _KEEP_ALIVE_SECONDS,
        most_of_peer: int = 0,
    ) -> None:
        """`most_of_peer`: connections of one address that are not websockets yet; 0: any number."""
        self.websockets = websockets
        self.most_of_peer = most_of_peer
        self.of_peer: dict[str, int] = {}
        self.buffer = memoryview(bytearray(READ_BUFFER))
        """What its websockets read into."""
        self.state = SharedState()
        self.config = Config(
            cast(Any, app),
            http=cast(Any, GatewayProtocol),
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=int(keep_alive_seconds),
            h11_max_incomplete_event_size=_MAX_HEAD,
        )
        self.config.load()

    def __call__(self) -> asyncio.Protocol:
        """One connection."""
        return GatewayProtocol(self)

    def shutdown(self) -> None:
        """Idle connections are closed, busy ones after their response."""
        for connection in list(self.state.connections):
            connection.shutdown()

    def abort(self) -> None:
        """Every connection is cut."""
        for task in list(self.state.tasks):
            task.cancel()
        for connection in list(self.state.connections):
            connection.transport.abort()


class GatewayProtocol(H11Protocol):
    """One connection of a Docker client, agent or connector."""

    def __init__(self, server: HttpServer, proxied: Proxied | None = None) -> None:
        """`proxied`: who is behind the connection, when a proxy has said so."""
        super().__init__(server.config, server.state, {})
        self._server = server
        self._proxied = proxied
        self._extensions: dict[str, Any] = {"tcp.hijack": self, "proxied": proxied}
        self._chunks: ChunkedBody | FixedBody | None = None
        self._length = 0
        """Of the body whose Content-Length was hidden from h11."""
        self._keeps_half_open = False
        self._half_closed = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._peer = ""
        """Under which this connection is counted."""
        self.access_log = False

    # The extension, as an app sees it.

    def expect_hijack(self) -> None:
        """From now on the client's half-close does not end the connection."""
        self._keeps_half_open = True

    def hijack(self, head: bytes, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Writes `head`, then hands the connection to `protocol`, with the bytes and the half-close that came early."""
        early = self._leave()
        transport = self.transport
        transport.set_protocol(protocol)
        transport.write(head)
        protocol.connection_made(transport)
        if early:
            protocol.data_received(early)
        if self._half_closed:
            protocol.eof_received()
        return transport

    def hijack_websocket(self, listener: Socket) -> None:
        """Makes the connection a websocket. The app must have checked that the request asks for one."""
        early = self._leave()
        take_over(self.transport, self.headers, early, listener, self._server.buffer, ping=False)

    def _leave(self) -> bytes:
        cycle = self.cycle
        if cycle.response_started or self.transport.is_closing():
            raise ConnectionError("the connection is gone")
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        early: bytes = self.conn.trailing_data[0]
        self.flow.resume_reading()
        return early

    # asyncio's side.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection."""
        super().connection_made(transport)
        if self._proxied is not None:
            self.client = (self._proxied.address, self._proxied.port) if self._proxied.address else None
        if self._server.most_of_peer and not self._counted(transport):
            self.connections.discard(self)
            transport.abort()
            return
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        elif sock is not None and sock.family == socket.AF_UNIX:
            # Linux gives unix sockets 208 KiB, less than one message of a stream.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNIX_SEND_BUFFER)
        self._head_timer = self.loop.call_later(_HEAD_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._stop_head_timer()
        self._uncount()
        super().connection_lost(exc)

    def _counted(self, transport: asyncio.Transport) -> bool:
        if self._proxied is not None:
            peer = self._proxied.address or "local"
        else:
            name = transport.get_extra_info("peername")
            peer = str(name[0]) if isinstance(name, tuple) else "local"
        counts = self._server.of_peer
        if counts.get(peer, 0) >= self._server.most_of_peer:
            return False
        self._peer = peer
        counts[peer] = counts.get(peer, 0) + 1
        return True

    def _uncount(self) -> None:
        peer, self._peer = self._peer, ""
        if peer:
            counts = self._server.of_peer
            counts[peer] -= 1
            if not counts[peer]:
                del counts[peer]

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The client's half-close: an end, unless the app is about to hijack and has the whole request."""
        if self._keeps_half_open and not self.cycle.more_body:
            self._half_closed = True
            return True
        return None

    def data_received(self, data: bytes) -> None:
        """What the client sends."""
        self._unset_keepalive_if_required()
        if self._chunks is not None:
            self._body_received(data)
            return
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 or self.conn.their_state is not h11.IDLE or self.conn.trailing_data[0]:
            self.conn.receive_data(data)
            self.handle_events()
            return
        # The head alone, so that a large body after it never enters h11's buffer.
        head, self._length = rewrite_large(data[:end])
        self.conn.receive_data(head)
        self.handle_events()
        self._length = 0
        rest = data[end:]
        if not rest:
            return
        if self._chunks is not None:
            self._body_received(rest)
        elif self.transport.get_protocol() is not self:
            self._after_takeover(rest)
        elif not self.transport.is_closing():
            self.conn.receive_data(rest)
            self.handle_events()

    def _after_takeover(self, rest: bytes) -> None:
        if not self.transport.is_closing():
            feed(self.transport.get_protocol(), rest)

    def _body_received(self, data: bytes) -> None:
        assert self._chunks is not None
        cycle = cast(Cycle, self.cycle)
        try:
            parts, rest = self._chunks.feed(data)
        except MalformedChunk:
            self._chunks = None
            cycle.disconnected = True
            cycle.message_event.set()
            self._refuse(400, "malformed chunked body")
            return
        if parts and not cycle.response_complete:
            cycle.parts += parts
            cycle.size += sum(map(len, parts))
            if cycle.size > _BODY_HIGH_WATER:
                self.flow.pause_reading()
            cycle.message_event.set()
        if rest is not None:
            self._chunks = None
            self.conn.receive_data(rest)
            self.handle_events()

    def handle_events(self) -> None:
        """Acts on what h11 has understood."""
        while self.transport.get_protocol() is self and not self.transport.is_closing():
            try:
                event = self.conn.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(error.error_status_hint if error.error_status_hint >= 400 else 400, "malformed request")
                return
            if isinstance(event, h11.Request):
                self._request(event)
            elif isinstance(event, h11.Data):
                self._data(event)
            elif isinstance(event, h11.EndOfMessage):
                if self.conn.our_state is h11.DONE:
                    self.flow.resume_reading()
                    self.conn.start_next_cycle()
                    continue
                self.cycle.more_body = False
                self.cycle.message_event.set()
                if self.conn.their_state == h11.MUST_CLOSE:
                    return
            elif event is h11.PAUSED:
                self.flow.pause_reading()
                return
            else:
                return

    def _data(self, event: h11.Data) -> None:
        if self.conn.our_state is h11.DONE:
            return
        self.cycle.body += event.data
        if len(self.cycle.body) > _BODY_HIGH_WATER:
            self.flow.pause_reading()
        self.cycle.message_event.set()

    def _request(self, event: h11.Request) -> None:
        self._unset_keepalive_if_required()
        self._stop_head_timer()
        if event.http_version not in (b"1.1", b"1.0"):
            self._refuse(505, "HTTP/1.1 is served here")
            return
        headers = self.headers = list(event.headers)
        raw_path, _, query = event.target.partition(b"?")
        path = unquote(raw_path.decode("ascii", "replace"))
        scope: Any = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": event.http_version.decode("ascii"),
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": event.method.decode("ascii"),
            "root_path": "",
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
            "state": {},
            "extensions": self._extensions,
        }
        self.scope = scope
        router = self._server.websockets
        if router is not None and self._get_upgrade() == b"websocket" and self._routed(router, path, event):
            return
        chunked = any(name == b"transfer-encoding" for name, _ in headers)
        if self._length:
            headers.remove((b"transfer-encoding", b"chunked"))
            headers.append((b"content-length", str(self._length).encode()))
        self.cycle = Cycle(
            scope=scope,
            conn=self.conn,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            on_response=self.on_response_complete,
        )
        if chunked and not self.conn.trailing_data[0]:
            self._chunks = FixedBody(self._length) if self._length else ChunkedBody()
        task = self.loop.create_task(self.cycle.run_asgi(self.app), context=contextvars.Context())
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _routed(self, router: WebsocketRouter, path: str, event: h11.Request) -> bool:
        try:
            listener = router.websocket(path, self.headers)
        except StreamRefused as refused:
            self._refuse(refused.status, refused.message)
            return True
        if listener is None:
            return False
        self.connections.discard(self)
        self._uncount()
        if event.method == b"GET":
            take_over(self.transport, self.headers, self.conn.trailing_data[0], listener, self._server.buffer)
        else:
            self._refuse(400, "a websocket begins with GET")
        return True

    def _refuse(self, status: int, message: str) -> None:
        """A raw answer in Docker's form, and the end of the connection."""
        if self.transport.is_closing():
            return
        body = message_body(message)
        head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            self.transport.write(head % (status, _REASONS.get(status, b"Refused"), len(body)) + body)
        self.transport.close()

    def on_response_complete(self) -> None:
        """A response is out: the hijack that was expected did not come, so a half-close is an end again."""
        self._keeps_half_open = False
        super().on_response_complete()
        if self._half_closed:
            self.transport.close()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
