"""Docker listeners behind a proxy that speaks the PROXY protocol: without its header nothing is served."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from agent_gateway.asgi import respond
from agent_gateway.entrypoint import Environment, NotConfigured
from agent_gateway.front_door import proxied
from agent_gateway.tickets import verify_attestation
from tests.contract.gateway_peers import KEY, FakeAgent, FakeControlPlane, echo, running_gateway
from tests.contract.http_client import EXEC, Client
from tests.proxy_headers import addresses, certified, header

PING = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"
LOOPBACK = ["127.0.0.0/8", "::1"]


class Seen:
    """An inner app that keeps what it was asked."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        await respond(send, 200, b"OK", b"text/plain")

    def vouched(self) -> list[tuple[str, str, str]]:
        found = []
        for scope in self.scopes:
            tokens = [value.decode() for name, value in scope["headers"] if name == b"x-sockerless-attested"]
            who = [verify_attestation(KEY, token) for token in tokens]
            found += [(one.gateway, one.address, one.subject) for one in who] or [("", "", "")]
        return found


def gateway_with(app: Any, plane: FakeControlPlane | None = None, **listen: Any) -> Any:
    return running_gateway(plane, app=app, proxies=listen.pop("proxies", LOOPBACK), **listen)


async def test_the_control_plane_hears_who_is_behind_the_proxy() -> None:
    seen = Seen()
    async with gateway_with(seen) as gateway:
        client = await Client.connect(gateway.port)
        client.send(certified() + PING)
        assert (await client.answer())[0] == 200
        # The header is said once; all requests of the connection are the same client's.
        client.send(PING)
        assert (await client.answer())[0] == 200
        client.writer.close()
        assert seen.vouched() == [("http://relay", "192.0.2.7", "CN=ci")] * 2
        assert seen.scopes[0]["client"] == ("192.0.2.7", 50000)
        for said in (header(addresses("2001:db8::7"), family=0x21), header(command=0x20, family=0)):
            client = await Client.connect(gateway.port)
            client.send(said + PING)
            assert (await client.answer())[0] == 200
            client.writer.close()
        assert seen.vouched()[2:] == [("http://relay", "2001:db8::7", ""), ("", "", "")]


async def test_a_header_that_comes_byte_by_byte() -> None:
    seen = Seen()
    async with gateway_with(seen) as gateway:
        client = await Client.connect(gateway.port)
        for byte in certified() + PING:
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.answer())[0] == 200
        assert seen.vouched() == [("http://relay", "192.0.2.7", "CN=ci")]
        client.writer.close()


@pytest.mark.parametrize(
    "data",
    [PING, b"PROXY TCP4 192.0.2.7 192.0.2.1 50000 2376\r\n" + PING, header(length=0xFFFF), b"\r\n\r\n\x00\r\nQUIT\r"],
)
async def test_connections_that_begin_otherwise_are_closed_without_an_answer(data: bytes) -> None:
    seen = Seen()
    async with gateway_with(seen) as gateway:
        client = await Client.connect(gateway.port)
        client.send(data)
        assert await cut(client)
        assert not seen.scopes


async def test_half_a_header_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxied, "_HEADER_SECONDS", 0.1)
    async with gateway_with(Seen()) as gateway:
        client = await Client.connect(gateway.port)
        client.send(certified()[:20])
        assert await cut(client)
        assert not gateway._docker.state.connections


async def test_a_header_and_no_request_has_the_time_of_any_connection() -> None:
    seen = Seen()
    async with gateway_with(seen) as gateway:
        client = await Client.connect(gateway.port)
        client.send(certified())
        client.writer.write_eof()
        assert await cut(client)
        assert not seen.scopes


