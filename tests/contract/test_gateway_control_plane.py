"""The control plane in another process (HTTP) or in this one (ASGI), and requests forwarded as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest

from agent_gateway.asgi import App, read_body, respond, respond_message
from agent_gateway.control_plane_client import AsgiControlPlane, HijackRequest, HttpControlPlane, Linked, Refused
from agent_gateway.front_door.http import HttpServer
from agent_gateway.server import Gateway, GatewaySettings
from agent_gateway.tickets import GatewayTokens, bearer, verify_gateway_token
from tests.contract.gateway_peers import KEY, FakeControlPlane, docker_api, running_gateway

URL = "http://gateway"
AGENT = Linked("t1", "c1", "b1")
REQUEST = HijackRequest("POST", "/exec/e1/start", "a=b", "Bearer user", {"Tty": True})
GRANT = {
    "stream_id": "0" * 32,
    "ticket": "t",
    "relay_url": URL,
    "container": "c1",
    "tty": True,
    "content_type": "application/vnd.docker.raw-stream",
}


class Internal:
    """`/internal/v1` as the wire protocol has it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.answers: dict[str, tuple[int, Any]] = {"tickets": (200, GRANT), "hello": (200, {"action": "wait"})}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        assert verify_gateway_token(KEY, bearer(headers[b"authorization"].decode())) == URL
        assert scope["method"] == "POST"
        body = orjson.loads(await read_body(receive, 65536) or b"")
        self.seen.append((scope["path"], body))
        status, answer = self.answers.get(scope["path"].rsplit("/", 1)[1], (204, None))
        if status == 204:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await respond(send, status, orjson.dumps(answer), b"application/json")


@asynccontextmanager
async def _served(app: App) -> AsyncIterator[str]:
    """An app on a port of its own. A front door would not let `/internal/v1` through."""
    server = HttpServer(app, None)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        server.abort()


@pytest.mark.parametrize("remote", [True, False])
async def test_the_calls_are_those_of_the_wire_protocol(remote: bool) -> None:
    app = Internal()
    tokens = GatewayTokens(KEY, URL)
    async with _served(app) as url:
        plane: Any = HttpControlPlane(url, tokens, URL) if remote else AsgiControlPlane(app, tokens, URL)
        grant = await plane.tickets(REQUEST)
        assert (grant.stream_id, grant.relay_url, grant.tty) == ("0" * 32, URL, True)
        assert await plane.hello(AGENT, {"type": "hello", "boot": "b1"}) == {"action": "wait"}
        await plane.event(AGENT, {"type": "started", "seq": 1})
        await plane.gone(AGENT)
        prefix = "/internal/v1"
        assert [path for path, _ in app.seen] == [
            f"{prefix}/tickets",
            f"{prefix}/links/c1/hello",
            f"{prefix}/links/c1/events",
            f"{prefix}/links/c1/gone",
        ]
        assert len(app.seen[0][1].pop("attempt")) == 32
        assert app.seen[0][1] == {
            "method": "POST",
            "path": "/exec/e1/start",
            "query": "a=b",
            "authorization": "Bearer user",
            "body": {"Tty": True},
        }
        assert app.seen[1][1]["gateway"] == URL
        assert app.seen[3][1]["boot"] == "b1"
        app.answers["tickets"] = (404, {"message": "No such exec instance: e1"})
        with pytest.raises(Refused, match="No such exec instance: e1") as refused:
            await plane.tickets(REQUEST)
        assert refused.value.status == 404
        app.answers["tickets"] = (200, {"stream_id": "x"})
        with pytest.raises(Refused):
            await plane.tickets(REQUEST)
        if remote:
            await plane.aclose()


async def test_a_control_plane_that_is_not_there_is_503() -> None:
    plane = HttpControlPlane("http://127.0.0.1:9", GatewayTokens(KEY, URL), URL)
    with pytest.raises(Refused) as refused:
        await plane.gone(AGENT)
    assert refused.value.status == 503
    await plane.aclose()


async def _forwarding(port: int) -> tuple[Gateway, str]:
    settings = GatewaySettings(
        KEY, URL, docker_listen=["tcp://127.0.0.1:0"], control_plane_url=f"http://127.0.0.1:{port}"
    )
    gateway = Gateway(settings, FakeControlPlane())
    await gateway.start()
    return gateway, gateway.docker_addresses[0].replace("tcp", "http")


