"""Stopping, killing, pausing, restarting; policies and automatic removal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.backends.base import RunOutcome
from control_plane.errors import Conflict, InvalidParameter, NotFound, NotModified, ServerError
from control_plane.services.prune_filters import PruneFilters
from tests.unit.run_world import TENANT, Program, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.close()


async def test_stop_sends_the_stop_signal_and_waits(world: World) -> None:
    container = await world.create(config={"StopSignal": "SIGUSR2"})
    world.program = Program(signals={12: 3})
    await world.services.runs.start(TENANT, "web")
    await world.services.runs.stop(TENANT, "web")
    stopped = await world.get(container)
    assert (stopped.state.status, stopped.state.exit_code) == ("exited", 3)
    assert [a for a in world.sink.actions if a != "start"] in (["kill", "die", "stop"], ["die", "kill", "stop"])
    with pytest.raises(NotModified):
        await world.services.runs.stop(TENANT, "web")


async def test_stop_kills_after_the_grace(world: World) -> None:
    container = await world.create()
    world.program = Program(signals={9: 137})
    await world.services.runs.start(TENANT, "web")
    await world.services.runs.stop(TENANT, "web", grace=0)
    assert (await world.get(container)).state.exit_code == 137
    signals = [params["signal"] for method, params in world.all_agents[0].calls if method == "signal"]
    assert signals == [15, 9]


async def test_stop_of_an_unreachable_agent_asks_the_cloud(world: World) -> None:
    container = await world.create()
    await world.services.runs.start(TENANT, "web")
    world.all_agents[0].disconnect()
    world.cloud.outcomes["exec-1"] = RunOutcome(finished=True, exit_code=77)
    await world.services.runs.stop(TENANT, "web")
    stopped = await world.get(container)
    assert (stopped.state.status, stopped.state.exit_code) == ("exited", 77)
    assert world.cloud.cancelled == ["exec-1"]


async def test_stop_during_the_start_waits_for_it_within_the_grace(world: World) -> None:
    container = await world.create()
    world.deliver_events = False
    start = asyncio.create_task(world.services.runs.start(TENANT, "web"))
    await world.until(container, "starting")
    stop = asyncio.create_task(world.services.runs.stop(TENANT, "web", grace=5))
    await world.eventually(lambda: bool(world.sent))
    world.deliver_events = True
    await world.services.links.report(TENANT, container.id, world.sent[0])
    await asyncio.gather(start, stop)
    assert (await world.get(container)).state.exit_code == 143


async def test_stop_of_a_start_that_never_ends_gives_it_up(world: World) -> None:
    container = await world.create()
    world.cloud.connects = False
    start = asyncio.create_task(world.services.runs.start(TENANT, "web"))
    await world.until(container, "starting")
    await asyncio.sleep(0.01)
    await world.services.runs.stop(TENANT, "web", grace=0)
    with pytest.raises(ServerError, match="stopped before its process started"):
        await start
    await world.settle()
    assert world.cloud.cancelled == ["exec-1"]


async def test_kill_texts(world: World) -> None:
    container = await world.create()
    with pytest.raises(Conflict, match=f"cannot kill container: web: container {container.id} is not running"):
        await world.services.runs.kill(TENANT, "web")
    with pytest.raises(InvalidParameter, match="cannot kill container: web: invalid signal: NOPE"):
        await world.services.runs.kill(TENANT, "web", "NOPE")
    with pytest.raises(NotFound, match="cannot kill container: nobody: No such container: nobody"):
        await world.services.runs.kill(TENANT, "nobody")


async def test_kill_with_another_signal_only_delivers_it(world: World) -> None:
    container = await world.create()
    await world.services.runs.start(TENANT, "web")
    await world.services.runs.kill(TENANT, "web", "SIGHUP")
    assert (await world.get(container)).state.status == "running"
    await world.services.runs.kill(TENANT, "web")
    assert (await world.get(container)).state.exit_code == 137
    signals = [fields["signal"] for action, fields in world.sink.told if action == "kill"]
    assert signals == ["1", "9"]


async def test_exit_that_races_the_stop(world: World) -> None:
    container = await world.create()
    await world.services.runs.start(TENANT, "web")
    await asyncio.gather(world.services.runs.stop(TENANT, "web"), world.all_agents[0].exit(0))
    assert (await world.get(container)).state.status == "exited"
    assert world.sink.actions.count("die") == 1


async def test_pause_and_unpause(world: World) -> None:
    container = await world.create()
    with pytest.raises(Conflict, match=f"container {container.id} is not running"):
        await world.services.runs.pause(TENANT, "web")
    await world.services.runs.start(TENANT, "web")
    with pytest.raises(ServerError, match=f"Container {container.id} is not paused"):
        await world.services.runs.unpause(TENANT, "web")
    await world.services.runs.pause(TENANT, "web")
    assert (await world.get(container)).state.status == "paused"
    with pytest.raises(Conflict, match=f"Container {container.id} is already paused"):
        await world.services.runs.pause(TENANT, "web")
    await world.services.runs.unpause(TENANT, "web")
    assert (await world.get(container)).state.status == "running"
    assert world.sink.actions == ["start", "pause", "unpause"]


async def test_kill_ends_a_paused_container(world: World) -> None:
    container = await world.create()
    world.program = Program(signals={9: 137})
    await world.services.runs.start(TENANT, "web")
    await world.services.runs.pause(TENANT, "web")
    await world.services.runs.kill(TENANT, "web")
    assert (await world.get(container)).state.exit_code == 137
    assert "unpause" not in world.sink.actions


async def test_stop_thaws_a_paused_container(world: World) -> None:
    container = await world.create()
    await world.services.runs.start(TENANT, "web")
    await world.services.runs.pause(TENANT, "web")
    await world.services.runs.stop(TENANT, "web")
    assert (await world.get(container)).state.status == "exited"
    assert "unpause" in [method for method, _ in world.all_agents[0].calls]


async def test_restart_keeps_the_file_system_and_does_not_remove(world: World) -> None:
    container = await world.create(host={"AutoRemove": True})
    await world.services.runs.start(TENANT, "web")
    await world.services.runs.restart(TENANT, "web")
    again = await world.get(container)
    assert (again.state.status, again.state.run, again.restart_count) == ("running", 2, 0)
    assert len(world.cloud.executions) == 1
    assert world.sink.actions[-2:] == ["start", "restart"]


async def test_restart_starts_a_stopped_container(world: World) -> None:
    container = await world.create()
    await world.services.runs.restart(TENANT, "web")
    assert (await world.get(container)).state.status == "running"
    world.cloud.refuses = Conflict("nope")
    await world.services.runs.stop(TENANT, "web")
    world.all_agents[0].disconnect()
    with pytest.raises(ServerError, match="Cannot restart container web: nope"):
        await world.services.runs.restart(TENANT, "web")


async def test_policy_on_failure_counts_its_restarts(world: World) -> None:
    container = await world.create(host={"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}})
    world.program = Program(exits=1)
    await world.services.runs.start(TENANT, "web")
    ended = await world.until(container, "exited")
    assert (ended.restart_count, ended.state.run, ended.state.exit_code) == (2, 3, 1)
    assert ended.state.restart_delay == pytest.approx(0.2)
    assert world.processes == 3


async def test_policy_does_not_apply_after_a_stop(world: World) -> None:
    container = await world.create(host={"RestartPolicy": {"Name": "always"}})
    await world.services.runs.start(TENANT, "web")
    await world.services.runs.stop(TENANT, "web")
    await world.settle()
    assert (await world.get(container)).state.status == "exited"


async def test_stop_between_two_runs(world: World) -> None:
    container = await world.create(host={"RestartPolicy": {"Name": "always"}})
    world.program = Program(exits=0)
    await world.services.runs.start(TENANT, "web")
    await world.until(container, "restarting")
    await world.services.runs.stop(TENANT, "web")
    processes = world.processes
    await world.settle()
    assert (await world.get(container)).state.status == "exited"
    assert world.processes == processes


async def test_automatic_removal(world: World) -> None:
    container = await world.create(host={"AutoRemove": True})
    world.program = Program(exits=5)
    await world.services.runs.start(TENANT, "web")
    await world.settle()
    assert await world.containers.records.get(TENANT, container.id) is None
    assert await world.containers.names.holder(TENANT, "web") is None
    assert world.sink.actions == ["start", "die", "destroy"]
    assert world.volumes.asked == [container.id]
    assert world.cloud.removed == [container.id]
    assert not world.all_agents[0].shut_down  # it ends by itself, once its output is delivered
    assert world.specs[0]["linger_seconds"] == 0


async def test_rm_of_a_running_container(world: World) -> None:
    container = await world.create()
    await world.services.runs.start(TENANT, "web")
    text = 'cannot remove container "web": container is running: stop the container before removing or force remove'
    with pytest.raises(Conflict, match=text):
        await world.services.removal.remove(TENANT, "web")
    await world.services.removal.remove(TENANT, "web", force=True)
    assert await world.containers.records.get(TENANT, container.id) is None
    assert world.sink.actions == ["start", "kill", "die", "destroy"]
    assert world.sink.told[2][1]["exitCode"] == "137"
    await world.settle()
    assert world.all_agents[0].shut_down
    assert world.cloud.removed == [container.id]
    assert world.volumes.asked == []


async def test_rm_of_a_paused_container(world: World) -> None:
    await world.create()
    await world.services.runs.start(TENANT, "web")
    await world.services.runs.pause(TENANT, "web")
    with pytest.raises(Conflict, match="container is paused and must be unpaused first"):
        await world.services.removal.remove(TENANT, "web")


async def test_forced_rm_goes_on_without_the_agent(world: World) -> None:
    await world.create()
    await world.services.runs.start(TENANT, "web")
    world.all_agents[0].disconnect()
    await world.services.removal.remove(TENANT, "web", force=True)
    await world.settle()
    assert world.cloud.cancelled == ["exec-1"]
    assert world.sink.actions.count("die") == 1


async def test_rm_of_a_stopped_container_ends_its_lingering_agent(world: World) -> None:
    await world.create()
    world.program = Program(exits=0)
    await world.services.runs.start(TENANT, "web")
    await world.settle()
    await world.services.removal.remove(TENANT, "web", volumes=True)
    await world.settle()
    assert world.all_agents[0].shut_down
    assert len(world.volumes.asked) == 1


async def test_rm_cancels_where_a_lingering_agent_cannot_be_told(world: World) -> None:
    container = await world.create()
    world.program = Program(exits=0)
    await world.services.runs.start(TENANT, "web")
    await world.settle()
    world.all_agents[0].disconnect()  # with its gateway: nobody has reported that
    await world.services.removal.remove(TENANT, "web")
    await world.settle()
    assert world.cloud.cancelled == ["exec-1"]
    assert world.cloud.removed == [container.id]


async def test_rm_twice_at_once(world: World) -> None:
    await world.create()
    answers = await asyncio.gather(
        *(world.services.removal.remove(TENANT, "web") for _ in range(3)), return_exceptions=True
    )
    assert all(answer is None or isinstance(answer, (Conflict, NotFound)) for answer in answers)
    assert world.sink.actions.count("destroy") == 1


async def test_rm_link_is_refused(world: World) -> None:
    await world.create()
    with pytest.raises(Conflict, match="cannot remove the default link name"):
        await world.services.removal.remove(TENANT, "web", link=True)


async def test_prune(world: World) -> None:
    await world.create("running")
    await world.services.runs.start(TENANT, "running")
    old = await world.change(await world.create("old"), labels={"keep": "no"})
    await world.change(await world.create("kept"), labels={"keep": "yes"})
    report = await world.services.removal.prune(TENANT, PruneFilters({"label!": ["keep=yes"]}))
    assert report == {"ContainersDeleted": [old.id], "SpaceReclaimed": 0}
    nothing = await world.services.removal.prune(TENANT, PruneFilters({"until": ["24h"]}))
    assert nothing["ContainersDeleted"] is None
    with pytest.raises(InvalidParameter, match="invalid filter 'name'"):
        PruneFilters({"name": ["x"]})


async def test_top_and_resize_need_a_running_container(world: World) -> None:
    container = await world.create()
    for refused in (world.services.runs.top(TENANT, "web"), world.services.runs.resize(TENANT, "web", 1, 2)):
        with pytest.raises(Conflict, match=f"container {container.id} is not running"):
            await refused
    await world.services.runs.start(TENANT, "web")
    assert await world.services.runs.top(TENANT, "web") == {"Titles": ["PID"], "Processes": [["1"]]}
    await world.services.runs.resize(TENANT, "web", 24, 80)
    assert ("resize", {"rows": 24, "cols": 80}) in world.all_agents[0].calls
    with pytest.raises(ServerError, match='specifying "p=PID" is not allowed'):
        await world.services.runs.top(TENANT, "web", "-o p=PID")
