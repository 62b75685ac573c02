"""Links over real sockets: events, redials, farewells, calls that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from agent_gateway.control_plane_client import Linked, Refused
from agent_gateway.relay import streams as relay_streams
from agent_gateway.streams import RemoteRelay, StreamError
from tests.contract.gateway_peers import (
    KEY,
    TENANT,
    AgentStream,
    FakeAgent,
    FakeControlPlane,
    echo,
    running_gateway,
)
from tests.contract.relay_peers import SECONDS, connected, eventually


async def test_a_call_waits_for_a_redial_and_fails_when_the_link_breaks() -> None:
    async with running_gateway() as gateway:
        call = asyncio.create_task(gateway.agents.call(TENANT, "c1", "signal", {}))
        await asyncio.sleep(0.05)
        agent = await connected(gateway)
        assert await call == {"method": "signal"}

        def vanish(method: str, params: dict[str, Any]) -> dict[str, Any]:
            assert agent.link is not None
            agent.link.abort()
            return {}

        agent.answer = vanish
        with pytest.raises(StreamError) as broken:
            await gateway.agents.call(TENANT, "c1", "signal", {})
        assert broken.value.status == 503
        await agent.close()


async def test_a_silent_agent_is_504() -> None:
    async with running_gateway() as gateway:
        agent = FakeAgent(gateway.url, "c1", echo)
        await agent.connect()
        await agent.welcomed.wait()
        agent.received = lambda message: None  # type: ignore[method-assign]
        with pytest.raises(StreamError) as late:
            await gateway.agents.call(TENANT, "c1", "signal", {}, timeout=0.1)
        assert late.value.status == 504
        await agent.close()


async def test_events_are_reported_in_order_until_accepted_then_acknowledged() -> None:
    plane = FakeControlPlane()
    plane.failures = 2
    async with running_gateway(plane) as gateway:
        agent = await connected(gateway)
        at = "2026-01-02T03:04:05.000000006Z"
        started = {"type": "started", "seq": 1, "run": 1, "pid": 7, "at": at}
        exited = {"type": "exited", "seq": 2, "run": 1, "code": 3, "oom": False, "at": at}
        for event in (started, exited, started, exited):
            agent.send(event)
        await eventually(lambda: agent.acked == 2)
        assert plane.events == [started, exited]
        agent.acked = 0
        agent.send(exited)
        await eventually(lambda: agent.acked == 2)
        assert plane.events == [started, exited]
        # Another agent process numbers from 1 again.
        second = await connected(gateway, boot="b2")
        second.send({**started, "run": 2})
        await eventually(lambda: second.acked == 1)
        assert plane.events[-1]["run"] == 2
        await agent.close()
        await second.close()


async def test_an_event_the_control_plane_will_never_accept_is_not_kept_for_ever() -> None:
    class Strict(FakeControlPlane):
        async def event(self, agent: Linked, event: Any) -> None:
            raise Refused(404, "No such container: c1")

    async with running_gateway(Strict()) as gateway:
        agent = await connected(gateway)
        agent.send({"type": "started", "seq": 1, "run": 1, "pid": 7, "at": "x"})
        await eventually(lambda: agent.acked == 1)
        await agent.close()


async def test_an_agent_nobody_wants_is_told_to_shut_down() -> None:
    class Strict(FakeControlPlane):
        async def hello(self, agent: Linked, message: Any) -> dict[str, Any]:
            raise Refused(404, "No such container: c1")

    async with running_gateway(Strict()) as gateway:
        agent = await connected(gateway)
        assert agent.messages[-1]["action"] == "shutdown"
        await agent.close()


async def test_the_newest_hello_wins() -> None:
    async with running_gateway() as gateway:
        first = await connected(gateway)
        second = await connected(gateway, boot="b2")
        second.answer = lambda method, params: {"who": "second"}
        async with asyncio.timeout(SECONDS):
            await first.link_lost.wait()
        assert await gateway.agents.call(TENANT, "c1", "top", {}) == {"who": "second"}
        await first.close()
        await second.close()


class Order(FakeControlPlane):
    """Remembers in which order it was told of whom."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str]] = []

    async def hello(self, agent: Linked, message: Mapping[str, Any]) -> dict[str, Any]:
        self.told.append(("hello", agent.boot))
        return await super().hello(agent, message)

    async def gone(self, agent: Linked) -> None:
        self.told.append(("gone", agent.boot))


