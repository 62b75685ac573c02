"""uvicorn's H11Protocol as the gateway uses it: bodies, faults, malformed requests, listeners."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from typing import Any

import pytest

from agent_gateway.control_plane_client import Refused
from tests.contract.gateway_peers import (
    FakeControlPlane,
    running_gateway,
)
from tests.contract.http_client import EXEC, Client
from tests.contract.relay_peers import connected


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
