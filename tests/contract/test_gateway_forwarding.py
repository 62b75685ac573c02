"""What a gateway shows a control plane elsewhere: with each request its client's credentials, fresh, and no other's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson

from agent_gateway import tickets
from agent_gateway.asgi import read_body
from agent_gateway.front_door.http import HttpServer
from agent_gateway.server import Gateway, GatewaySettings
from agent_gateway.tickets import TicketRefused, verify_attestation
from tests.contract.gateway_peers import KEY, FakeControlPlane
from tests.contract.http_client import Client
from tests.proxy_headers import certified

IDENTITY = "c" * 64
SECONDS = 10.0


class Plane:
    """A control plane whose waits are cut once, after as long as a test says, and that keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, list[tuple[bytes, bytes]]]] = []
        self.cut_after = 0.0
        self.waits = 0
        self.versions = 0
        self.wanted: Any = lambda headers: True
        self.creates: list[bytes] = []
        self.begun, self.gone = asyncio.Event(), asyncio.Event()

    def of(self, name: bytes, path: str = "") -> list[list[bytes]]:
        """A header's values by request."""
        return [[v for k, v in headers if k == name] for seen, headers in self.shown if path in seen]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.shown.append((scope["path"], scope["headers"]))
        body = await read_body(receive, 1 << 20)
        if not self.wanted(scope["headers"]):
            await _answer(send, 401, {"message": "not with these"})
        elif scope["path"].endswith("/json"):
            state = {"Running": True, "FinishedAt": "0001-01-01T00:00:00Z"}
            await _answer(send, 200, {"Id": IDENTITY, "State": state, "Config": {}})
        elif scope["path"].endswith("/lasting/wait"):
            self.begun.set()
            while (await receive())["type"] == "http.request":
                pass
            self.gone.set()
        elif scope["path"].endswith("/wait"):
            await self._wait(send)
        elif scope["path"].endswith("/version"):
            self.versions += 1
            head = [(b"api-version", b"1.50"), (b"content-length", b"2")]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await send({"type": "http.response.body", "body": b"{", "more_body": True})
            if self.versions == 1:
                raise ConnectionAbortedError("the limit")
            await send({"type": "http.response.body", "body": b"}"})
        elif scope["path"].endswith("/kill"):
            scope["extensions"]["tcp.hijack"].transport.abort()
        elif scope["path"].endswith("/create"):
            self.creates.append(body or b"")
            if len(self.creates) == 1:
                scope["extensions"]["tcp.hijack"].transport.abort()
                return
            await _answer(send, 201, {"Id": IDENTITY, "Warnings": []})
        else:
            await _answer(send, 200, {}, (b"set-cookie", b"affinity=one; Path=/"))

    async def _wait(self, send: Any) -> None:
        self.waits += 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"api-version", b"1.50")]})
        if self.waits == 1:
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            await asyncio.sleep(self.cut_after)
            raise ConnectionAbortedError("the limit")
        await send({"type": "http.response.body", "body": b'{"StatusCode":7}'})


