"""Streams whose connections are cut go on where they were: no byte lost or doubled, on either side of the relay."""

from __future__ import annotations

import asyncio
import hashlib
import random
from types import SimpleNamespace
from typing import Any

import pytest

from agent_gateway.protocol import Exit, Result
from agent_gateway.server import Gateway, GatewaySettings
from agent_gateway.stream_dial import WebsocketCarrier
from agent_gateway.streams import RemoteRelay, Stream, StreamError, new_stream_id
from agent_gateway.tickets import mint_ticket
from agent_gateway.websockets import Socket, dial
from tests.contract.gateway_peers import (
    KEY,
    TENANT,
    AgentStream,
    CuttingProxy,
    FakeAgent,
    FakeControlPlane,
    docker_api,
    echo,
    running_gateway,
)

MIB = 1024 * 1024
SIZE = 24 * MIB


def pattern(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(MIB) * (size // MIB)


async def duplex(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
    """Sends SIZE bytes while it reads; the exit code says whether what it read was right."""
    stream.finish(Result({"pid": 7}))
    digest = hashlib.sha256()

    async def read() -> None:
        async for chunk in stream.chunks():
            digest.update(chunk)

    reading = asyncio.create_task(read())
    data = pattern(SIZE, 1)
    for start in range(0, SIZE, 100_000):
        await stream.send(data[start : start + 100_000])
    await stream.send_eof()
    await reading
    stream.finish(Exit(0 if digest.digest() == hashlib.sha256(pattern(SIZE, 2)).digest() else 1))
    await stream.wait_ended()


async def transfer(stream: Stream) -> bytes:
    data = pattern(SIZE, 2)

    async def write() -> None:
        for start in range(0, SIZE, 70_001):
            await stream.send(data[start : start + 70_001])
        await stream.send_eof()

    writing = asyncio.create_task(write())
    digest = hashlib.sha256()
    async for chunk in stream.chunks():
        digest.update(chunk)
    await writing
    async with asyncio.timeout(20):
        while stream.exit_code is None:
            assert not stream.ended or stream.exit_code is not None
            await stream._change()
    return digest.digest()


async def cut_at_random(proxies: list[CuttingProxy], seed: int, times: int) -> None:
    rng = random.Random(seed)
    for _ in range(times):
        goal = sum(p.forwarded for p in proxies) + rng.randint(1, 6 * MIB)
        while sum(p.forwarded for p in proxies) < goal:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        rng.choice(proxies).cut()
        if rng.random() < 0.3:
            for proxy in proxies:
                proxy.cut()


@pytest.mark.parametrize("seed", range(3))
async def test_random_cuts_on_both_sides_lose_and_double_nothing(seed: int) -> None:
    async with running_gateway() as gateway:
        port = int(gateway.url.rsplit(":", 1)[1])
        to_agent, to_client = CuttingProxy(port), CuttingProxy(port)
        await to_agent.start()
        await to_client.start()
        direct = FakeAgent(gateway.url, "c1", duplex)
        await direct.connect()
        # Only streams go through the proxy: the link is not what is tested here.
        direct.url = f"http://127.0.0.1:{to_agent.port}"
        stream = await RemoteRelay(f"http://127.0.0.1:{to_client.port}", KEY).open(TENANT, "c1", "exec", {})
        cutting = asyncio.create_task(cut_at_random([to_agent, to_client], seed, 12))
        async with asyncio.timeout(60):
            assert await transfer(stream) == hashlib.sha256(pattern(SIZE, 1)).digest()
        assert stream.exit_code == 0
        cutting.cancel()
        await direct.close()
        await to_agent.close()
        await to_client.close()


@pytest.mark.parametrize("seed", range(2))
async def test_a_client_in_the_relays_process_outlives_cuts_of_the_agents_side(seed: int) -> None:
    async with running_gateway() as gateway:
        proxy = CuttingProxy(int(gateway.url.rsplit(":", 1)[1]))
        await proxy.start()
        agent = FakeAgent(gateway.url, "c1", duplex)
        await agent.connect()
        agent.url = f"http://127.0.0.1:{proxy.port}"
        stream = await gateway.agents.open(TENANT, "c1", "exec", {})
        cutting = asyncio.create_task(cut_at_random([proxy], seed, 12))
        async with asyncio.timeout(60):
            assert await transfer(stream) == hashlib.sha256(pattern(SIZE, 1)).digest()
        assert stream.exit_code == 0
        cutting.cancel()
        await agent.close()
        await proxy.close()


async def test_streams_outlive_a_restart_of_the_relay() -> None:
    def gateway(listen: str) -> Gateway:
        settings = GatewaySettings(KEY, "http://relay", agent_listen=[listen])
        return Gateway(settings, FakeControlPlane(), docker_api)

    first = gateway("tcp://127.0.0.1:0")
    await first.start()
    address = first.agent_addresses[0]
    url = address.replace("tcp", "http")
    agent = FakeAgent(url, "c1", duplex)
    await agent.connect()
    stream = await RemoteRelay(url, KEY).open(TENANT, "c1", "exec", {})
    moving = asyncio.create_task(transfer(stream))
    while stream.state.received < SIZE // 3:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    await first.stop(0)
    second = gateway(address)
    await second.start()
    async with asyncio.timeout(60):
        assert await moving == hashlib.sha256(pattern(SIZE, 1)).digest()
    assert stream.exit_code == 0
    await agent.close()
    await second.stop(0)


async def test_an_end_that_cannot_come_back_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_gateway.stream_dial.GRACE_SECONDS", 0.2)

    async def hold(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        await stream.send(b"x")
        await stream.wait_ended()

    async with running_gateway() as gateway:
        agent = FakeAgent(gateway.url, "c1", hold)
        await agent.connect()
        proxy = CuttingProxy(int(gateway.url.rsplit(":", 1)[1]))
        await proxy.start()
        stream = await RemoteRelay(f"http://127.0.0.1:{proxy.port}", KEY).open(TENANT, "c1", "exec", {})
        chunks = stream.chunks()
        assert await anext(chunks) == b"x"
        await proxy.close()
        with pytest.raises(StreamError) as lost:
            await anext(chunks)
        assert lost.value.status == 503
        await agent.close()


async def test_the_agent_that_never_returns_ends_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_gateway.relay.pairing.GRACE_SECONDS", 0.2)

    async def vanish(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        await stream.send(b"x")
        await asyncio.sleep(0.1)
        socket = stream.carrier._socket  # type: ignore[union-attr]
        stream.ended = True
        socket.abort()

    async with running_gateway() as gateway:
        agent = FakeAgent(gateway.url, "c1", vanish)
        await agent.connect()
        stream = await gateway.agents.open(TENANT, "c1", "exec", {})
        chunks = stream.chunks()
        assert await anext(chunks) == b"x"
        with pytest.raises(StreamError) as lost:
            await anext(chunks)
        assert lost.value.status == 503
        await agent.close()


async def test_a_front_end_without_a_relay_behind_it_ends_no_stream() -> None:
    class Absent(Exception):
        response = SimpleNamespace(status=404)
        raw_body = b"<html>not found</html>"

    dials = 0

    async def connect(url: str, socket: Socket, token: str) -> Any:
        nonlocal dials
        dials += 1
        if dials in (2, 3):
            raise Absent
        return await dial(url, socket, token)

    async with running_gateway() as gateway:
        agent = FakeAgent(gateway.url, "c1", echo)
        await agent.connect()
        stream, name = Stream(), new_stream_id()
        ticket = mint_ticket(KEY, TENANT, "c1", "exec", name, {})
        await WebsocketCarrier(stream, f"{gateway.url}/streams/{name}", ticket, connect).dial()
        await stream.result()
        carrier: Any = stream.carrier
        carrier._socket.ws.disconnect(False)
        await stream.send(b"on")
        await stream.send_eof()
        async with asyncio.timeout(20):
            assert b"".join([chunk async for chunk in stream.chunks()]) == b"on"
        assert dials == 4
        await agent.close()
