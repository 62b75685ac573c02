"""Stream kind `dial`: a TCP connection to a port of the agent's container, byte for byte and end for end."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.contract.agent_container import AgentContainer, agent, busybox_root, needs_namespaces, spec
from tests.contract.agent_peer import AgentPeer, ClientEnd


class Listener:
    """A server in the agent's network (which is this machine's here), and the connection it was given."""

    def __init__(self) -> None:
        self.port = 0
        self.reader: asyncio.StreamReader = None  # type: ignore[assignment]
        self.writer: asyncio.StreamWriter = None  # type: ignore[assignment]
        self._there = asyncio.Event()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._there.set()

    async def there(self) -> None:
        await asyncio.wait_for(self._there.wait(), 10)


@asynccontextmanager
async def listening(host: str = "127.0.0.1") -> AsyncIterator[Listener]:
    listener = Listener()
    server = await asyncio.start_server(listener.connected, host, 0, limit=1 << 20)
    listener.port = server.sockets[0].getsockname()[1]
    yield listener
    if listener.writer is not None:
        listener.writer.transport.abort()
    server.close()


@asynccontextmanager
async def dialled(tmp_path: Path, host: str = "127.0.0.1") -> AsyncIterator[tuple[AgentPeer, Listener, ClientEnd]]:
    async with agent(tmp_path) as (peer, _), listening(host) as listener:
        await peer.start(spec("sleep", "600"))
        end = peer.open("dial", port=listener.port, network="tcp")
        await listener.there()
        yield peer, listener, end


async def test_bytes_both_ways_and_the_clients_half_close_first(tmp_path: Path) -> None:
    async with dialled(tmp_path) as (_, listener, end):
        await end.send(b"question")
        end.eof()
        assert await listener.reader.read() == b"question"
        assert not end.eof_received
        listener.writer.write(b"answer")
        await end.output(b"answer")
        listener.writer.close()
        await end.end()
        assert (end.result, bytes(end.received), end.error) == ({}, b"answer", None)
        assert (end.eof_received, end.close_code) == (True, 1000)


async def test_the_processs_half_close_first(tmp_path: Path) -> None:
    async with dialled(tmp_path) as (_, listener, end):
        listener.writer.write(b"all I say")
        listener.writer.write_eof()
        await end.until(lambda: end.eof_received)
        assert end.received == b"all I say"
        await end.send(b"and I")
        assert await listener.reader.readexactly(5) == b"and I"
        assert not end.ended
        end.eof()
        assert await listener.reader.read() == b""
        await end.end()
        assert end.error is None


async def test_megabytes_over_a_cut(tmp_path: Path) -> None:
    async with dialled(tmp_path) as (_, listener, end):
        sent = random.Random(2).randbytes(6_000_000)

        async def echo() -> None:
            while piece := await listener.reader.read(1 << 16):
                listener.writer.write(piece)
                await listener.writer.drain()
            listener.writer.write_eof()

        echoing = asyncio.create_task(echo())
        sending = asyncio.create_task(end.send(sent))
        for part in (2_000_000, 4_000_000):
            await end.until(lambda part=part: len(end.received) >= part)  # type: ignore[misc]
            end.cut()
        await sending
        end.eof()
        await end.end()
        await echoing
        assert bytes(end.received) == sent
        assert end.resumes == 2


async def test_a_connection_that_the_process_breaks(tmp_path: Path) -> None:
    async with dialled(tmp_path) as (_, listener, end):
        listener.writer.write(b"here")
        await end.output(b"here")  # the agent has the connection too
        connection = listener.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        listener.writer.transport.abort()
        await end.end()
        assert end.error == {
            "status": 502,
            "message": f"the connection to port {listener.port} of the container broke: connection reset by peer",
        }


async def test_a_client_that_goes_away_breaks_the_connection(tmp_path: Path) -> None:
    async with dialled(tmp_path) as (_, listener, end):
        listener.writer.write(b"here")
        await end.output(b"here")
        end.close()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(listener.reader.read(), 10)


async def test_ipv6(tmp_path: Path) -> None:
    async with dialled(tmp_path, "::1") as (_, listener, end):
        listener.writer.write(b"six")
        await end.output(b"six")


@pytest.mark.parametrize(
    ("params", "status", "text"),
    [
        ({"port": 1, "network": "tcp"}, 502, "nothing listens on port 1 of the container: connection refused"),
        ({"port": 53, "network": "udp"}, 501, 'network "udp" is not served'),
        ({"port": 0}, 400, "0 is no port"),
        ({"port": 65536}, 400, "65536 is no port"),
        ({"port": "x"}, 400, "invalid parameters"),
    ],
)
async def test_refusals(tmp_path: Path, params: dict[str, object], status: int, text: str) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "600"))
        end = await peer.open("dial", **params).end()
        assert end.error is not None
        assert (end.error["status"], text in end.error["message"]) == (status, True), end.error


async def test_the_agents_own_face_is_not_dialled(tmp_path: Path) -> None:
    needs_namespaces()
    async with AgentPeer() as peer, listening() as probe:
        port = probe.port + 1
        settings = {"SOCKERLESS_AGENT_MODE": "app", "PORT": str(port), "SOCKERLESS_INVOKE_KEY": "k" * 32}
        container = AgentContainer(busybox_root(tmp_path / "root"), peer.url, settings=settings)
        try:
            await peer.hello()
            peer.tell({"type": "welcome", "action": "wait", "streams": []})
            end = await peer.open("dial", port=port, network="tcp").end()
            assert end.error == {
                "status": 403,
                "message": f"port {port} is the agent's own: the platform's requests come in there",
            }
        finally:
            container.end()