async def _answer(send: Any, status: int, body: Any, *headers: tuple[bytes, bytes]) -> None:
    content = orjson.dumps(body)
    head = [(b"api-version", b"1.50"), (b"content-length", str(len(content)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": content})


@asynccontextmanager
async def gateway_before(plane: Plane, **settings: Any) -> AsyncIterator[int]:
    """The port of its Docker listener."""
    server = HttpServer(plane, None)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    listen = ["tcp://127.0.0.1:0"]
    gateway = Gateway(
        GatewaySettings(KEY, "http://gateway", docker_listen=listen, control_plane_url=url, **settings),
        FakeControlPlane(),
    )
    await gateway.start()
    try:
        yield int(gateway.docker_addresses[0].rsplit(":", 1)[1])
    finally:
        await gateway.stop(0)
        listener.close()
        server.abort()


async def waited(client: Client) -> bytes:
    """The body of a wait's answer."""
    status, headers = await client.head()
    assert status == 200
    assert headers["transfer-encoding"] == "chunked"
    async with asyncio.timeout(SECONDS):
        return await client.reader.readuntil(b"}")


async def test_a_certificate_is_vouched_for_anew_with_each_request(monkeypatch: Any) -> None:
    monkeypatch.setattr(tickets, "_ATTESTATION_SECONDS", 2)
    plane = Plane()
    plane.cut_after = 2.2

    def attested(headers: Any) -> bool:
        told = [value.decode() for name, value in headers if name == b"x-sockerless-attested"]
        try:
            return [verify_attestation(KEY, one).subject for one in told] == ["CN=ci"]
        except TicketRefused:
            return False

    plane.wanted = attested
    async with gateway_before(plane, docker_proxies=["127.0.0.0/8"]) as port:
        client = await Client.connect(port)
        # What comes from the client cannot take the gateway's word out.
        client.send(certified() + b"POST /v1.50/containers/a/wait HTTP/1.1\r\nHost: d\r\n")
        client.send(b"Connection: x-sockerless-attested, via\r\n\r\n")
        assert b'{"StatusCode":7}' in await waited(client)
        client.writer.close()
    assert plane.waits == 2
    assert len(set(map(tuple, plane.of(b"x-sockerless-attested")))) > 1
    assert plane.of(b"via") == [[b"1.1 sockerless-gateway"]] * len(plane.shown)


async def test_what_is_asked_for_a_client_shows_that_clients_credentials() -> None:
    plane = Plane()
    plane.cut_after = 0.3
    secret = "p" * 32
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with gateway_before(plane, proxy_secret=secret) as port:

        async def other(number: int) -> None:
            shown = {"Authorization": f"Bearer {number}"} if number else {}
            for _ in range(3):
                async with httpx.AsyncClient(trust_env=False) as client:
                    await client.get(f"http://127.0.0.1:{port}/of/{number}", headers=shown)

        shown = {
            "Authorization": "Bearer mine",
            "X-Sockerless-Proxy": secret,
            "X-Sockerless-Client-Certificate": "CN=ci",
            "Traceparent": trace,
        }
        client = httpx.AsyncClient(trust_env=False, timeout=SECONDS)
        others = asyncio.gather(*map(other, range(4)))
        answer = await client.post(f"http://127.0.0.1:{port}/v1.50/containers/a/wait", headers=shown)
        await others
        await client.aclose()
        assert answer.json() == {"StatusCode": 7}
    assert len(plane.of(b"authorization", "/containers/")) >= 4  # wait and inspect, twice
    for name, value in shown.items():
        seen = plane.of(name.lower().encode(), "/containers/")
        assert seen == [[value.encode()]] * len(seen), name
    for number in range(4):
        assert plane.of(b"authorization", f"/of/{number}") == [[b"Bearer %d" % number] if number else []] * 3
    assert not any(map(any, plane.of(b"cookie")))


async def test_a_wait_with_a_body_goes_on_too() -> None:
    """Some SDKs send `{}` with it."""
    plane = Plane()
    async with gateway_before(plane) as port, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"http://127.0.0.1:{port}/v1.50/containers/a/wait", json={})
        assert answer.json() == {"StatusCode": 7}
    assert plane.waits == 2


async def test_a_client_that_leaves_takes_its_wait_with_it() -> None:
    plane = Plane()
    async with gateway_before(plane) as port:
        client = await Client.connect(port)
        client.send(b"POST /v1.50/containers/lasting/wait HTTP/1.1\r\nHost: d\r\n\r\n")
        async with asyncio.timeout(SECONDS):
            await plane.begun.wait()
            client.writer.close()
            await plane.gone.wait()


async def test_a_client_whose_credentials_end_does_not_go_on() -> None:
    plane = Plane()
    plane.wanted = lambda headers: plane.waits == 0
    async with gateway_before(plane) as port:
        client = await Client.connect(port)
        client.send(b"POST /v1.50/containers/a/wait HTTP/1.1\r\nHost: d\r\nAuthorization: Bearer t\r\n\r\n")
        await client.head()
        assert b"StatusCode" not in await client.rest()


async def test_a_create_is_sent_again_with_its_body_and_the_same_mark() -> None:
    plane = Plane()
    body = orjson.dumps({"Image": "busybox"})
    async with gateway_before(plane) as port, httpx.AsyncClient(trust_env=False) as client:
        base = f"http://127.0.0.1:{port}"
        await client.get(f"{base}/_ping")
        assert (await client.post(f"{base}/v1.50/containers/create?name=a", content=body)).status_code == 201
        assert plane.creates == [body, body]
        (first,), (second,) = plane.of(b"sockerless-attempt", "/create")
        assert first == second
        assert (await client.post(f"{base}/v1.50/containers/create", content=body)).status_code == 201
        assert plane.of(b"sockerless-attempt", "/create")[2] != [first]


async def test_an_answer_that_is_cut_behind_its_head_is_asked_for_again() -> None:
    plane = Plane()
    async with gateway_before(plane) as port, httpx.AsyncClient(trust_env=False) as client:
        base = f"http://127.0.0.1:{port}"
        await client.get(f"{base}/_ping")
        assert (await client.get(f"{base}/version")).text == "{}"
    assert plane.versions == 2


async def test_what_must_not_be_done_twice_is_not_sent_again() -> None:
    plane = Plane()
    async with gateway_before(plane) as port, httpx.AsyncClient(trust_env=False) as client:
        base = f"http://127.0.0.1:{port}"
        await client.get(f"{base}/_ping")
        answer = await client.post(f"{base}/v1.50/containers/a/kill")
        assert answer.status_code == 502
        assert "was lost" in answer.json()["message"]
    assert len(plane.of(b"via", "/kill")) == 1
