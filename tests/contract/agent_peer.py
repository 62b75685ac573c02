"""A gateway and client in one, for tests of the real agent. It speaks the wire protocol and shares no code with it."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

Json = dict[str, Any]
_WINDOW = 1 << 20


class Socket(WSListener):
    """One websocket of the agent's; what arrives goes to `receiver`, or waits for one."""

    def __init__(self, peer: AgentPeer, path: str, token: str) -> None:
        self.peer = peer
        self.path = path
        self.token = token
        self.transport: WSTransport = None  # type: ignore[assignment]
        self.receiver: Callable[[WSMsgType, bytes], None] | None = None
        self.closed: Callable[[int], None] | None = None
        self.close_code = 1006

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.peer._connected(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            self.close_code = int(frame.get_close_code().value) or 1005
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        elif frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif self.receiver is not None:
            assert frame.fin
            self.receiver(frame.msg_type, frame.get_payload_as_bytes())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self.closed is not None:
            self.closed(self.close_code)

    def text(self, message: Json) -> None:
        self.transport.send(WSMsgType.TEXT, json.dumps(message).encode())

    def cut(self) -> None:
        """Break the connection without a word."""
        self.transport.underlying_transport.abort()


class ClientEnd:
    """The client's end of a stream, with acknowledgement and resumption."""

    def __init__(self, peer: AgentPeer, stream_id: str) -> None:
        self.peer = peer
        self.id = stream_id
        self.received = bytearray()
        self.count = 0
        self.keep = True
        self.eof_received = False
        self.result: Any = None
        self.exit_code: int | None = None
        self.error: Json | None = None
        self.close_code: int | None = None
        self.resumes = 0
        self.hold_acks = False
        self._socket: Socket | None = None
        self._held = bytearray()  # sent, not acknowledged
        self._base = 0
        self._eof_sent = False
        self._begun = False
        self._changed = asyncio.Event()
        self._ack_due = False
        self._acked = 0
        self.on_data: Callable[[bytes], None] | None = None

    # The socket's side

    def attach(self, socket: Socket) -> None:
        self._socket = socket
        socket.receiver = self._message
        socket.closed = self._closed
        if not self._begun:  # later sockets begin with a resume
            self._begun = True
            self._send_held()
        self._wake()

    def _closed(self, code: int) -> None:
        self._socket = None
        if code != 1006:
            self.close_code = code
        self._wake()

    def _message(self, kind: WSMsgType, payload: bytes) -> None:
        if kind == WSMsgType.BINARY:
            self.count += len(payload)
            if self.keep:
                self.received += payload
            if self.on_data:
                self.on_data(payload)
            if self.hold_acks:
                pass
            elif self.count - self._acked >= 256 << 10:
                self._ack()
            elif not self._ack_due:
                self._ack_due = True
                asyncio.get_running_loop().call_later(0.02, self._ack_later)
        else:
            self._control(json.loads(payload))
        self._wake()

    def _ack_later(self) -> None:
        self._ack_due = False
        if not self.hold_acks:
            self._ack()

    def _ack(self) -> None:
        self._acked = self.count
        if self._socket:
            self._socket.text({"ack": self.count})

    def _control(self, control: Json) -> None:
        assert len(control) == 1, control
        [(key, value)] = control.items()
        if key == "ack":
            if value > self._base:  # a resume may have said more already
                del self._held[: value - self._base]
                self._base = value
        elif key == "resume":
            self.resumes += 1
            if "id" in value and self._socket:
                self._socket.text({"resume": {"received": self.count, "answer": value["id"]}})
                del self._held[: value["received"] - self._base]
                self._base = value["received"]
                self._send_held()
        elif key == "eof":
            self.eof_received = True
        elif key == "exit":
            self.exit_code = value["code"]
        elif key in ("result", "error"):
            setattr(self, key, value)
        else:
            raise AssertionError(f"unknown control {control}")

    def _send_held(self) -> None:
        for at in range(0, len(self._held), 65536):
            self._binary(bytes(self._held[at : at + 65536]))
        if self._eof_sent and self._socket:
            self._socket.text({"eof": True})

    # The test's side

    def _wake(self) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[], bool], timeout: float = 20) -> None:
        async with asyncio.timeout(timeout):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def _binary(self, payload: bytes) -> None:
        if self._socket:
            self._socket.transport.send(WSMsgType.BINARY, payload)

    async def send(self, data: bytes) -> None:
        for at in range(0, len(data), 65536):
            piece = data[at : at + 65536]
            await self.until(lambda: len(self._held) + 65536 <= _WINDOW or self.ended)
            if self.ended:
                return
            self._held += piece
            self._binary(piece)

    def eof(self) -> None:
        self._eof_sent = True
        if self._socket:
            self._socket.text({"eof": True})

    def resize(self, rows: int, cols: int) -> None:
        assert self._socket
        self._socket.text({"resize": [rows, cols]})

    def close(self) -> None:
        assert self._socket
        self._socket.transport.send_close(WSCloseCode.OK)

    def cut(self) -> None:
        if self._socket:
            self._socket.cut()

    @property
    def ended(self) -> bool:
        return self.close_code is not None

    async def end(self, timeout: float = 20) -> ClientEnd:
        await self.until(lambda: self.ended, timeout)
        return self

    async def output(self, text: bytes, timeout: float = 20) -> None:
        await self.until(lambda: text in bytes(self.received), timeout)

    def demultiplexed(self) -> tuple[bytes, bytes]:
        out = {1: bytearray(), 2: bytearray()}
        data, at = bytes(self.received), 0
        while at < len(data):
            kind, size = data[at], int.from_bytes(data[at + 4 : at + 8], "big")
            assert data[at + 1 : at + 4] == b"\0\0\0"
            out[kind] += data[at + 8 : at + 8 + size]
            at += 8 + size
        assert at == len(data)
        return bytes(out[1]), bytes(out[2])


class AgentPeer:
    """The gateway. `async with AgentPeer() as peer` listens; then an agent is started against `peer.url`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.link: Socket | None = None
        self.links = 0
        self.spares: list[Socket] = []
        self.use_spares = True
        self.ends: dict[str, ClientEnd] = {}
        self.events: list[Json] = []
        self.ack_events = True
        self.hellos: list[Json] = []
        self.on_hello: Callable[[Json], Awaitable[None] | None] | None = None
        self._results: dict[str, asyncio.Future[Json]] = {}
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> AgentPeer:
        self._server = await ws_create_server(self._upgrade, "127.0.0.1", 0, max_frame_size=1 << 21, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        for socket in [self.link, *self.spares, *(e._socket for e in self.ends.values())]:
            if socket:
                socket.closed = None
                socket.cut()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def _upgrade(self, request: WSUpgradeRequest) -> Any:
        token = request.headers.get("Authorization", "")
        if token != "Bearer secret":
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(401, b"no"), None)
        return Socket(self, request.path.decode(), token)

    def _connected(self, socket: Socket) -> None:
        if socket.path == "/agent/link":
            self.link, self.links = socket, self.links + 1
            socket.receiver = self._from_link
            socket.closed = lambda code: self._wake()
        elif socket.path == "/agent/streams":
            self.spares.append(socket)
            socket.closed = lambda code: self._spare_closed(socket)
        else:
            self.ends[socket.path.rsplit("/", 1)[1]].attach(socket)
        self._wake()

    def _spare_closed(self, socket: Socket) -> None:
        if socket in self.spares:
            self.spares.remove(socket)

    def _wake(self) -> None:
        self._changed.set()

    def _from_link(self, kind: WSMsgType, payload: bytes) -> None:
        assert kind == WSMsgType.TEXT
        message = json.loads(payload)
        if message["type"] == "hello":
            self.hellos.append(message)
            if self.on_hello:
                self.on_hello(message)
        elif message["type"] == "result":
            self._results.pop(message["id"]).set_result(message)
        elif message["type"] == "ping":
            self.tell({"type": "pong"})
        else:
            if message["seq"] not in [e["seq"] for e in self.events]:
                self.events.append(message)
            if self.ack_events:
                self.tell({"type": "ack", "seq": message["seq"]})
        self._wake()

    def tell(self, message: Json) -> None:
        assert self.link
        self.link.text(message)

    async def until(self, condition: Callable[[], bool], timeout: float = 20) -> None:
        async with asyncio.timeout(timeout):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def hello(self) -> Json:
        await self.until(lambda: bool(self.hellos))
        return self.hellos[-1]

    async def start(self, spec: Json, streams: list[str] | None = None) -> Json:
        """Answer the hello with a start, and return the `started` or `failed` event."""
        await self.hello()
        self.tell({"type": "welcome", "action": "start", "spec": spec, "streams": streams or []})

        def outcome() -> Json | None:
            return next(
                (e for e in self.events if e["type"] in ("started", "failed") and e["run"] == spec["run"]), None
            )

        await self.until(lambda: outcome() is not None)
        return outcome() or {}

    async def event(self, kind: str, timeout: float = 20, **fields: object) -> Json:
        def find() -> Json | None:
            for e in self.events:
                if e["type"] == kind and all(e.get(k) == v for k, v in fields.items()):
                    return e
            return None

        await self.until(lambda: find() is not None, timeout)
        found = find()
        assert found
        return found

    async def call(self, method: str, **params: object) -> Any:
        """Return the result; raise CallRefused with the error."""
        call_id = secrets.token_hex(4)
        self._results[call_id] = asyncio.get_running_loop().create_future()
        future = self._results[call_id]
        self.tell({"type": "call", "id": call_id, "method": method, "params": params})
        async with asyncio.timeout(20):
            reply = await future
        if "error" in reply:
            raise CallRefused(reply["error"]["status"], reply["error"]["message"])
        return reply["result"]

    def open(self, kind: str, **params: object) -> ClientEnd:
        """Open a stream: on the spare when there is one, as the relay does."""
        stream_id = secrets.token_hex(6)
        end = self.ends[stream_id] = ClientEnd(self, stream_id)
        message = {"type": "open", "stream": stream_id, "kind": kind, "params": params}
        if self.use_spares and self.spares:
            spare = self.spares.pop()
            spare.text(message)
            end.attach(spare)
        else:
            self.tell(message)
        return end

    def attach(self, **params: object) -> ClientEnd:
        base = {"stdin": True, "stdout": True, "stderr": True, "stream": True, "logs": False, "detach_keys": ""}
        return self.open("attach", **{**base, **params})

    def exec(self, *argv: str, **params: object) -> ClientEnd:
        base = {"exec": secrets.token_hex(4), "argv": list(argv), "env": [], "workdir": "", "user": "", "tty": False}
        stdio = {"privileged": False, "stdin": False, "stdout": True, "stderr": True, "detach_keys": ""}
        return self.open("exec", **{**base, **stdio, **params})

    async def exec_output(self, *argv: str, **params: object) -> tuple[int | None, bytes]:
        end = await self.exec(*argv, **params).end()
        return end.exit_code, b"".join(end.demultiplexed()) if not params.get("tty") else bytes(end.received)


class CallRefused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message
