"""The publisher between Docker clients and an endpoint that is played by the test."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agent_gateway.asgi import Receive, Scope, Send, read_body, respond
from agent_gateway.client_half import ClientHalf, StreamError
from agent_gateway.control_plane_client import Grant, HijackRequest, Refused
from agent_gateway.publisher import publisher as module
from agent_gateway.publisher.memory import Memory
from agent_gateway.publisher.publisher import Publisher

ID = "c" * 64
START = f"/v1.47/containers/{ID}/start"
_PORTS = b"application/vnd.sockerless.ports+json"


class Relay:
    """What a stream sends."""

    def __init__(self) -> None:
        self.half: asyncio.Future[ClientHalf] = asyncio.get_running_loop().create_future()
        self.sent = b""
        self.controls: list[str] = []
        self.changed = asyncio.Event()

    def send_binary(self, data: bytes | memoryview) -> None:
        self.sent += bytes(data)
        self.changed.set()

    def send_text(self, text: str) -> None:
        self.controls.append(text)
        self.changed.set()

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.controls.append(f"closed {code}")
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Endpoint:
    """Answers as a control plane whose one container publishes port 80."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[bytes, bytes], bytes]] = []
        self.wanted: Any = [{"port": "80/tcp", "hosts": ["127.0.0.1"], "first": 0, "last": 0}]
        self.publication: str | None = ""
        self.inspected = 200
        self.start_status = 204
        self.held = asyncio.Event()
        self.held.set()
        self.events: asyncio.Queue[bytes] = asyncio.Queue()
        self.offer: dict[str, Any] = {}
        self.offered = asyncio.Event()
        self.cuts = 0
        self.cut_status = 428
        self.relay: Relay | None = None
        self.dialled: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, headers = scope["path"], dict(scope["headers"])
        body = await read_body(receive, 1 << 20) or b""
        self.asked.append((scope["method"], path, headers, body))
        if path == "/events":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": await self.events.get(), "more_body": True})
        elif path.endswith("/json"):
            own = {"Publication": self.publication} if self.publication else {}
            await self._answer(send, self.inspected, {"Name": "/web", "Sockerless": own})
        elif path == START and headers.get(b"content-type") == _PORTS:
            self.offer = json.loads(body)
            self.offered.set()
            await self.held.wait()
            self.publication = self.offer["publication"] if self.start_status == 204 else None
            await self._answer(send, self.start_status, {})
        elif path == START and self.cuts:
            self.cuts -= 1
            await send({"type": "http.response.start", "status": self.cut_status, "headers": []})
            raise ConnectionAbortedError("cut")
        elif path == START and self.wanted is not None:
            await self._answer(send, 428, {"message": "m", "container": ID, "name": "web", "ports": self.wanted})
        else:
            await self._answer(send, 204, {})

    async def _answer(self, send: Send, status: int, body: Any) -> None:
        await respond(send, status, json.dumps(body).encode(), b"application/json")

    async def tickets(self, request: HijackRequest) -> Grant:
        self.dialled.append(f"{request.method} {request.path}?{request.query}")
        return Grant("s" * 32, "ticket", "http://relay", ID, True, "")

    async def join(self, half: ClientHalf, stream_id: str, ticket: str) -> None:
        if self.relay is None:
            raise StreamError(502, "nothing listens")
        half.carrier = self.relay
        self.relay.half.set_result(half)

    def count(self, path: str) -> int:
        return sum(asked == path for _, asked, _, _ in self.asked)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class World:
    def __init__(self, memory: Path) -> None:
        self.endpoint = Endpoint()
        self.memory = memory
        self.publisher = self.another()

    def another(self) -> Publisher:
        return Publisher(self.endpoint, self.endpoint, lambda _: self.endpoint, Memory(self.memory))

    async def ask(self, method: str, path: str, *headers: tuple[bytes, bytes]) -> int:
        told: list[Any] = []

        async def send(message: Any) -> None:
            told.append(message)

        unread = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Any:
            if unread:
                return unread.pop()
            return await asyncio.Event().wait()

        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""}
        await self.publisher(scope | {"headers": list(headers)}, receive, send)
        return int(told[0]["status"])

    @property
    def port(self) -> int:
        return int(self.endpoint.offer["ports"]["80/tcp"][0]["HostPort"])

    def listens(self) -> bool:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port), 5):
            return True
        return False

    async def until_closed(self) -> None:
        async with asyncio.timeout(10):
            while self.listens():  # noqa: ASYNC110 - a closed socket tells nobody
                await asyncio.sleep(0.02)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "ports.json")
    yield made
    made.publisher.close()
    await asyncio.sleep(0)