async def test_the_header_counts_only_from_the_proxys_address(caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen()
    async with gateway_with(seen, proxies=["192.0.2.0/24"]) as gateway:
        for _ in range(3):
            client = await Client.connect(gateway.port)
            client.send(certified() + PING)
            assert await cut(client)
        assert not seen.scopes
    # One line, however many there are.
    assert sum("its address is not one of the proxies'" in record.getMessage() for record in caplog.records) == 1


async def test_a_unix_socket_is_guarded_by_its_mode(tmp_path: Any) -> None:
    seen = Seen()
    path = f"{tmp_path}/docker.sock"
    async with gateway_with(seen, docker=[f"unix://{path}"], proxies=["192.0.2.1"]):
        client = Client(*await asyncio.open_unix_connection(path))
        client.send(certified() + PING)
        assert (await client.answer())[0] == 200
        assert seen.vouched() == [("http://relay", "192.0.2.7", "CN=ci")]
        client.writer.close()


@pytest.mark.parametrize("early", [b"", b"early bytes"])
@pytest.mark.parametrize("apart", [False, True])
async def test_a_hijack_right_behind_the_header(early: bytes, apart: bool) -> None:
    plane = FakeControlPlane()
    async with gateway_with(Seen(), plane) as gateway:
        agent = FakeAgent(gateway.url, "c1", echo)
        await agent.connect()
        await agent.welcomed.wait()
        client = await Client.connect(gateway.port)
        client.send(certified(b"bob"))
        if apart:
            await asyncio.sleep(0.05)
        client.request("POST", "/exec/e1/start", EXEC, early=early)
        assert (await client.head())[0] == 101
        client.send(b", later bytes")
        client.writer.write_eof()
        assert await client.rest() == early + b", later bytes"
        asked = plane.requests[0]
        assert (asked.certificate, asked.address, asked.authorization) == ("CN=bob", "192.0.2.7", "")
        await agent.close()


@pytest.mark.parametrize("name", ["X-Sockerless-Attested", "X-Sockerless-Client-Certificate", "x-sockerless-proxy"])
@pytest.mark.parametrize("proxies", [[], LOOPBACK])
async def test_headers_about_certificates_are_refused_from_clients(name: str, proxies: list[str]) -> None:
    seen, plane = Seen(), FakeControlPlane()
    forged = f"{name}: CN=ci\r\n".encode()
    async with gateway_with(seen, plane, proxies=proxies) as gateway:
        exec_start = b"POST /exec/e1/start HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n" % len(EXEC)
        for request in (PING[:-2] + forged + b"\r\n", exec_start + forged + b"\r\n" + EXEC):
            client = await Client.connect(gateway.port)
            client.send((certified() if proxies else b"") + request)
            status, body = await client.answer()
            assert status == 403
            assert name.lower() in orjson.loads(body)["message"]
            client.writer.close()
        assert not seen.scopes
        assert not plane.requests


@pytest.mark.parametrize(
    ("more", "proxies", "status"),
    [
        ("", [], 200),
        # The proxy's secret is no excuse for what its client has slipped past it.
        ("X-Sockerless-Attested: x\r\n", [], 403),
        ("X-Sockerless-Client-Certificate: CN=root\r\n", [], 403),
        # Where certificates come in the PROXY protocol, they come in no header.
        ("", LOOPBACK, 403),
    ],
)
async def test_a_proxy_that_speaks_http(more: str, proxies: list[str], status: int) -> None:
    seen, secret = Seen(), "s" * 40
    headers = f"X-Sockerless-Client-Certificate: CN=ci\r\nX-Sockerless-Proxy: {secret}\r\n{more}\r\n".encode()
    async with gateway_with(seen, proxies=proxies, proxy_secret=secret) as gateway:
        client = await Client.connect(gateway.port)
        client.send((certified() if proxies else b"") + PING[:-2] + headers)
        assert (await client.answer())[0] == status
        assert len(seen.scopes) == (status == 200)
        client.writer.close()


async def test_the_end_of_the_gateway_cuts_connections_that_have_said_nothing() -> None:
    async with gateway_with(Seen()) as gateway:
        client = await Client.connect(gateway.port)
        client.send(certified()[:5])
        while not gateway._docker.state.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await cut(client)


async def cut(client: Client) -> bool:
    """Whether the connection ends without a byte."""
    try:
        return await client.rest() == b""
    except ConnectionResetError:
        return True


ENVIRONMENT = {
    "SOCKERLESS_CONTROL_PLANE_URL": "https://control",
    "SOCKERLESS_KEY": "k" * 32,
    "SOCKERLESS_GATEWAY_URL": "https://gateway",
    "SOCKERLESS_LISTEN": "tcp://127.0.0.1:8080",
}


def proxies_of(**variables: str) -> list[str]:
    return Environment.read(ENVIRONMENT | variables).docker_proxies


def test_the_proxies_come_from_the_environment() -> None:
    assert proxies_of() == []
    assert proxies_of(SOCKERLESS_DOCKER_PROXY_PROTOCOL="0") == []
    assert proxies_of(SOCKERLESS_DOCKER_PROXY_PROTOCOL="1") == LOOPBACK
    named = proxies_of(SOCKERLESS_DOCKER_PROXY_PROTOCOL="1", SOCKERLESS_DOCKER_PROXIES="10.0.0.4, 10.1.0.0/16")
    assert named == ["10.0.0.4", "10.1.0.0/16"]


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"SOCKERLESS_DOCKER_PROXY_PROTOCOL": "yes"}, "must be 1 or 0"),
        ({"SOCKERLESS_DOCKER_PROXIES": "10.0.0.4"}, "without SOCKERLESS_DOCKER_PROXY_PROTOCOL=1"),
        ({"SOCKERLESS_DOCKER_PROXY_PROTOCOL": "1", "SOCKERLESS_DOCKER_PROXIES": "haproxy"}, "haproxy"),
        ({"SOCKERLESS_DOCKER_PROXY_PROTOCOL": "1", "SOCKERLESS_DOCKER_PROXIES": "10.0.0.4/8"}, "host bits"),
        ({"SOCKERLESS_DOCKER_PROXY_PROTOCOL": "1", "SOCKERLESS_PROXY_SECRET": "s" * 32}, "one of them"),
    ],
)
def test_settings_that_contradict_themselves(variables: dict[str, str], text: str) -> None:
    with pytest.raises(NotConfigured, match=text):
        proxies_of(**variables)
