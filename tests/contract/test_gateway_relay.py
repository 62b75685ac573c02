"""The relay over real sockets: calls, pairing, spares, attachments."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agent_gateway.protocol import Result
from agent_gateway.relay import streams as relay_streams
from agent_gateway.stream_dial import WebsocketCarrier
from agent_gateway.streams import RemoteRelay, Stream, StreamError, new_stream_id
from agent_gateway.tickets import mint_agent_token, mint_ticket
from agent_gateway.websockets import dial
from tests.contract.gateway_peers import (
    KEY,
    TENANT,
    AgentStream,
    FakeAgent,
    FakeControlPlane,
    echo,
    running_gateway,
)
from tests.contract.relay_peers import SECONDS, Raw, both_relays, connected, eventually


async def test_hello_is_answered_and_calls_reach_the_agent() -> None:
    plane = FakeControlPlane()
    plane.welcome = {"action": "start", "spec": {"run": 1}}
    async with running_gateway(plane) as gateway:
        agent = await connected(gateway)
        assert agent.messages[0] == {"type": "welcome", "action": "start", "streams": [], "spec": {"run": 1}}
        assert plane.hellos[0]["container"] == "c1"

        def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
            if method == "pause":
                raise StreamError(409, "container c1 is not running")
            return {"got": params}

        agent.answer = answer
        for relay in await both_relays(gateway):
            assert await relay.call(TENANT, "c1", "signal", {"signal": 15}) == {"got": {"signal": 15}}
            with pytest.raises(StreamError, match="not running") as refusal:
                await relay.call(TENANT, "c1", "pause", {})
            assert refusal.value.status == 409
        await agent.close()


async def test_streams_open_from_both_kinds_of_relay_clients() -> None:
    async with running_gateway() as gateway:
        agent = await connected(gateway)
        for relay in await both_relays(gateway):
            stream = await relay.open(TENANT, "c1", "exec", {})
            assert await stream.result() == {"pid": 7}
            payload = bytes(range(256)) * 8192

            async def feed(stream: Stream = stream, payload: bytes = payload) -> None:
                await stream.send(payload)
                await stream.send_eof()

            feeding = asyncio.create_task(feed())
            got = b"".join([chunk async for chunk in stream.chunks()])
            await feeding
            assert got == payload
            assert stream.exit_code == 0
            await stream.close()
        await eventually(lambda: len(gateway._streams.pairs) == 0)
        await agent.close()


async def test_the_agents_error_is_the_callers() -> None:
    async def refuse(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        from agent_gateway.protocol import Error

        stream.finish(Error(404, "Could not find the file /x in container c1"))
        await stream.wait_ended()

    async with running_gateway() as gateway:
        agent = await connected(gateway, handler=refuse)
        for relay in await both_relays(gateway):
            stream = await relay.open(TENANT, "c1", "archive_get", {"path": "/x"})
            with pytest.raises(StreamError, match="Could not find") as refusal:
                await stream.result()
            assert refusal.value.status == 404
            with pytest.raises(StreamError):
                async for _ in stream.chunks():
                    pass
        await agent.close()


async def test_a_spare_saves_the_dial() -> None:
    async with running_gateway() as gateway:
        agent = await connected(gateway)
        spare = Raw()
        await dial(f"{gateway.url}/agent/streams", spare, agent.token)
        await eventually(lambda: "c1" in gateway._streams.links._spares)
        stream = await gateway.agents.open(TENANT, "c1", "logs", {"tail": -1})
        await eventually(lambda: spare.texts)
        opened = json.loads(spare.texts[0])
        assert opened["type"] == "open"
        assert (opened["kind"], opened["params"]) == ("logs", {"tail": -1})
        assert not any(m["type"] == "open" for m in agent.messages)
        spare.send_binary(b"line\n")
        spare.send_text('{"eof":true}')
        assert [c async for c in stream.chunks()] == [b"line\n"]
        await stream.close()
        assert await spare.closed() == 1000
        await agent.close()


async def test_a_spare_that_breaks_unheard_is_replaced_over_the_link() -> None:
    async with running_gateway() as gateway:
        agent = await connected(gateway)
        spare = Raw()
        await dial(f"{gateway.url}/agent/streams", spare, agent.token)
        await eventually(lambda: "c1" in gateway._streams.links._spares)
        spare.abort()
        stream = await gateway.agents.open(TENANT, "c1", "exec", {})
        await stream.send(b"x")
        await stream.send_eof()
        assert b"".join([c async for c in stream.chunks()]) == b"x"
        await agent.close()


async def test_attach_before_start_waits_and_is_named_in_the_welcome() -> None:
    async with running_gateway() as gateway:
        for relay in await both_relays(gateway):
            stream = await relay.open(TENANT, "c1", "attach", {"stdin": True})
            await stream.send(b"early")
            await asyncio.sleep(0.05)
            agent = await connected(gateway, boot=f"b{id(relay)}")
            opened = [m for m in agent.messages if m["type"] == "open"]
            welcome = next(m for m in agent.messages if m["type"] == "welcome")
            assert [m["stream"] for m in opened] == welcome["streams"]
            assert opened[0]["params"] == {"stdin": True}
            await stream.send_eof()
            assert b"".join([c async for c in stream.chunks()]) == b"early"
            await agent.close()


async def test_the_start_call_names_the_attachments() -> None:
    async with running_gateway() as gateway:
        agent = await connected(gateway)
        stream = await gateway.agents.open(TENANT, "c1", "attach", {})
        await eventually(lambda: agent.streams)
        agent.answer = lambda method, params: {"streams": params["streams"]}
        answer = await gateway.agents.call(TENANT, "c1", "start", {"spec": {"run": 2}})
        assert answer == {"streams": list(agent.streams)}
        await stream.close()
        await agent.close()


async def test_without_an_agent_streams_and_calls_end_with_409(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_streams, "REDIAL_WAIT_SECONDS", 0.1)
    monkeypatch.setattr("agent_gateway.relay.links.REDIAL_WAIT_SECONDS", 0.1)
    async with running_gateway() as gateway:
        for relay in await both_relays(gateway):
            stream = await relay.open(TENANT, "c1", "exec", {})
            with pytest.raises(StreamError, match="agent of container c1 is not connected") as refusal:
                await stream.result()
            assert refusal.value.status == 409
            with pytest.raises(StreamError, match="agent of container c1 is not connected") as refusal:
                await relay.call(TENANT, "c1", "signal", {})
            assert refusal.value.status == 409
        assert gateway._streams.links.all() == []


async def test_lone_halves_are_closed_after_their_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_gateway.relay.pairing.GRACE_SECONDS", 0.1)
    async with running_gateway() as gateway:
        agent = Raw()
        await dial(f"{gateway.url}/agent/streams/{new_stream_id()}", agent, mint_agent_token(KEY, TENANT, "c1", 60))
        assert await agent.closed() == 1001


async def test_the_relay_listens_on_a_unix_socket_too(tmp_path: Any) -> None:
    path = tmp_path / "agents.sock"
    async with running_gateway(agent=["tcp://127.0.0.1:0", f"unix://{path}"]) as gateway:
        agent = FakeAgent(f"unix://{path}:", "c1", echo)
        await agent.connect()
        async with asyncio.timeout(SECONDS):
            await agent.welcomed.wait()
        stream = await gateway.agents.open(TENANT, "c1", "exec", {})
        await stream.send(b"x" * 300_000)
        await stream.send_eof()
        assert len(b"".join([c async for c in stream.chunks()])) == 300_000
        await agent.close()
    assert not path.exists()


async def test_a_client_half_without_relay_is_503() -> None:
    with pytest.raises(StreamError) as refusal:
        await RemoteRelay("http://127.0.0.1:9", KEY).open(TENANT, "c1", "exec", {})
    assert refusal.value.status == 503
    with pytest.raises(StreamError) as refusal:
        await RemoteRelay("http://127.0.0.1:9", KEY).call(TENANT, "c1", "top", {})
    assert refusal.value.status == 503


async def test_results_come_from_the_carrier_in_order() -> None:
    async def archive(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        stream.finish(Result({"name": "x"}))
        await stream.send(b"tar")
        await stream.send_eof()
        await stream.wait_ended()

    async with running_gateway() as gateway:
        agent = await connected(gateway, handler=archive)
        stream = Stream()
        stream_id = new_stream_id()
        ticket = mint_ticket(KEY, TENANT, "c1", "archive_get", stream_id, {"path": "/x"})
        await WebsocketCarrier(stream, f"{gateway.url}/streams/{stream_id}", ticket).dial()
        assert await stream.result() == {"name": "x"}
        assert [c async for c in stream.chunks()] == [b"tar"]
        await stream.close()
        await stream.close()
        await agent.close()
