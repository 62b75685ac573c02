"""Uploads of a connector over TLS: HTTP/2 where it is offered, because HTTP/1.1 front ends bound what they take."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from agent_gateway.connector.run import Connector
from agent_gateway.connector.tokens import TokenOptions, tokens
from agent_gateway.forwarding.address import Address
from tests.contract.connect_certificates import certificate
from tests.free_ports import free_port

LIMIT = 32 * 1024 * 1024
SIZE = 40 * 1024 * 1024


class FrontEnd:
    """Takes 32 MiB over HTTP/1.1 and any amount over HTTP/2, as Cloud Run."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, int, str]] = []
        self.refuses = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        size, digest = 0, hashlib.sha256()
        if self.refuses:
            await self._answer(send, 403, {"message": "the token may not do that"})
            return
        while True:
            message = await receive()
            size += len(message.get("body", b""))
            digest.update(message.get("body", b""))
            if scope["http_version"] != "2" and size > LIMIT:
                await self._answer(send, 413, {"message": "too large"})
                return
            if not message.get("more_body", False):
                break
        self.requests.append((scope["method"], scope["http_version"], size, digest.hexdigest()))
        await self._answer(send, 200, {"size": size})

    async def _answer(self, send: Any, status: int, body: Any) -> None:
        headers = [(b"content-type", b"application/json"), (b"api-version", b"1.50")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": orjson.dumps(body)})


@asynccontextmanager
async def served(app: Any, directory: Path, alpn: list[str]) -> AsyncIterator[str]:

    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    from control_plane.entrypoints import http2

    http2.install()  # as the control plane does: an upload that the server reads slowly must not stall
    port = free_port()
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.certfile, config.keyfile = str(directory / "cert.pem"), str(directory / "key.pem")
    config.alpn_protocols = alpn
    config.loglevel = "CRITICAL"
    ended = asyncio.Event()

    async def taking(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, http2.taking(receive), send)

    task = asyncio.create_task(serve(taking, config, shutdown_trigger=ended.wait))
    try:
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            except OSError:
                await asyncio.sleep(0.02)
        yield f"https://localhost:{port}"
    finally:
        ended.set()
        await asyncio.wait_for(task, 10)


@asynccontextmanager
async def connected(url: str, directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    address = Address.parse(url, str(directory / "cert.pem"))
    connector = Connector(address, tokens(TokenOptions(token="t"), url, {}))
    await connector.listen("tcp://127.0.0.1:0")
    base = connector.addresses[0].replace("tcp://", "http://")
    try:
        async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=60) as client:
            yield client
    finally:
        await connector.stop()


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1 << 20):
        yield data[start : start + (1 << 20)]


async def test_chunked_upload_beyond_32_mib_goes_over_http_2(tmp_path: Path) -> None:
    certificate(tmp_path)
    data = os.urandom(SIZE)
    app = FrontEnd()
    async with served(app, tmp_path, ["h2", "http/1.1"]) as url, connected(url, tmp_path) as client:
        answer = await client.post("/v1.50/images/load", content=pieces(data))
        assert (answer.status_code, answer.json()) == (200, {"size": SIZE})
        assert (await client.get("/v1.50/info")).status_code == 200
    assert app.requests == [
        ("POST", "2", SIZE, hashlib.sha256(data).hexdigest()),
        ("GET", "1.1", 0, hashlib.sha256(b"").hexdigest()),
    ]


async def test_upload_to_a_front_end_without_http_2_is_refused_with_its_answer(tmp_path: Path) -> None:
    certificate(tmp_path)
    async with served(FrontEnd(), tmp_path, ["http/1.1"]) as url, connected(url, tmp_path) as client:
        small = await client.put("/v1.50/containers/c/archive", content=pieces(bytes(1 << 20)))
        assert (small.status_code, small.json()) == (200, {"size": 1 << 20})
        large = await client.put("/v1.50/containers/c/archive", content=pieces(bytes(SIZE)))
        assert large.status_code in (413, 502)


async def test_upload_that_is_refused_early_ends_with_the_refusal(tmp_path: Path) -> None:
    certificate(tmp_path)
    app = FrontEnd()
    app.refuses = True
    async with served(app, tmp_path, ["h2"]) as url, connected(url, tmp_path) as client, asyncio.timeout(30):
        answer = await client.post("/v1.50/images/load", content=pieces(bytes(SIZE)))
        assert (answer.status_code, answer.json()) == (403, {"message": "the token may not do that"})


async def test_certificate_that_is_not_trusted_is_named(tmp_path: Path) -> None:
    certificate(tmp_path)
    async with served(FrontEnd(), tmp_path, ["h2"]) as url:
        connector = Connector(Address.parse(url), tokens(TokenOptions(token="t"), url, {}))
        with pytest.raises(Exception, match=r"certificate verify failed|self.signed"):
            await connector.check()
        await connector.stop()
    assert ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED
