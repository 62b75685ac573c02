"""uvicorn's H11Protocol as the gateway uses it: hijack, half-close, early bytes, bodies, malformed requests."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from typing import Any

import pytest

from agent_gateway.control_plane_client import Refused
from agent_gateway.protocol import Error, Exit, Result
from agent_gateway.websockets import Socket, dial
from tests.contract.gateway_peers import (
    MULTIPLEXED,
    RAW,
    AgentStream,
    FakeAgent,
    FakeControlPlane,
    echo,
    running_gateway,
)

SECONDS = 5.0
EXEC = b'{"Detach":false,"Tty":true}'


class Client:
    """A raw HTTP client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(SECONDS):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = text.strip().split("\r\n")
        return int(status.split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}

    async def answer(self) -> tuple[int, bytes]:
        status, headers = await self.head()
        async with asyncio.timeout(SECONDS):
            return status, await self.reader.readexactly(int(headers["content-length"]))

    async def rest(self) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.read()

    def request(self, method: str, path: str, body: bytes = b"", upgrade: bool = True, early: bytes = b"") -> None:
        headers = b"Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else b""
        head = f"{method} {path} HTTP/1.1\r\nHost: docker\r\nContent-Length: {len(body)}\r\n".encode()
        self.send(head + headers + b"\r\n" + body + early)


