"""The gateway's other ends for tests: an agent and a control plane, and a TCP proxy that cuts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent_gateway.asgi import Message, Receive, Scope, Send, respond, respond_message
from agent_gateway.control_plane_client import Grant, HijackRequest, Linked, Refused
from agent_gateway.protocol import Error, Exit, Result, parse_from_relay, serialise
from agent_gateway.server import Gateway, GatewaySettings
from agent_gateway.stream_dial import WebsocketCarrier
from agent_gateway.streams import Stream, StreamError, new_stream_id
from agent_gateway.tickets import mint_agent_token, mint_ticket
from agent_gateway.websockets import Socket, dial

KEY = b"k" * 32
TENANT = "t1"
RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"

Handler = Callable[["AgentStream", str, dict[str, Any]], Awaitable[None]]


class AgentStream(Stream):
    """The agent's half: the same state machine, with what only agents send."""

    def finish(self, control: Result | Exit | Error) -> None:
        self._send(self.state.send_control(control))

    async def exit(self, code: int) -> None:
        self.finish(Exit(code))
        await self.wait_ended()

    async def wait_ended(self, seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not self.ended:
                await self._change()


class _AgentLink(Socket):
    def __init__(self, agent: FakeAgent) -> None:
        super().__init__()
        self.agent = agent

    def text(self, text: str) -> None:
        self.agent.received(parse_from_relay(text))

    def lost(self, code: int) -> None:
        self.agent.link_lost.set()


class FakeAgent:
    """Dials the link, serves what is opened with `handler`, answers calls with `answer`."""

    def __init__(self, url: str, container: str, handler: Handler, *, boot: str = "b1", token: str = "") -> None:
        self.url = url
        self.container = container
        self.handler = handler
        self.boot = boot
        self.token = token or mint_agent_token(KEY, TENANT, container, 3600)
        self.link: _AgentLink | None = None
        self.messages: list[dict[str, Any]] = []
        self.welcomed = asyncio.Event()
        self.link_lost = asyncio.Event()
        self.acked = 0
        self.answer: Callable[[str, dict[str, Any]], dict[str, Any]] = lambda method, params: {"method": method}
        self.tasks: set[asyncio.Task[None]] = set()
        self.streams: dict[str, AgentStream] = {}

    async def connect(self, **hello: Any) -> None:
        self.link = _AgentLink(self)
        await dial(f"{self.url}/agent/link", self.link, self.token)
        self.send({"type": "hello", "container": self.container, "boot": self.boot, **hello})

    def send(self, message: Mapping[str, Any]) -> None:
        assert self.link is not None
        self.link.send_text(serialise(message))

    def received(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        match message["type"]:
            case "welcome":
                self.welcomed.set()
            case "ack":
                self.acked = message["seq"]
            case "open" if message["stream"] not in self.streams:
                # A stream that is known redials by itself.
                self.streams[message["stream"]] = AgentStream()
                self.start(self.serve(message["stream"], message["kind"], message["params"]))
            case "call":
                try:
                    result = {"result": self.answer(message["method"], message["params"])}
                except StreamError as error:
                    result = {"error": {"status": error.status, "message": error.message}}
                self.send({"type": "result", "id": message["id"], **result})

    def start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def serve(self, stream: str, kind: str, params: dict[str, Any]) -> None:
        half = self.streams[stream]
        for attempt in range(20):
            try:
                await WebsocketCarrier(half, f"{self.url}/agent/streams/{stream}", self.token).dial()
                break
            except StreamError:
                await asyncio.sleep(0.01 * attempt)
        await self.handler(half, kind, params)

    async def close(self) -> None:
        if self.link is not None:
            self.link.abort()
        for stream in self.streams.values():
            stream.detach()
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class FakeControlPlane:
    """Grants what tests put into `grants`, records the rest."""

    def __init__(self, relay_url: str = "http://relay") -> None:
        self.relay_url = relay_url
        self.requests: list[HijackRequest] = []
        self.refusal: Refused | None = None
        self.kind = "exec"
        self.container = "c1"
        self.tty = True
        self.params: dict[str, Any] = {}
        self.hellos: list[dict[str, Any]] = []
        self.welcome: dict[str, Any] = {"action": "wait"}
        self.events: list[dict[str, Any]] = []
        self.failures = 0
        self.gones: list[str] = []

    async def tickets(self, request: HijackRequest) -> Grant:
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        stream = new_stream_id()
        ticket = mint_ticket(KEY, TENANT, self.container, self.kind, stream, self.params)
        return Grant(stream, ticket, self.relay_url, self.container, self.tty, RAW if self.tty else MULTIPLEXED)

    async def hello(self, agent: Linked, message: Mapping[str, Any]) -> dict[str, Any]:
        self.hellos.append(dict(message))
        return self.welcome

    async def event(self, agent: Linked, event: Mapping[str, Any]) -> None:
        if self.failures:
            self.failures -= 1
            raise Refused(503, "not now")
        self.events.append(dict(event))

    async def gone(self, agent: Linked) -> None:
        self.gones.append(agent.container)

    async def token(self, agent: Linked) -> str:
        raise Refused(404, "tokens are not renewed here")


async def docker_api(scope: Scope, receive: Receive, send: Send) -> None:
    """An inner app: `_ping`, a body counter, a body source; 404 for the rest."""
    path: str = scope["path"]
    if path.endswith("/_ping"):
        await respond(send, 200, b"OK", b"text/plain")
    elif path == "/count":
        size = 0
        more = True
        while more:
            message: Message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        await respond(send, 200, str(size).encode(), b"text/plain")
    elif path == "/source":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(int(scope["query_string"])):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    elif path == "/broken":
        raise RuntimeError("a fault of the app")
    else:
        await respond_message(send, 404, "page not found")


@contextlib.asynccontextmanager
async def running_gateway(control_plane: FakeControlPlane | None = None, **listen: Any) -> Any:
    """A gateway on free loopback ports. Yields it, with `.url` of the agent listener and `.port` of the Docker one."""
    plane = control_plane or FakeControlPlane()
    settings = GatewaySettings(
        KEY,
        plane.relay_url,
        docker_listen=listen.get("docker", ["tcp://127.0.0.1:0"]),
        agent_listen=listen.get("agent", ["tcp://127.0.0.1:0"]),
        local_only=listen.get("local_only", False),
        docker_proxies=listen.get("proxies", []),
        proxy_secret=listen.get("proxy_secret", ""),
    )
    gateway: Any = Gateway(settings, plane, listen.get("app", docker_api))
    await gateway.start()
    gateway.url = "http://" + gateway.agent_addresses[0].removeprefix("tcp://")
    if gateway.docker_addresses and gateway.docker_addresses[0].startswith("tcp://"):
        gateway.port = int(gateway.docker_addresses[0].rsplit(":", 1)[1])
    try:
        yield gateway
    finally:
        await gateway.stop(0)


class CuttingProxy:
    """Forwards TCP to a port and cuts connections on demand."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.forwarded = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Resets every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, to_writer}
        try:
            await asyncio.gather(self._pump(reader, to_writer), self._pump(to_reader, writer))
        finally:
            self._writers -= {writer, to_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.forwarded += len(data)
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except (OSError, RuntimeError):
            writer.transport.abort()


async def echo(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
    """An exec of `cat`."""
    if kind == "exec":
        stream.finish(Result({"pid": 7}))
    async for chunk in stream.chunks():
        await stream.send(chunk)
    await stream.exit(0)
