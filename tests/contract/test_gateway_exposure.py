"""What a gateway's listeners do not let in: web pages, gateways' own calls, Docker's API from a container."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agent_gateway.asgi import Receive, Scope, Send, respond
from tests.contract.gateway_peers import running_gateway


async def status_of(address: str, head: str) -> int:
    """The status of a request, given its lines without the last empty one."""
    if address.startswith("unix://"):
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix://"))
    else:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    async with asyncio.timeout(20):
        line = await reader.readline()
    writer.close()
    return int(line.split()[1])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Host: 127.0.0.1:2375", 200),
        ("Host: localhost", 200),
        ("Host: [::1]:2375", 200),
        ("Host: docker:2375", 200),
        ("Host: api.moby.localhost", 200),
        ("Host: host.docker.internal:2375", 200),
        ("Host: rebound.example.com:2375", 403),
        ("Host: rebound.example.com.", 403),
        ("Host: 127.0.0.1.example.com", 403),
        ("Host: localhost\nOrigin: https://example.com", 403),
        ("Host: localhost\nOrigin: null", 403),
        ("Host: localhost\nOrigin: http://localhost:3000", 403),
    ],
)
async def test_web_pages_are_turned_away_where_no_token_is_asked_for(headers: str, status: int) -> None:
    async with running_gateway(local_only=True) as gateway:
        assert await status_of(gateway.docker_addresses[0], f"GET /_ping HTTP/1.1\n{headers}") == status


async def test_a_web_page_cannot_attach(tmp_path: Any) -> None:
    socket = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: AAAA"
    async with running_gateway(local_only=True) as gateway:
        head = f"GET /containers/c1/attach/ws HTTP/1.1\nHost: localhost\n{socket}\nOrigin: https://example.com"
        assert await status_of(gateway.docker_addresses[0], head) == 403
        head = "POST /containers/c1/attach HTTP/1.1\nHost: localhost\nContent-Length: 0\nOrigin: https://example.com"
        assert await status_of(gateway.docker_addresses[0], head) == 403


async def test_unix_sockets_and_gateways_that_ask_for_tokens_take_any_host_name(tmp_path: Any) -> None:
    head = "GET /_ping HTTP/1.1\nHost: docker.example.com\nOrigin: https://portal.example.com"
    async with running_gateway(local_only=True, docker=[f"unix://{tmp_path}/d.sock"]) as gateway:
        assert await status_of(gateway.docker_addresses[0], head) == 200
    async with running_gateway() as gateway:
        assert await status_of(gateway.docker_addresses[0], head) == 200


async def _everything(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, 200, b"served", b"text/plain")


@pytest.mark.parametrize(
    "path",
    [
        "/internal/v1/tickets",
        "/internal",
        "//internal/v1/links/c1/hello",
        "/v1.47/internal/v1/tickets",
        "//v1.47//internal/v1/tickets",
        "/%69nternal/v1/tickets",
        "/internal/v1/links/c1/attach",
        "/internal/v1/links/c1/start",
    ],
)
async def test_gateways_calls_are_not_served_at_the_front_door(path: str) -> None:
    async with running_gateway(app=_everything) as gateway:
        for method in ("GET", "POST"):
            head = f"{method} {path} HTTP/1.1\nHost: docker\nContent-Length: 0"
            assert await status_of(gateway.docker_addresses[0], head) == 404


@pytest.mark.parametrize(
    "path",
    [
        "/_ping",
        "/v1.47/containers/json",
        "/containers/c1/attach",
        "/exec/e1/start",
        "/internal/v1/tickets",
        "/agent/../containers/json",
        "/agent/%2e%2e/containers/json",
        "//containers/json",
    ],
)
async def test_containers_do_not_reach_dockers_api(path: str) -> None:
    async with running_gateway(app=_everything) as gateway:
        for method in ("GET", "POST"):
            head = f"{method} {path} HTTP/1.1\nHost: gateway\nContent-Length: 0"
            assert await status_of(gateway.agent_addresses[0], head) == 404