async def test_requests_are_forwarded_as_they_come() -> None:
    arrived, read = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/nothing":
            head = [(b"api-version", b"1.50"), (b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 404, "headers": head})
            await send({"type": "http.response.body", "body": b'{"message":"page not found"}'})
            return
        if scope["path"] == "/large":  # as a load balancer says it
            await send({"type": "http.response.start", "status": 413, "headers": [(b"content-type", b"text/html")]})
            await send({"type": "http.response.body", "body": b"<h1>413</h1>"})
            return
        if scope["path"] != "/streamed":
            await docker_api(scope, receive, send)
            return
        names = {name for name, _ in scope["headers"]}
        assert b"upgrade" not in names
        assert b"x-hop" not in names
        assert dict(scope["headers"])[b"x-registry-auth"] == b"e30="
        assert scope["query_string"] == b"a=1&a=2"
        assert (await receive())["body"] == b"one "
        arrived.set()
        rest = await read_body(receive, 1000)
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-a", b"1"), (b"x-a", b"2")]})
        await send({"type": "http.response.body", "body": rest or b"", "more_body": True})
        await read.wait()
        await send({"type": "http.response.body", "body": b" three"})

    async def body() -> Any:
        yield b"one "
        # The control plane has the first part while the client has not sent the second.
        await arrived.wait()
        yield b"two"

    async with running_gateway(app=app) as inner:
        gateway, url = await _forwarding(inner.port)
        headers = {"X-Registry-Auth": "e30=", "Connection": "x-hop", "X-Hop": "1"}
        async with (
            httpx.AsyncClient(timeout=20) as client,
            client.stream("POST", f"{url}/streamed?a=1&a=2", content=body(), headers=headers) as answer,
        ):
            assert answer.status_code == 201
            assert answer.headers.get_list("x-a") == ["1", "2"]
            chunks = answer.aiter_raw()
            assert await anext(chunks) == b"two"
            read.set()
            assert b"".join([chunk async for chunk in chunks]) == b" three"
        async with httpx.AsyncClient(timeout=20) as client:
            ping = await client.get(f"{url}/_ping")
            assert ping.text == "OK"
            assert len(ping.headers.get_list("date")) == 1
            assert (await client.head(f"{url}/_ping")).status_code == 200
            missing = await client.get(f"{url}/nothing")
            assert (missing.status_code, missing.json()) == (404, {"message": "page not found"})
            large = await client.post(f"{url}/large", content=b"x")
            assert large.status_code == 413
            assert "does not take a body of that size" in large.json()["message"]
        await gateway.stop(0)


async def test_a_client_that_goes_away_takes_its_request_with_it() -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def follow(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/follow":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"line", "more_body": True})
        begun.set()
        while (await receive())["type"] == "http.request":
            pass
        gone.set()

    async with running_gateway(app=follow) as inner:
        gateway, url = await _forwarding(inner.port)
        port = int(url.rsplit(":", 1)[1])
        for path in (b"/follow", b"/wait"):
            begun.clear()
            gone.clear()
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}" % path)
            async with asyncio.timeout(20):
                await begun.wait()
                writer.close()
                await gone.wait()
        await gateway.stop(0)


async def test_forwarding_to_nowhere_is_503_in_docker_s_form() -> None:
    gateway, url = await _forwarding(9)
    async with httpx.AsyncClient(timeout=20) as client:
        answer = await client.get(f"{url}/_ping")
    assert answer.status_code == 503
    assert answer.json()["message"]
    await gateway.stop(0)


async def test_a_gateway_needs_a_key_and_somewhere_to_send_requests() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond_message(send, 404, "page not found")

    with pytest.raises(ValueError, match="32 bytes"):
        Gateway(GatewaySettings(b"short", URL), FakeControlPlane(), app)
    with pytest.raises(ValueError, match="control plane"):
        Gateway(GatewaySettings(KEY, URL), FakeControlPlane())
    with pytest.raises(ValueError, match="listen address"):
        await Gateway(GatewaySettings(KEY, URL, ["http://x"]), FakeControlPlane(), app).start()
