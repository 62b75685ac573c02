"""Runs on platforms that keep a container by requests: prepared ahead, held, refused late, never agentless."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.backends.base import Capabilities, RunOutcome
from control_plane.errors import ServerError
from control_plane.model import Container, Image
from control_plane.services.records import Records
from tests.unit.run_world import IMAGE_ID, TENANT, Agent, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    world.cloud.capabilities = Capabilities("fake", "Fake", 3600, agentless=False, enforces_limit=False)
    yield world
    await world.close()


async def _image(world: World) -> Image:
    images: Records[Image] = Records(world.store, "images", Image)
    image = await images.get(TENANT, IMAGE_ID)
    assert image is not None
    return image


async def _running(world: World) -> Container:
    container = await world.create()
    await world.services.runs.start(TENANT, container.id)
    return await world.until(container, "running")


async def test_a_container_is_prepared_in_the_background(world: World) -> None:
    container = await world.create()
    world.services.preparation.begin(container, await _image(world))
    assert world.cloud.prepared == []
    await world.settle()
    assert world.cloud.prepared == [container.id]
    assert world.cloud.removed == []


async def test_what_was_made_for_a_container_that_is_gone_is_freed(world: World) -> None:
    container = await world.create()
    image = await _image(world)
    await world.services.removal.remove(TENANT, container.id)
    await world.settle()
    assert world.cloud.removed == [container.id], "also when it never ran"
    world.services.preparation.begin(container, image)
    await world.settle()
    assert world.cloud.removed == [container.id, container.id]


async def test_an_instance_that_nothing_holds_is_asked_for_again(world: World) -> None:
    container = await _running(world)
    agent = world.all_agents[-1]
    await agent.event("released", run=1)
    await world.settle()
    assert world.cloud.held == [container.id]
    agent.boot = "another"
    await agent.event("released", run=1)
    await world.settle()
    assert world.cloud.held == [container.id], "an agent that is not the container's any more has no say"


async def test_a_redialling_agent_tells_that_nothing_holds_its_instance(world: World) -> None:
    container = await _running(world)
    agent = world.all_agents[-1]
    hello = {"boot": agent.boot, "run": 1, "running": True, "gateway": "http://gw"}
    for held, wanted in ((None, []), (True, []), (False, [container.id])):
        await world.services.links.hello(TENANT, container.id, hello | ({} if held is None else {"held": held}))
        await world.settle()
        assert world.cloud.held == wanted


async def test_the_platform_rests_when_the_agent_of_an_ended_run_goes(world: World) -> None:
    container = await _running(world)
    agent = world.all_agents[-1]
    agent.disconnect()
    await world.services.links.gone(TENANT, container.id, agent.boot)
    assert world.cloud.rested == [], "the run goes on as far as anybody knows"
    await world.services.links.hello(
        TENANT, container.id, {"boot": agent.boot, "run": 1, "running": True, "gateway": "http://gw"}
    )
    await agent.exit(0)
    await world.services.links.gone(TENANT, container.id, agent.boot)
    await world.settle()
    assert world.cloud.rested == [container.id]


async def test_a_start_that_the_platform_refuses_late_fails_with_its_reason(world: World) -> None:
    world.cloud.connects = False
    container = await world.create()
    starting = asyncio.create_task(world.services.runs.start(TENANT, container.id))
    await world.eventually(lambda: bool(world.cloud.executions))
    world.cloud.outcomes["exec-1"] = RunOutcome(finished=True, error="the function may not be invoked (403)")
    world.cloud.tell(TENANT, container.id)
    with pytest.raises(ServerError, match="may not be invoked"):
        await starting
    await world.settle()
    assert world.cloud.cancelled == ["exec-1"]
    assert not any(agentless for _, _, agentless in world.cloud.known), "the command is never run without the agent"


async def test_a_run_limit_is_told(world: World) -> None:
    container = await _running(world)
    await world.all_agents[-1].event("exited", run=1, code=137, oom=False, error="the run limit of 9 s was reached")
    ended = await world.until(container, "exited")
    assert (ended.state.exit_code, ended.state.error) == (137, "the run limit of 9 s was reached")


async def test_a_process_started_anew_in_place_ends_the_run_it_took_the_place_of(world: World) -> None:
    world.cloud.capabilities = Capabilities("fake", "Fake", 3600, agentless=False, restarts_in_place=True)
    container = await _running(world)
    successor = Agent(world, container.id)
    assert await successor.dial() == "shutdown", "the old link is not known to be lost yet"
    ended = await world.until(container, "exited")
    assert (ended.state.exit_code, ended.state.error) == (137, "the agent's process was lost")
    await world.settle()
    assert world.cloud.rested == [container.id]


async def test_elsewhere_another_agent_beside_a_linked_one_changes_nothing(world: World) -> None:
    container = await _running(world)
    assert await Agent(world, container.id).dial() == "shutdown"
    await world.settle()
    assert (await world.get(container)).state.status == "running"
    assert world.cloud.rested == []