async def test_what_has_no_ports_costs_nothing(world: World) -> None:
    world.endpoint.wanted = None
    for method, path in (
        ("POST", "/containers/create"),
        ("POST", START),
        ("POST", f"/containers/{ID}/wait"),
        ("GET", "/containers/json"),
        ("POST", f"/containers/{ID}/stop"),
        ("DELETE", f"/containers/{ID}"),
    ):
        assert await world.ask(method, path, (b"x-sockerless-publisher", b"client's")) == 204 or method == "GET"
    assert len(world.endpoint.asked) == 6
    marks = [headers[b"x-sockerless-publisher"] for _, _, headers, _ in world.endpoint.asked]
    assert marks[:2] == [b"1", b"1"]


async def test_start_and_end(world: World) -> None:
    assert await world.ask("POST", START) == 204
    assert world.listens()
    assert json.loads(world.memory.read_text())[ID]["id"] == world.endpoint.publication
    assert [path for _, path, _, _ in world.endpoint.asked][:1] == [START]
    world.endpoint.publication = None
    line = json.dumps({"Actor": {"ID": ID}}).encode() + b"\n"
    await world.endpoint.events.put(b"not JSON\n" + line[:20])
    assert world.listens()
    await world.endpoint.events.put(line[20:])
    await world.until_closed()
    assert json.loads(world.memory.read_text()) == {}


@pytest.mark.parametrize("path", [f"/containers/{ID}/stop", "/v1.47/containers/web/kill", f"/containers/{ID[:12]}"])
async def test_a_stop_is_answered_when_the_port_is_closed(world: World, path: str) -> None:
    await world.ask("POST", START)
    world.endpoint.publication = None
    await world.ask("DELETE" if path.count("/") == 2 else "POST", path)
    assert not world.listens()


async def test_a_start_that_fails(world: World) -> None:
    world.endpoint.start_status = 500
    assert await world.ask("POST", START) == 500
    assert not world.listens()


async def test_an_endpoint_that_does_not_answer_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.01)
    await world.ask("POST", START)
    world.endpoint.inspected = 503
    await world.ask("POST", f"/containers/{ID}/stop")
    assert world.listens()
    world.endpoint.inspected = 404
    await world.until_closed()


async def test_a_client_that_goes_away_while_its_container_starts(world: World) -> None:
    world.endpoint.held.clear()
    asking = asyncio.create_task(world.ask("POST", START))
    async with asyncio.timeout(10):
        await world.endpoint.offered.wait()
    assert world.listens()
    asking.cancel()
    await asyncio.wait({asking})
    await world.until_closed()


async def test_wanted_ports_that_are_lost_on_the_way_are_asked_for_again(world: World) -> None:
    world.endpoint.cuts = 2
    assert await world.ask("POST", START) == 204
    assert world.endpoint.count(START) == 4
    world.endpoint.cuts, world.endpoint.cut_status = 1, 500
    with pytest.raises(ConnectionAbortedError):
        await world.ask("POST", START)


