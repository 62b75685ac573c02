"""One request passed on to a server that behaves well, badly, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from local_cloud.instances import ClientGone, Instance, UpstreamBroken, UpstreamTimeout, forward
from tests.contract.forwarded_requests import Client

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(handle: Handle) -> AsyncIterator[Instance]:
    """A server on loopback as an instance; it is over when all its connections are."""
    closed: list[asyncio.Task[None]] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closed.append(asyncio.create_task(connected(reader, writer)))

    listening = await asyncio.start_server(begin, "127.0.0.1", 0)
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    yield Instance("0-x", "127.0.0.1", listening.sockets[0].getsockname()[1], ended)
    async with asyncio.timeout(10):
        await asyncio.gather(*closed)
    listening.close()


def says(answer: bytes) -> Handle:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    return handle


async def test_the_head_is_passed_without_what_is_for_one_hop() -> None:
    heard: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 201 Created\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nServer: s\r\n"
            b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )

    headers = [
        ("connection", "keep-alive, x-secret-hop"), ("x-secret-hop", "1"), ("te", "trailers"), ("upgrade", "h2c"),
        ("expect", "100-continue"), ("authorization", "Bearer token"), ("x-many", "1"), ("x-many", "2"),
    ]  # fmt: skip
    async with server(handle) as instance:
        client = Client("GET", "/a%2Fb?x=%20y", headers=headers)
        answer = await forward(instance, client.request, timeout=10, headers={"Authorization": "removed"})
    lines = sorted(heard[0].decode().strip().split("\r\n")[1:])
    assert heard[0].startswith(b"GET /a%2Fb?x=%20y HTTP/1.1\r\n")
    assert lines == ["authorization: removed", "connection: close", "host: name.example", "x-many: 1", "x-many: 2"]
    assert (answer.status_code, answer.body) == (201, b"abc")
    assert answer.raw_headers == [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"content-length", b"3")]


async def test_the_body_goes_through_as_it_comes() -> None:
    first = asyncio.Event()
    heard: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"transfer-encoding: chunked" in await reader.readuntil(b"\r\n\r\n")
        heard.append(await reader.readuntil(b"one\r\n"))
        first.set()
        heard.append(await reader.readuntil(b"0\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with server(handle) as instance:
        client = Client("POST", "/", headers={"transfer-encoding": "chunked"})
        client._messages = asyncio.Queue()
        passing = asyncio.create_task(forward(instance, client.request, timeout=10))
        client.send(b"one")
        await asyncio.wait_for(first.wait(), 10)
        client.send(b"two")
        client.end()
        answer = await passing
    assert heard == [b"3\r\none\r\n", b"3\r\ntwo\r\n0\r\n\r\n"]
    assert (answer.status_code, answer.raw_headers) == (204, [])


async def test_a_client_cannot_break_the_framing() -> None:
    heard: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with server(handle) as instance:
        for headers in (
            {"connection": "host, content-length", "content-length": "3"},
            {"content-length": "3", "transfer-encoding": "chunked"},
        ):
            await forward(instance, Client("POST", "/", [b"abc"], headers).request, timeout=10)
    heads = [sorted(head.decode().strip().split("\r\n")[1:]) for head in heard]
    assert heads == [
        ["connection: close", "content-length: 3", "host: name.example"],
        ["connection: close", "host: name.example", "transfer-encoding: chunked"],
    ]


async def test_an_answer_before_the_whole_request_counts() -> None:
    async with server(says(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")) as instance:
        client = Client("POST", "/", [b"x" * 65536] * 100, {"content-length": "99999999"})
        client._messages.get_nowait()
        answer = await forward(instance, client.request, timeout=10)
    assert (answer.status_code, answer.body) == (413, b"big")


@pytest.mark.parametrize(
    ("method", "answer", "status", "headers", "body"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", 200, [(b"content-length", b"7")], b""),
        ("GET", b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nto the end", 200, [(b"a", b"b"), (b"content-length", b"10")], b"to the end"),  # noqa: E501
        ("GET", b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 304 Not Modified\r\n\r\n", 304, [], b""),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, [(b"content-length", b"0")], b""),
    ],
)  # fmt: skip
async def test_answers_of_every_form(
    method: str, answer: bytes, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    async with server(says(answer)) as instance:
        passed = await forward(instance, Client(method, "/").request, timeout=10)
    assert (passed.status_code, passed.raw_headers, passed.body) == (status, headers, body)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * ((32 << 20) + 1),
    ],
)
async def test_a_broken_answer_is_told(answer: bytes) -> None:
    async with server(says(answer)) as instance:
        with pytest.raises(UpstreamBroken):
            await forward(instance, Client("GET", "/").request, timeout=10)


async def test_nobody_listening() -> None:
    async with server(says(b"")) as instance:
        pass
    with pytest.raises(UpstreamBroken):
        await forward(instance, Client("GET", "/").request, timeout=10)


async def holds(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers nothing; over once the other side has closed."""
    while await reader.read(65536):
        pass


async def test_the_time_closes_the_connection() -> None:
    async with server(holds) as instance:  # which waits until it is closed
        with pytest.raises(UpstreamTimeout):
            await forward(instance, Client("GET", "/").request, timeout=0.1)


@pytest.mark.parametrize("pieces", [[], [b"x"]])
async def test_a_client_that_goes_closes_the_connection(pieces: list[bytes]) -> None:
    async with server(holds) as instance:
        client = Client("POST", "/", pieces, {"transfer-encoding": "chunked"})
        passing = asyncio.create_task(forward(instance, client.request, timeout=60))
        await asyncio.sleep(0.05)
        client.leave()
        with pytest.raises(ClientGone):
            await passing


async def test_a_client_that_goes_within_its_body_closes_the_connection() -> None:
    async with server(holds) as instance:
        client = Client("POST", "/", headers={"content-length": "100"})
        client._messages = asyncio.Queue()
        client.send(b"abc")
        client.leave()
        with pytest.raises(ClientGone):
            await forward(instance, client.request, timeout=60)


async def test_a_cancelled_pass_closes_the_connection() -> None:
    async with server(holds) as instance:
        passing = asyncio.create_task(forward(instance, Client("GET", "/").request, timeout=60))
        await asyncio.sleep(0.05)
        passing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await passing


async def test_the_end_of_an_instance_whose_connection_stays_is_noticed() -> None:
    async with server(holds) as instance:
        passing = asyncio.create_task(forward(instance, Client("GET", "/").request, timeout=60))
        await asyncio.sleep(0.05)
        instance.ended.set_result(None)  # type: ignore[arg-type]
        with pytest.raises(UpstreamBroken):
            await passing
