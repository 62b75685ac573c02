"""Attachments that come before their container's start, while the gateway they wait at is killed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent_gateway import stream_dial
from agent_gateway.relay import streams
from agent_gateway.streams import RemoteRelay, Stream, new_stream_id
from agent_gateway.tickets import mint_ticket
from control_plane.model import Container
from control_plane.services.attachments import HijackRequest
from control_plane.services.moves import expected
from tests.contract.agent_container import AgentContainer, busybox_root, needs_namespaces
from tests.contract.gateway_peers import KEY, FakeAgent, echo
from tests.contract.gateway_processes import Plane, hosted
from tests.contract.relay_peers import eventually
from tests.contract.test_gateway_moves import two
from tests.contract.test_gateway_processes import Reader
from tests.unit.run_world import TENANT

WANTED = {"stdin": False, "stdout": True, "stderr": True, "stream": True, "logs": False, "detach_keys": ""}


async def ticket(plane: Plane, query: str = "stream=1&stdout=1&stderr=1", attempt: str = "") -> str:
    """The id of the stream that an attach is given."""
    request = HijackRequest("POST", "/containers/c0ffee/attach", query, None, attempt)
    answer: dict[str, Any] = await plane.world.services.attachments.ticket(TENANT, request)
    return str(answer["stream_id"])


@pytest.mark.parametrize("where", ["the other", "the restarted"])
async def test_the_start_waits_for_a_client_that_has_not_dialled_again_yet(tmp_path: Path, where: str) -> None:
    needs_namespaces()
    root = busybox_root(tmp_path / "root")
    async with hosted(tmp_path / "plane") as (plane, (first, second)):
        await plane.container(first.url)
        echoes = {"Cmd": ["echo", "seen"], "Tty": True}
        await plane.records.update(TENANT, "c0ffee", lambda c: c.model_copy(update={"config": {**c.config, **echoes}}))
        stream_id = await ticket(plane)
        returning = asyncio.Event()

        async def find(stream: str, shown: str) -> str:
            await returning.wait()
            return await plane.agents._where(stream, shown)

        stream = Stream()
        shown = mint_ticket(KEY, TENANT, "c0ffee", "attach", stream_id, WANTED)
        await RemoteRelay(first.url, KEY, find).join(stream, stream_id, shown)
        first.kill()
        if where == "the restarted":
            await first.start()
        url = first.url if where == "the restarted" else second.url
        container = AgentContainer(root, url, token=plane.token())
        try:
            await plane.until(lambda c: c.agent is not None and c.agent.connected)
            await asyncio.sleep(1.0)  # a process that did not wait would have written, and ended, by now
            assert (await plane.now()).state.status == "starting"
            returning.set()
            assert await Reader(stream).end() == b"seen\n"
            ended = await plane.until(lambda c: c.state.status == "exited")
            assert ended.expected == []
        finally:
            container.end()


async def test_attachments_are_remembered_where_gateways_register(tmp_path: Path) -> None:
    plane = Plane(tmp_path)
    await plane.start()
    try:
        await plane.gateways.register("http://a", "1", 0, draining=False)
        await plane.container("http://a")
        await ticket(plane, "logs=1&stdout=1")
        assert (await plane.now()).expected == []  # it does not stay
        again = [await ticket(plane, attempt="1") for _ in range(2)]
        assert [one.stream for one in (await plane.now()).expected] == again[:1]
        streams = [await ticket(plane) for _ in range(20)]
        known = await plane.now()
        assert [one.stream for one in known.expected] == streams[-16:]
        latest = known.expected[-1].at
        assert expected(known, latest + 1) == streams[-16:]
        assert expected(known, latest + 601) == []
        await plane.records.update(TENANT, "c0ffee", _running)
        await ticket(plane)
        assert len((await plane.now()).expected) == 16
    finally:
        await plane.close()


def _running(container: Container) -> Container:
    return container.model_copy(update={"state": container.state.model_copy(update={"status": "running"})})


async def test_an_attachment_waits_for_an_agent_longer_than_a_broken_stream_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its gateway died, and the agent is on its way still: it waits at another one, as long as that lives."""
    assert stream_dial._STOOD_SECONDS < streams._BOUNCE_SECONDS
    monkeypatch.setattr(streams, "_BOUNCE_SECONDS", 0.2)
    monkeypatch.setattr(stream_dial, "_STOOD_SECONDS", 0.1)
    monkeypatch.setattr(stream_dial, "GRACE_SECONDS", 0.8)
    async with two() as (first, second, place):
        place.url = second.url
        stream = await RemoteRelay(first.url, KEY, place.where).open(TENANT, "c1", "attach", {})
        await first.stop(0)
        await eventually(lambda: place.asked > 5)
        await asyncio.sleep(1.0)
        assert not stream.ended
        agent = FakeAgent(second.url, "c1", echo)
        await agent.connect()
        await stream.send(b"here")
        await stream.send_eof()
        assert b"".join([chunk async for chunk in stream.chunks()]) == b"here"
        await agent.close()


async def test_a_client_that_is_known_to_have_gone_delays_no_start() -> None:
    async with two() as (first, _, __):
        gone, coming = new_stream_id(), new_stream_id()
        stream = Stream()
        await RemoteRelay(first.url, KEY).join(stream, gone, mint_ticket(KEY, TENANT, "c1", "attach", gone, {}))
        await eventually(lambda: first._streams.waiting("c1"))
        await stream.close()
        await eventually(lambda: not first._streams.waiting("c1"))
        first.plane.welcome = {"action": "wait", "streams": [gone, coming]}
        agent = FakeAgent(first.url, "c1", echo)
        await agent.connect()
        await agent.welcomed.wait()
        assert [m["streams"] for m in agent.messages if m["type"] == "welcome"] == [[coming]]
        await first.agents.call(TENANT, "c1", "start", {"spec": {}, "streams": [gone, coming]})
        assert [m["params"]["streams"] for m in agent.messages if m["type"] == "call"] == [[coming]]
        await agent.close()