async def test_a_taken_port_is_told(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        world.endpoint.wanted = [{"port": "80/tcp", "hosts": ["127.0.0.1"], "first": port, "last": port}]
        world.endpoint.start_status = 500
        assert await world.ask("POST", START) == 500
    assert world.endpoint.offer["taken"] == {"address": f"127.0.0.1:{port}", "reason": "port is already allocated"}
    assert "ports" not in world.endpoint.offer


@pytest.mark.parametrize(
    "wanted",
    [
        [{"port": "80/tcp", "hosts": ["0.0.0.0"], "first": 0, "last": 0}],
        [{"port": "80/tcp", "hosts": ["10.0.0.1"], "first": 0, "last": 0}],
        [{"port": "80/tcp", "hosts": [], "first": 0, "last": 0}],
        [{"port": "x", "hosts": ["127.0.0.1"], "first": 0, "last": 0}],
        [{"hosts": ["127.0.0.1"]}],
        [5],
        [{"port": f"{n}/tcp", "hosts": ["127.0.0.1"], "first": 0, "last": 0} for n in range(1, 1026)],
    ],
)
async def test_an_endpoint_that_asks_for_too_much(world: World, wanted: Any) -> None:
    world.endpoint.wanted = wanted
    world.endpoint.start_status = 500
    await world.ask("POST", START)
    assert "taken" in world.endpoint.offer


async def test_each_connection_has_a_ticket_and_a_refused_one_is_reset(world: World) -> None:
    await world.ask("POST", START)
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert world.endpoint.dialled[-1] == f"POST /internal/v1/containers/{ID}/dial?port=80"


@pytest.fixture
async def connection(world: World) -> AsyncIterator[tuple[Relay, ClientHalf, Streams]]:
    """A relay, the half that has joined it, and the client's end."""
    relay = world.endpoint.relay = Relay()
    await world.ask("POST", START)
    streams = await asyncio.open_connection("127.0.0.1", world.port)
    yield relay, await asyncio.wait_for(relay.half, 10), streams
    streams[1].close()


async def test_the_container_half_closes_first(connection: tuple[Relay, ClientHalf, Streams]) -> None:
    relay, half, (reader, writer) = connection
    half.payload_received(b"all it says")
    half.text_received('{"eof":true}')
    assert await asyncio.wait_for(reader.read(), 10) == b"all it says"
    writer.write(b"and I")
    await relay.until(lambda: relay.sent == b"and I")
    writer.write_eof()
    await relay.until(lambda: '{"eof":true}' in relay.controls)
    half.closed(None)


async def test_the_client_half_closes_first(connection: tuple[Relay, ClientHalf, Streams]) -> None:
    relay, half, (reader, writer) = connection
    writer.write(b"question")
    writer.write_eof()
    await relay.until(lambda: '{"eof":true}' in relay.controls)
    assert relay.sent == b"question"
    half.payload_received(b"answer")
    half.text_received('{"eof":true}')
    half.closed(None)
    assert await asyncio.wait_for(reader.read(), 10) == b"answer"


async def test_a_break_is_a_break_on_the_other_side_too(connection: tuple[Relay, ClientHalf, Streams]) -> None:
    _, half, (reader, _) = connection
    half.payload_received(b"part")
    assert await asyncio.wait_for(reader.readexactly(4), 10) == b"part"
    half.closed(StreamError(502, "broken"))
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 10)


async def test_a_client_that_goes_away_detaches(connection: tuple[Relay, ClientHalf, Streams]) -> None:
    relay, _, (_, writer) = connection
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await relay.until(lambda: "closed 1000" in relay.controls)


async def test_no_more_is_read_of_a_client_than_the_window(connection: tuple[Relay, ClientHalf, Streams]) -> None:
    relay, half, (_, writer) = connection
    writer.write(bytes(8 << 20))
    await relay.until(lambda: len(relay.sent) > 512 << 10)
    await asyncio.sleep(0.1)
    assert len(relay.sent) <= 1 << 20
    before = len(relay.sent)
    half.text_received(json.dumps({"ack": before}))
    await relay.until(lambda: len(relay.sent) > before)


async def test_a_refused_ticket_resets_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: HijackRequest) -> Grant:
        raise Refused(409, "it does not run")

    await world.ask("POST", START)
    monkeypatch.setattr(world.endpoint, "tickets", refuse)
    world.publisher._tickets = world.endpoint
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 10)
    writer.close()


async def test_the_next_publisher_listens_again_only_for_what_is_its_own(world: World) -> None:
    await world.ask("POST", START)
    world.publisher.close()
    await asyncio.sleep(0)
    assert not world.listens()
    world.publisher = world.another()
    await world.publisher.remember()
    assert world.listens()
    world.publisher.close()
    await asyncio.sleep(0)
    world.endpoint.publication = "another machine's"
    world.publisher = world.another()
    await world.publisher.remember()
    assert not world.listens()
    assert json.loads(world.memory.read_text()) == {}


@pytest.mark.parametrize(("fault", "asked"), [(Refused(502, "lost"), 3), (Refused(403, "no"), 1), (OSError("odd"), 1)])
async def test_only_a_ticket_that_was_lost_is_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: Exception, asked: int
) -> None:
    faults = [fault, fault]
    ask = world.endpoint.tickets

    async def tickets(request: HijackRequest) -> Grant:
        world.endpoint.dialled.append("asked")
        if faults:
            raise faults.pop()
        return await ask(request)

    monkeypatch.setattr(world.endpoint, "tickets", tickets)
    relay = world.endpoint.relay = Relay()
    await world.ask("POST", START)
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    if asked > 1:
        await asyncio.wait_for(relay.half, 10)
    else:
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 10)
    assert world.endpoint.dialled.count("asked") == asked
    writer.close()