async def test_a_lost_agent_is_gone_before_its_successor_is_greeted() -> None:
    plane = Order()
    async with running_gateway(plane) as gateway:
        first = await connected(gateway, boot="b1")
        assert first.link is not None
        first.link.abort()
        link = gateway._streams.links.get("c1")
        assert link is not None
        await eventually(lambda: link.socket is None)
        second = await connected(gateway, boot="b2")
        await eventually(lambda: len(plane.told) == 3)
        assert plane.told == [("hello", "b1"), ("gone", "b1"), ("hello", "b2")]
        await first.close()
        await second.close()


async def test_a_link_that_stays_away_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_gateway.relay.reports.SILENT_SECONDS", 0.1)
    plane = FakeControlPlane()
    async with running_gateway(plane) as gateway:
        agent = await connected(gateway)
        assert agent.link is not None
        agent.link.abort()
        await eventually(lambda: plane.gones == ["c1"])
        assert gateway._streams.links.all() == []
        await agent.close()


async def test_attachments_end_when_the_process_has_ended_and_the_agent_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_streams, "_EXITED_SECONDS", 0.1)

    async def hang(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        await asyncio.sleep(3600)

    async with running_gateway() as gateway:
        agent = await connected(gateway, handler=hang)
        stream = await gateway.agents.open(TENANT, "c1", "attach", {})
        await eventually(lambda: agent.streams)
        agent.send({"type": "exited", "seq": 1, "run": 1, "code": 0, "at": "x"})
        await eventually(lambda: agent.acked == 1)
        half: Any = next(iter(agent.streams.values()))
        await eventually(lambda: half.carrier is not None and half.carrier._socket is not None)
        half.carrier._socket.abort()
        agent.link.abort()  # type: ignore[union-attr]
        with pytest.raises(StreamError) as over:
            async for _ in stream.chunks():
                pass
        assert over.value.status == 409
        await agent.close()


async def test_the_control_plane_may_end_waiting_attachments() -> None:
    async with running_gateway() as gateway:
        one = await gateway.agents.open(TENANT, "c1", "attach", {})
        gateway.agents.end("c1")
        assert [c async for c in one.chunks()] == []
        other = await gateway.agents.open(TENANT, "c1", "attach", {})
        gateway.agents.end("c1", "container c1 is not running")
        with pytest.raises(StreamError, match="not running"):
            await other.result()


async def test_streams_of_a_lost_agent_end_when_the_control_plane_says_so() -> None:
    async def hang(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        await asyncio.sleep(3600)

    async with running_gateway() as gateway:
        agent = await connected(gateway, handler=hang)
        stream = await gateway.agents.open(TENANT, "c1", "exec", {})
        await eventually(lambda: agent.streams)
        half: Any = next(iter(agent.streams.values()))
        await eventually(lambda: half.carrier is not None and half.carrier._socket is not None)
        half.carrier._socket.abort()
        agent.link.abort()  # type: ignore[union-attr]
        await eventually(lambda: gateway._streams.pairs.all()[0].agent is None)
        remote = RemoteRelay(gateway.url, KEY)
        assert await remote.call(TENANT, "c1", "end", {"message": "the agent is gone"}) == {}
        with pytest.raises(StreamError, match="the agent is gone") as over:
            await stream.result()
        assert over.value.status == 409
        await remote.aclose()
        await agent.close()


async def test_an_agent_that_keeps_an_ended_run_may_be_silent_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_gateway.relay.reports.SILENT_SECONDS", 0.05)
    monkeypatch.setattr("agent_gateway.relay.reports.GONE_SECONDS", 0.4)
    plane = FakeControlPlane()
    async with running_gateway(plane) as gateway:
        idle = await connected(gateway)
        idle.send({"type": "exited", "seq": 1, "run": 1, "code": 0, "at": "x"})
        await eventually(lambda: idle.acked == 1)
        busy = await connected(gateway, "c2")
        for agent in (idle, busy):
            agent.link.abort()  # type: ignore[union-attr]
        await eventually(lambda: len(plane.gones) == 2)
        assert plane.gones == ["c2", "c1"]
        await idle.close()
        await busy.close()


async def test_draining_asks_agents_to_dial_again() -> None:
    async with running_gateway() as gateway:
        agent = await connected(gateway)
        stopping = asyncio.create_task(gateway.stop(1.0))
        await eventually(lambda: any(m["type"] == "drain" for m in agent.messages))
        await stopping
        async with asyncio.timeout(SECONDS):
            await agent.link_lost.wait()
        await agent.close()
