"""What crashes leave behind, and what the reconciler makes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from control_plane.backends.base import RunOutcome
from control_plane.errors import ServerError, Unavailable
from control_plane.model import Execution, Lease, StagedArchive
from control_plane.services.container_events import ContainerEvents
from control_plane.services.lifecycle import RestartRequested, StartRequested
from control_plane.services.outcomes import Outcomes
from control_plane.services.watching import reach
from control_plane.store.base import Document, StoreFull
from control_plane.timestamps import rfc3339
from tests.unit.run_world import TENANT, Agent, Program, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.close()


def _lease(operation: str = "start") -> Lease:
    return Lease.model_validate({"operation": operation, "owner": "dead/1", "expires_at": time.time() + 100})


def _outcomes(world: World) -> Outcomes:
    return Outcomes(world.containers.records, ContainerEvents(world.sink))


async def test_killed_before_the_cloud_was_asked(world: World) -> None:
    container = await world.create()
    await _outcomes(world).apply(TENANT, container.id, StartRequested(_lease()))
    await world.another_process()
    await world.services.reconciler.pass_once()
    running = await world.until(container, "running")
    assert running.state.run == 1
    assert world.processes == 1


async def test_killed_between_the_clouds_answer_and_the_second_write(world: World) -> None:
    container = await world.create()
    claimed = await _outcomes(world).apply(TENANT, container.id, StartRequested(_lease()))
    assert claimed is not None
    world.cloud.connects = False
    asked = await world.cloud.run(claimed, None, "token")  # type: ignore[arg-type]
    world.cloud.connects = True
    await world.another_process()
    await world.services.reconciler.pass_once()
    assert (await world.get(container)).execution == asked
    assert len(world.cloud.executions) == 1
    # Its agent comes late, as agents do.
    assert await Agent(world, container.id).dial() == "start"
    assert (await world.get(container)).state.status == "running"


async def test_killed_between_the_clouds_answer_and_the_second_write_when_the_process_ran(world: World) -> None:
    container = await world.create()
    await world.services.runs.start(TENANT, "web")
    await world.change(await world.get(container), execution=None)
    await world.another_process()
    agent = world.all_agents[0]
    assert await agent.dial() == "resume"
    agent.disconnect()
    world.cloud.outcomes["exec-1"] = RunOutcome(finished=True, exit_code=139)
    await world.services.links.gone(TENANT, container.id, agent.boot)
    await world.settle()
    ended = await world.get(container)
    assert (ended.state.status, ended.state.exit_code) == ("exited", 139)
    assert len(world.cloud.executions) == 1


async def test_a_start_refused_for_want_of_room_is_not_made_up_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = await world.create()
    replace = world.store.replace
    full = False

    async def write(document: Document, body: Mapping[str, Any]) -> Document:
        if full:
            raise StoreFull("no space left on device")
        return await replace(document, body)

    async def refuse(*_: object, **__: object) -> Execution:
        nonlocal full
        full = True
        raise ServerError("no space left on device")

    monkeypatch.setattr(world.store, "replace", write)
    monkeypatch.setattr(world.cloud, "run", refuse)
    monkeypatch.setattr("control_plane.services.starts._ROOM_POLL", 0.01)
    with pytest.raises(ServerError, match="no space left"):
        await world.services.runs.start(TENANT, "web")
    assert (await world.get(container)).state.status == "starting"
    full = False
    await world.until(container, "created")
    assert (await world.get(container)).state.error == "no space left on device"


async def test_a_live_start_is_left_alone(world: World) -> None:
    container = await world.create()
    world.cloud.connects = False
    await _outcomes(world).apply(TENANT, container.id, StartRequested(_lease()))
    await world.services.reconciler.pass_once()
    assert world.cloud.executions == {}
    assert (await world.get(container)).state.status == "starting"


async def test_a_repair_that_fails_is_recorded(world: World) -> None:
    container = await world.create()
    await _outcomes(world).apply(TENANT, container.id, StartRequested(_lease()))
    world.cloud.refuses = Unavailable("quota")
    await world.another_process()
    await world.services.reconciler.pass_once()
    failed = await world.get(container)
    assert (failed.state.status, failed.state.error) == ("created", "quota")


async def test_no_agent_means_the_command_runs_alone(world: World) -> None:
    container = await world.create()
    world.cloud.connects = False
    await world.another_process(agent_connect_timeout=0.0)
    start = asyncio.create_task(world.services.runs.start(TENANT, "web"))
    await world.until(container, "starting")
    await reach(world.containers.records, container, lambda c: c.execution is not None, 3)
    await world.services.reconciler.pass_once()
    await start
    running = await world.get(container)
    assert running.state.status == "running"
    assert running.execution is not None
    assert running.execution.agentless
    assert running.execution.name == "exec-2"
    assert world.cloud.cancelled == ["exec-1"]
    # A late agent is turned away, and the exit code comes from the cloud.
    assert await Agent(world, container.id).dial() == "shutdown"
    await world.services.reconciler.pass_once()
    assert (await world.get(container)).state.status == "running"
    world.cloud.outcomes["exec-2"] = RunOutcome(finished=True, exit_code=9)
    await world.services.reconciler.pass_once()
    assert (await world.get(container)).state.exit_code == 9
    assert len(world.cloud.executions) == 2


async def test_killed_in_the_middle_of_the_fall_back(world: World) -> None:
    container = await world.create()
    world.cloud.connects = False
    claimed = await _outcomes(world).apply(TENANT, container.id, StartRequested(_lease()))
    assert claimed is not None
    first = await world.cloud.run(claimed, None, "token")  # type: ignore[arg-type]
    await world.change(claimed, execution=first.model_copy(update={"name": "", "agentless": True}))
    await world.another_process()
    await world.services.reconciler.pass_once()
    running = await world.get(container)
    assert running.state.status == "running"
    assert running.execution is not None
    assert running.execution.name == "exec-2"


async def test_a_running_container_whose_agent_died(world: World) -> None:
    container = await world.create()
    await world.services.runs.start(TENANT, "web")
    exec_id = await world.services.execs.create(TENANT, "web", {"Cmd": ["sleep"]})
    await world.services.execs.start_detached(TENANT, exec_id)
    agent = world.all_agents[0]
    agent.disconnect()
    world.cloud.outcomes["exec-1"] = RunOutcome(finished=True, exit_code=139)
    await world.services.links.gone(TENANT, container.id, agent.boot)
    await world.settle()
    ended = await world.get(container)
    assert (ended.state.status, ended.state.exit_code) == ("exited", 139)
    assert "die" in world.sink.actions
    assert (await world.services.execs.inspect(TENANT, exec_id))["ExitCode"] == 137
    assert world.agents.ended == [container.id]


async def test_an_agent_that_died_just_before_the_cloud_knew(world: World) -> None:
    container = await world.create()
    await world.services.runs.start(TENANT, "web")
    agent = world.all_agents[0]
    agent.disconnect()
    await world.services.links.gone(TENANT, container.id, agent.boot)
    await asyncio.sleep(0)
    world.cloud.outcomes["exec-1"] = RunOutcome(finished=True, exit_code=137)
    await world.settle()
    assert (await world.get(container)).state.status == "exited"


async def test_an_end_that_the_agent_reports_ends_no_streams(world: World) -> None:
    container = await world.create()
    world.program = Program(exits=0)
    await world.services.runs.start(TENANT, "web")
    await world.until(container, "exited")
    await world.settle()
    assert world.agents.ended == []


async def test_a_silent_agent_that_still_runs_is_waited_for(world: World) -> None:
    container = await world.create()
    await world.services.runs.start(TENANT, "web")
    agent = world.all_agents[0]
    agent.disconnect()
    await world.services.links.gone(TENANT, container.id, agent.boot)
    await world.settle()
    silent = await world.get(container)
    assert (silent.state.status, silent.agent and silent.agent.connected) == ("running", False)
    assert await agent.dial() == "resume"
    back = await world.get(container)
    assert back.agent is not None
    assert back.agent.connected


async def test_gone_of_another_boot_changes_nothing(world: World) -> None:
    container = await world.create()
    await world.services.runs.start(TENANT, "web")
    before = await world.get(container)
    await world.services.links.gone(TENANT, container.id, "someone-else")
    assert await world.get(container) == before


async def test_containers_that_died_with_the_machine(world: World) -> None:
    container = await world.create()
    await world.services.runs.start(TENANT, "web")
    world.all_agents[0].disconnect()
    world.cloud.outcomes["exec-1"] = RunOutcome(finished=True, exit_code=3)
    await world.another_process()
    await world.services.reconciler.pass_once()
    ended = await world.get(container)
    assert (ended.state.status, ended.state.exit_code) == ("exited", 3)
    assert ended.agent is not None
    assert not ended.agent.connected
    await world.settle()
    assert world.agents.ended == [container.id]


async def test_an_interrupted_removal_is_finished(world: World) -> None:
    container = await world.create()
    removing = container.state.model_copy(update={"status": "removing"})
    await world.change(container, state=removing, lease=_lease("remove"))
    await world.services.reconciler.pass_once()
    assert await world.containers.records.get(TENANT, container.id) is not None
    await world.another_process()
    await world.services.reconciler.pass_once()
    assert await world.containers.records.get(TENANT, container.id) is None
    assert await world.containers.names.holder(TENANT, "web") is None


async def test_an_overdue_restart_is_done(world: World) -> None:
    container = await world.create(host={"RestartPolicy": {"Name": "always"}})
    world.program = Program(exits=1)
    await world.services.runs.start(TENANT, "web")
    await world.until(container, "restarting")
    await world.another_process()
    waiting = await world.get(container)
    assert waiting.lease is not None
    await world.change(container, lease=waiting.lease.model_copy(update={"expires_at": time.time() - 60}))
    world.program = Program()
    await world.services.reconciler.pass_once()
    assert (await world.until(container, "running")).restart_count == waiting.restart_count


async def test_an_api_restart_cut_in_half_is_finished(world: World) -> None:
    container = await world.create()
    await world.services.runs.start(TENANT, "web")
    await _outcomes(world).apply(TENANT, container.id, RestartRequested(_lease()))
    await world.all_agents[0].exit(0)
    assert (await world.get(container)).state.status == "exited"
    await world.another_process()
    await world.services.reconciler.pass_once()
    assert (await world.get(container)).state.run == 2


async def test_sweep_knows_every_container(world: World) -> None:
    container = await world.create()
    await world.services.reconciler.sweep()
    assert world.cloud.swept == [{container.id}]


async def test_old_execs_are_forgotten_in_two_passes(world: World) -> None:
    await world.create()
    await world.services.runs.start(TENANT, "web")
    execs = world.services.execs
    exec_id = await execs.create(TENANT, "web", {"Cmd": ["true"]})
    await execs.start_detached(TENANT, exec_id)
    await world.all_agents[0].event("exec_exited", exec=exec_id, code=0)
    old = await execs.records.update(
        TENANT, exec_id, lambda current: current.model_copy(update={"created_at": rfc3339(10**18)})
    )
    assert old is not None
    await execs.forget_old(300)
    assert (await execs.inspect(TENANT, exec_id))["CanRemove"] is True
    await execs.forget_old(300)
    assert await execs.records.get(TENANT, exec_id) is None


async def test_a_gateway_that_goes_away_during_the_delivery_fails_no_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = await world.create()
    claimed = await _outcomes(world).apply(TENANT, container.id, StartRequested(_lease()))
    assert claimed is not None
    await world.change(claimed, staged=[StagedArchive(blob="k", path="/", size=1)])

    async def cut_off(*_: object) -> None:
        raise Unavailable("the stream was cut off: going away")

    monkeypatch.setattr(world.services.links._staged, "deliver", cut_off)
    agent = Agent(world, container.id)
    with pytest.raises(Unavailable):
        await agent.dial()
    assert (await world.get(container)).state.status == "starting"
    monkeypatch.undo()
    await world.change(await world.get(container), staged=[])
    assert await agent.dial() == "start"
