"""Many clients on one HTTP/2 connection: none of them stops another, and what breaks off is an error to its client."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

from control_plane.entrypoints.http2 import install, taking
from tests.contract.http2_client import Http2Client
from tests.free_ports import free_port

PIECE = bytes(range(256)) * 64


class App:
    """`/sum` hashes the body, `/slow` reads nothing until it may, `/refused` answers at once, `/broken` half."""

    def __init__(self) -> None:
        self.may_read = asyncio.Event()
        self.slow = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        receive, path = taking(receive), scope["path"]
        if path == "/slow":
            self.slow.set()
            await self.may_read.wait()
        hasher = hashlib.sha256()
        while path in ("/slow", "/sum"):
            message = await receive()
            hasher.update(message.get("body", b""))
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 401 if path == "/refused" else 200, "headers": []})
        await send({"type": "http.response.body", "body": hasher.hexdigest().encode(), "more_body": path == "/broken"})
        if path == "/broken":
            raise ConnectionAbortedError


@contextlib.asynccontextmanager
async def served(app: App) -> AsyncIterator[str]:
    install()
    install()
    config, ended, port = Config(), asyncio.Event(), free_port()
    config.bind = [f"127.0.0.1:{port}"]
    config.accesslog = config.errorlog = None
    serving = asyncio.create_task(serve(app, config, shutdown_trigger=ended.wait))
    try:
        for _ in range(200):
            try:
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        ended.set()
        await serving


async def pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield PIECE


def digest(count: int) -> str:
    return hashlib.sha256(PIECE * count).hexdigest()


@pytest.fixture
def app() -> App:
    return App()


@contextlib.asynccontextmanager
async def one_connection(url: str) -> AsyncIterator[Http2Client]:
    client = await Http2Client.connect(int(url.rpartition(":")[2]))
    try:
        async with asyncio.timeout(20):
            yield client
    finally:
        await client.close()


@pytest.mark.parametrize("http2", [False, True])
async def test_a_broken_answer_is_an_error_and_others_go_on(app: App, http2: bool) -> None:
    async with served(app) as url, httpx.AsyncClient(http1=not http2, http2=http2, timeout=20) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"{url}/broken")
        assert (await client.post(f"{url}/sum", content=PIECE)).text == digest(1)


@pytest.mark.parametrize("http2", [False, True])
async def test_a_large_body_comes_whole(app: App, http2: bool) -> None:
    async with served(app) as url, httpx.AsyncClient(http1=not http2, http2=http2, timeout=20) as client:
        assert (await client.post(f"{url}/sum", content=pieces(1000))).text == digest(1000)


async def test_uploads_that_nobody_reads_stop_no_other(app: App) -> None:
    async with served(app) as url, one_connection(url) as client:
        waiting = [asyncio.create_task(client.post("/slow", PIECE * 20)) for _ in range(20)]
        await app.slow.wait()
        for _ in range(5):
            assert (await client.post("/sum", PIECE * 9)).body.decode() == digest(9)
        assert not any(upload.done() for upload in waiting)
        app.may_read.set()
        assert [(await upload).body.decode() for upload in waiting] == [digest(20)] * 20


async def test_an_upload_that_is_refused_before_its_end_harms_no_other(app: App) -> None:
    """More than the connection's window, several times: what nobody took is given back to the others."""
    async with served(app) as url, one_connection(url) as client:
        following = asyncio.create_task(client.post("/slow", PIECE * 2))
        await app.slow.wait()
        for _ in range(600):
            assert (await client.post("/refused", PIECE * 6)).status == 401
        assert (await client.post("/sum", PIECE * 100)).body.decode() == digest(100)
        app.may_read.set()
        assert (await following).body.decode() == digest(2)


async def test_a_client_that_goes_away_in_the_middle_harms_no_other(app: App) -> None:
    async with served(app) as url, one_connection(url) as client:
        for _ in range(300):
            app.slow.clear()
            upload = asyncio.create_task(client.post("/slow", PIECE * 50))
            await app.slow.wait()
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)
        app.may_read.set()
        assert (await client.post("/sum", PIECE * 100)).body.decode() == digest(100)