async def sink(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
    """`wc -c`, which reads at once and writes at the end."""
    stream.finish(Result({"pid": 7}))
    size = 0
    async for chunk in stream.chunks():
        size += len(chunk)
    await stream.send(str(size).encode())
    await stream.exit(0)


async def connected(gateway: Any, handler: Any = echo) -> FakeAgent:
    agent = FakeAgent(gateway.url, "c1", handler)
    await agent.connect()
    async with asyncio.timeout(SECONDS):
        await agent.welcomed.wait()
    return agent


@pytest.mark.parametrize("upgrade", [True, False])
@pytest.mark.parametrize("early", [b"", b"early "])
async def test_exec_is_hijacked_with_early_bytes_and_half_close(upgrade: bool, early: bytes) -> None:
    plane = FakeControlPlane()
    async with running_gateway(plane) as gateway:
        agent = await connected(gateway)
        client = await Client.connect(gateway.port)
        client.request("POST", "/v1.47/exec/e1/start?x=1", EXEC, upgrade, early)
        status, headers = await client.head()
        assert (status, headers.get("upgrade")) == ((101, "tcp") if upgrade else (200, None))
        assert headers["content-type"] == RAW
        assert "transfer-encoding" not in headers
        client.send(b"late")
        client.writer.write_eof()
        assert await client.rest() == early + b"late"
        request = plane.requests[0]
        assert (request.method, request.path, request.query) == ("POST", "/v1.47/exec/e1/start", "x=1")
        assert request.body == {"Detach": False, "Tty": True}
        await agent.close()


async def test_more_stdin_than_the_window_flows_while_output_is_held_back() -> None:
    async with running_gateway() as gateway:
        agent = await connected(gateway, sink)
        client = await Client.connect(gateway.port)
        client.request("POST", "/exec/e1/start", EXEC, early=b"x" * 8_000_000)
        assert (await client.head())[0] == 101
        client.writer.write_eof()
        assert await client.rest() == b"8000000"
        await agent.close()


async def test_a_half_close_that_comes_with_the_request_is_kept() -> None:
    async with running_gateway() as gateway:
        agent = await connected(gateway)
        client = await Client.connect(gateway.port)
        client.request("POST", "/exec/e1/start", EXEC, early=b"all of it")
        client.writer.write_eof()
        assert (await client.head())[0] == 101
        assert await client.rest() == b"all of it"
        await agent.close()


async def test_output_goes_on_after_the_clients_half_close() -> None:
    async def slow(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        stream.finish(Result({"pid": 7}))
        async for _ in stream.chunks():
            pass
        for _ in range(3):
            await asyncio.sleep(0.02)
            await stream.send(b"tick")
        await stream.exit(0)

    plane = FakeControlPlane()
    plane.tty = False
    async with running_gateway(plane) as gateway:
        agent = await connected(gateway, slow)
        client = await Client.connect(gateway.port)
        client.request("POST", "/exec/e1/start", EXEC)
        status, headers = await client.head()
        assert (status, headers["content-type"]) == (101, MULTIPLEXED)
        client.writer.write_eof()
        assert await client.rest() == b"tick" * 3
        await agent.close()


async def test_a_process_that_ends_half_closes_the_client_that_still_writes() -> None:
    async def short(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        stream.finish(Result({"pid": 7}))
        await stream.send(b"bye")
        await stream.exit(0)

    async with running_gateway() as gateway:
        agent = await connected(gateway, short)
        client = await Client.connect(gateway.port)
        client.request("POST", "/exec/e1/start", EXEC, early=b"x" * 100_000)
        assert (await client.head())[0] == 101
        client.send(b"y" * 1_000_000)
        assert await client.rest() == b"bye"
        client.writer.close()
        await agent.close()


@pytest.mark.parametrize("tty", [True, False])
async def test_a_command_that_cannot_start_is_told_on_the_stream_as_moby_does(tty: bool) -> None:
    text = 'OCI runtime exec failed: exec failed: unable to start container process: exec: "x": not found: unknown'

    async def fail(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        stream.finish(Error(400, text))
        await stream.wait_ended()

    plane = FakeControlPlane()
    plane.tty = tty
    async with running_gateway(plane) as gateway:
        agent = await connected(gateway, fail)
        client = await Client.connect(gateway.port)
        client.request("POST", "/exec/e1/start", EXEC)
        assert (await client.head())[0] == 101
        line = text.encode() + b"\r\n"
        expected = line if tty else b"\x01\x00\x00\x00" + len(line).to_bytes(4, "big") + line
        assert await client.rest() == expected
        await agent.close()


async def test_other_errors_before_the_answer_are_http_errors() -> None:
    async def fail(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        stream.finish(Error(409, "container c1 is paused"))
        await stream.wait_ended()

    plane = FakeControlPlane()
    async with running_gateway(plane) as gateway:
        agent = await connected(gateway, fail)
        client = await Client.connect(gateway.port)
        client.request("POST", "/exec/e1/start", EXEC)
        status, body = await client.answer()
        assert (status, json.loads(body)) == (409, {"message": "container c1 is paused"})
        plane.refusal = Refused(404, "No such exec instance: e1")
        client.request("POST", "/exec/e1/start", EXEC)
        status, body = await client.answer()
        assert (status, json.loads(body)) == (404, {"message": "No such exec instance: e1"})
        await agent.close()


async def test_attach_is_answered_before_the_container_runs() -> None:
    plane = FakeControlPlane()
    plane.kind = "attach"
    async with running_gateway(plane) as gateway:
        client = await Client.connect(gateway.port)
        client.request("POST", "/v1.47/containers/c1/attach?stdin=1&stream=1", early=b"script")
        assert (await client.head())[0] == 101
        client.writer.write_eof()
        agent = await connected(gateway)
        assert await client.rest() == b"script"
        await agent.close()


async def test_a_client_that_goes_away_detaches() -> None:
    ended = asyncio.Event()

    async def hold(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        stream.finish(Result({"pid": 7}))
        await stream.wait_ended()
        ended.set()

    async with running_gateway() as gateway:
        agent = await connected(gateway, hold)
        client = await Client.connect(gateway.port)
        client.request("POST", "/exec/e1/start", EXEC)
        assert (await client.head())[0] == 101
        # A reset. (A plain close looks like a half-close until something is written, here as in moby.)
        linger = struct.pack("ii", 1, 0)
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.writer.transport.abort()
        async with asyncio.timeout(SECONDS):
            await ended.wait()
        assert agent.link is not None
        assert not agent.link_lost.is_set()
        await agent.close()


async def test_a_client_that_does_not_read_stops_the_agent_at_the_window() -> None:
    async def flood(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        stream.finish(Result({"pid": 7}))
        for _ in range(64):
            await stream.send(b"z" * 1024 * 1024)
        await stream.exit(0)

    async with running_gateway() as gateway:
        agent = await connected(gateway, flood)
        client = await Client.connect(gateway.port)
        client.request("POST", "/exec/e1/start", EXEC)
        assert (await client.head())[0] == 101
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        stream = next(iter(agent.streams.values()))
        before = -1
        while stream.state.sent != before:
            before = stream.state.sent
            await asyncio.sleep(0.3)
        assert before < 64 * 1024 * 1024
        assert stream.state.room == 0
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        total = 0
        while data := await client.reader.read(1 << 20):
            total += len(data)
        assert total == 64 * 1024 * 1024
        await agent.close()


async def test_a_detached_exec_goes_to_the_control_plane() -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        from agent_gateway.asgi import read_body, respond

        assert await read_body(receive, 1000) == b'{"Detach":true}'
        await respond(send, 204, b"", b"text/plain")

    async with running_gateway(app=inner) as gateway:
        client = await Client.connect(gateway.port)
        client.request("POST", "/exec/e1/start", b'{"Detach":true}', upgrade=False)
        assert (await client.head())[0] == 204


async def test_attach_over_a_websocket_is_not_multiplexed() -> None:
    class Ws(Socket):
        data = b""
        code = 0

        def binary(self, view: memoryview) -> None:
            self.data += bytes(view)

        def lost(self, code: int) -> None:
            self.code = code

    async def frames(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        async for chunk in stream.chunks():
            await stream.send(b"\x01\x00\x00\x00" + len(chunk).to_bytes(4, "big") + chunk)
            stream.finish(Exit(0))
            await stream.wait_ended()
            return

    plane = FakeControlPlane()
    plane.kind, plane.tty = "attach", False
    async with running_gateway(plane) as gateway:
        agent = await connected(gateway, frames)
        ws = Ws()
        await dial(f"http://127.0.0.1:{gateway.port}/v1.47/containers/c1/attach/ws?stream=1", ws, "x")
        ws.send_binary(b"hello")
        async with asyncio.timeout(SECONDS):
            while not ws.code:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (ws.data, ws.code) == (b"hello", 1000)
        assert plane.requests[0].authorization == "Bearer x"
        client = await Client.connect(gateway.port)
        client.send(b"GET /containers/c1/attach/ws HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.answer())[0] == 400
        await agent.close()


async def test_bodies_large_and_small_chunked_and_not() -> None:
    async with running_gateway() as gateway:
        client = await Client.connect(gateway.port)
        for size in (0, 10, 70_000, 3 * 1024 * 1024):
            client.send(b"PUT /count HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"z" * size)
            assert await client.answer() == (200, str(size).encode())
            client.send(b"PUT /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            for start in range(0, size, 40_000):
                part = b"z" * min(40_000, size - start)
                client.send(b"%x\r\n%b\r\n" % (len(part), part))
            client.send(b"0\r\n\r\nGET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await client.answer() == (200, str(size).encode())
            assert await client.answer() == (200, b"OK")
        # A head in two packets, and a body the app does not read.
        client.send(b"PUT /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-")
        await asyncio.sleep(0.05)
        client.send(b"Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        assert (await client.answer())[0] == 404
        client.send(b"PUT /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        assert (await client.answer())[0] == 404
        client.send(b"5\r\nhello\r\n0\r\n\r\nGET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await client.answer() == (200, b"OK")


async def test_expect_100_continue_is_answered() -> None:
    async with running_gateway() as gateway:
        client = await Client.connect(gateway.port)
        head = b"PUT /count HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        for framing, body in (
            (b"Content-Length: 2000000\r\n\r\n", b"z" * 2_000_000),
            (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
        ):
            client.send(head + framing)
            assert (await client.head())[0] == 100
            client.send(body)
            assert (await client.answer())[0] == 200


async def test_a_fault_of_the_app_is_a_docker_error() -> None:
    async with running_gateway() as gateway:
        client = await Client.connect(gateway.port)
        client.send(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
        status, body = await client.answer()
        assert (status, json.loads(body)) == (500, {"message": "internal error"})


MALFORMED = [
    b"\r\n\r\n\x00\x01\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    b"PUT /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"PUT /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"PUT /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX",
    b"G\xe9T / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 100_000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",
    b"GET /agent/link HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"POST /agent/link HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
]


@pytest.mark.parametrize("data", MALFORMED, ids=range(len(MALFORMED)))
async def test_malformed_requests_get_docker_s_error(data: bytes) -> None:
    async with running_gateway() as gateway:
        client = await Client.connect(gateway.port)
        client.send(data)
        status, body = await client.answer()
        assert 400 <= status < 500 or status in (501, 505)
        assert json.loads(body)["message"]
        assert await client.rest() == b""


async def test_random_requests_do_not_bring_it_down() -> None:
    rng = random.Random(7)
    seeds = [
        *MALFORMED,
        b"POST /exec/e1/start HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{}}",
        b"POST /containers/a/attach HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nxyz",
        b"PUT /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ]
    plane = FakeControlPlane()
    plane.refusal = Refused(404, "No such container: a")
    async with running_gateway(plane) as gateway:
        for _ in range(200):
            data = bytearray(rng.choice(seeds)[:2000])
            for _ in range(rng.randint(0, 8)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            client = await Client.connect(gateway.port)
            client.send(bytes(data))
            client.writer.write_eof()
            await client.rest()
            client.writer.close()
        client = await Client.connect(gateway.port)
        client.send(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await client.answer() == (200, b"OK")


async def test_connections_without_a_request_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_gateway.front_door.http._HEAD_SECONDS", 0.1)
    async with running_gateway() as gateway:
        client = await Client.connect(gateway.port)
        client.send(b"GET /_ping HTT")
        assert await client.rest() == b""


async def test_unix_listeners_serve_docker_and_replace_dead_sockets(tmp_path: Any) -> None:
    path = tmp_path / "docker.sock"
    for _ in range(2):
        async with running_gateway(docker=[f"unix://{path}"]) as gateway:
            assert path.stat().st_mode & 0o777 == 0o660
            agent = await connected(gateway)
            client = Client(*await asyncio.open_unix_connection(path))
            client.request("POST", "/exec/e1/start", EXEC, early=b"x" * 200_000)
            client.writer.write_eof()
            assert (await client.head())[0] == 101
            assert len(await client.rest()) == 200_000
            with pytest.raises(OSError, match="another server"):
                async with running_gateway(docker=[f"unix://{path}"]):
                    pass
            await agent.close()
        # As a killed process leaves it.
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
