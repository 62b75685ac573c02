"""Hijacked requests at the front door: early bytes, half-close, errors before the answer, attach by websocket."""

from __future__ import annotations

import asyncio
import json
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
    FakeControlPlane,
    running_gateway,
)
from tests.contract.http_client import EXEC, SECONDS, Client, sink
from tests.contract.relay_peers import connected


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
        agent = await connected(gateway, handler=sink)
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


@pytest.mark.parametrize("framing", [b"Content-Length: 50", b"Transfer-Encoding: chunked"])
async def test_a_half_close_in_the_middle_of_the_body_ends_the_connection(framing: bytes) -> None:
    async with running_gateway() as gateway:
        client = await Client.connect(gateway.port)
        client.send(b"POST /exec/e1/start HTTP/1.1\r\nHost: d\r\n" + framing + b"\r\n\r\n" + b'14\r\n{"Detach"')
        await asyncio.sleep(0.02)
        client.writer.write_eof()
        assert await client.rest() == b""


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
        agent = await connected(gateway, handler=slow)
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
        agent = await connected(gateway, handler=short)
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
        agent = await connected(gateway, handler=fail)
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
        agent = await connected(gateway, handler=fail)
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
        agent = await connected(gateway, handler=hold)
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
        agent = await connected(gateway, handler=flood)
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
        agent = await connected(gateway, handler=frames)
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


@pytest.mark.parametrize("tty", [False, True])
async def test_a_way_that_is_lost_is_told_and_not_taken_for_the_processs_end(tty: bool) -> None:
    plane = FakeControlPlane()
    plane.tty = tty
    async with running_gateway(plane) as gateway:
        agent = await connected(gateway)
        client = await Client.connect(gateway.port)
        client.request("POST", "/exec/e1/start", EXEC, early=b"one ")
        assert (await client.head())[0] == 101
        async with asyncio.timeout(SECONDS):
            assert await client.reader.readexactly(4) == b"one "
        gateway._streams.pairs.all()[0].fail(503, "lost")
        told = await client.rest()
        # stdcopy's third stream: the docker CLI ends with `error from daemon in stream: lost`.
        assert told == (b"lost\r\n" if tty else b"\3\0\0\0\0\0\0\4lost")
        await agent.close()
