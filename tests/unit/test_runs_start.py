"""Starting containers: one execution per run, whatever order things happen in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from control_plane.errors import Conflict, GatewayTimeout, InvalidParameter, NotModified, ServerError, Unavailable
from control_plane.model import ZERO_TIME, Image, Mount
from control_plane.services.gateways import Gateways
from control_plane.services.records import Records
from control_plane.services.run_settings import RunSettings
from control_plane.services.watching import reach
from control_plane.store.base import Document
from tests.unit.run_world import FAST, TENANT, Program, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.close()


async def test_start_returns_when_the_process_runs(world: World) -> None:
    container = await world.create()
    await world.services.runs.start(TENANT, "web")
    running = await world.get(container)
    assert (running.state.status, running.state.run, running.state.pid) == ("running", 1, 101)
    assert running.lease is None
    assert running.execution is not None
    assert running.execution.name == "exec-1"
    assert running.agent is not None
    assert running.agent.connected
    assert world.sink.actions == ["start"]


async def test_starting_a_running_container_changes_nothing(world: World) -> None:
    await world.create()
    await world.services.runs.start(TENANT, "web")
    with pytest.raises(NotModified):
        await world.services.runs.start(TENANT, "web")
    assert world.processes == 1


async def test_two_starts_at_once_make_one_execution(world: World) -> None:
    await world.create()
    await asyncio.gather(*(world.services.runs.start(TENANT, "web") for _ in range(8)))
    assert len(world.cloud.executions) == 1
    assert world.processes == 1


async def test_a_process_that_ends_at_once_was_started(world: World) -> None:
    container = await world.create()
    world.program = Program(exits=42)
    await world.services.runs.start(TENANT, "web")
    await world.settle()
    ended = await world.get(container)
    assert (ended.state.status, ended.state.exit_code, ended.state.pid) == ("exited", 42, 0)
    assert world.sink.actions == ["start", "die"]
    assert world.sink.told[1][1]["exitCode"] == "42"


@pytest.mark.parametrize(
    ("code", "text", "refusal"),
    [
        (127, 'exec: "nope": executable file not found in $PATH: unknown', InvalidParameter),
        (126, "permission denied", InvalidParameter),
        (125, "the mount could not be made", ServerError),
    ],
)
async def test_a_command_that_cannot_be_started(world: World, code: int, text: str, refusal: type[Exception]) -> None:
    container = await world.create()
    world.program = Program(fails=(code, text))
    with pytest.raises(refusal, match=text.split(":")[0]):
        await world.services.runs.start(TENANT, "web")
    failed = await world.get(container)
    assert (failed.state.status, failed.state.exit_code, failed.state.error) == ("created", code, text)
    assert failed.state.started_at == ZERO_TIME
    world.program = Program()
    await world.services.runs.start(TENANT, "web")
    again = await world.get(container)
    assert (again.state.status, again.state.run, again.state.error) == ("running", 2, "")
    assert len(world.cloud.executions) == 1  # the lingering agent served the second run


async def test_a_failed_start_removes_itself_when_asked_to(world: World) -> None:
    container = await world.create(host={"AutoRemove": True})
    world.program = Program(fails=(127, "no such file or directory"))
    with pytest.raises(InvalidParameter, match="no such file"):
        await world.services.runs.start(TENANT, "web")
    await world.settle()
    assert await world.containers.records.get(TENANT, container.id) is None


async def test_the_cloud_refuses(world: World) -> None:
    container = await world.create()
    world.cloud.refuses = Unavailable("quota exceeded")
    with pytest.raises(Unavailable, match="quota"):
        await world.services.runs.start(TENANT, "web")
    failed = await world.get(container)
    assert (failed.state.status, failed.state.error, failed.lease) == ("created", "quota exceeded", None)


async def test_no_report_within_the_deadline(tmp_path: Path) -> None:
    world = World(tmp_path, RunSettings(instance="test", start_timeout=0.2))
    container = await world.create()
    world.cloud.connects = False
    with pytest.raises(GatewayTimeout, match="did not start within"):
        await world.services.runs.start(TENANT, "web")
    await world.settle()
    failed = await world.get(container)
    assert failed.state.status == "created"
    assert world.cloud.cancelled == ["exec-1"]
    await world.close()


async def test_the_second_run_uses_the_lingering_agent(world: World) -> None:
    container = await world.create()
    world.program = Program(exits=0)
    for run in (1, 2, 3):
        await world.services.runs.start(TENANT, "web")
        await world.settle()
        assert (await world.get(container)).state.run == run
    assert len(world.cloud.executions) == 1
    assert [spec["run"] for spec in world.specs] == [1, 2, 3]


async def test_a_lost_lingering_agent_means_a_new_execution(world: World) -> None:
    container = await world.create()
    world.program = Program(exits=0)
    await world.services.runs.start(TENANT, "web")
    await world.settle()
    world.all_agents[0].disconnect()  # nobody has told the control plane yet
    await world.services.runs.start(TENANT, "web")
    await world.settle()
    again = await world.get(container)
    assert again.agent is not None
    assert again.agent.boot == world.all_agents[1].boot
    assert len(world.cloud.executions) == 2


async def test_started_and_exited_may_come_in_any_order_and_twice(world: World) -> None:
    container = await world.create()
    world.deliver_events = False
    world.program = Program(exits=7)
    start = asyncio.create_task(world.services.runs.start(TENANT, "web"))
    await world.until(container, "starting")
    await world.eventually(lambda: len(world.sent) == 2)
    started, exited = world.sent
    for event in (exited, started, exited, started, exited):
        await world.services.links.report(TENANT, container.id, event)
    await start
    ended = await world.get(container)
    assert (ended.state.status, ended.state.exit_code) == ("exited", 7)
    assert ended.state.started_at == started["at"]
    assert world.sink.actions.count("die") == 1


async def test_events_of_an_earlier_run_change_nothing(world: World) -> None:
    container = await world.create()
    world.program = Program(exits=1)
    await world.services.runs.start(TENANT, "web")
    await world.settle()
    world.program = Program()
    await world.services.runs.start(TENANT, "web")
    running = await world.get(container)
    for event in list(world.sent[:2]):
        await world.services.links.report(TENANT, container.id, event)
    assert await world.get(container) == running


async def test_start_of_a_paused_container_is_refused(world: World) -> None:
    await world.create()
    await world.services.runs.start(TENANT, "web")
    await world.services.runs.pause(TENANT, "web")
    with pytest.raises(Conflict, match="cannot start a paused container, try unpause instead"):
        await world.services.runs.start(TENANT, "web")


async def test_removal_during_the_start_cancels_the_execution(world: World) -> None:
    container = await world.create()
    world.cloud.connects = False
    start = asyncio.create_task(world.services.runs.start(TENANT, "web"))
    await world.until(container, "starting")
    await asyncio.sleep(0.01)
    await world.services.removal.remove(TENANT, "web", force=True)
    with pytest.raises(Conflict, match="marked for removal"):
        await start
    await world.settle()
    assert world.cloud.cancelled == ["exec-1"]
    assert world.cloud.removed == [container.id]


async def test_a_refused_start_is_told_also_when_another_process_hears_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = await world.create(host={"AutoRemove": True})
    watch = world.store.watch

    async def late(*place: Any) -> AsyncIterator[Document | None]:
        """As a watch over the network: what changes twice in a moment is seen once."""
        async for _ in watch(*place):
            await asyncio.sleep(0.05)
            yield await world.store.get("containers", TENANT, container.id)

    monkeypatch.setattr(world.store, "watch", late)
    world.program = Program(fails=(127, 'exec: "nope": executable file not found in $PATH: unknown'))
    asked = world.services
    world.services = world.assemble(replace(world.settings, instance="the one the agent reports to"))
    with pytest.raises(InvalidParameter, match="executable file not found"):
        await asked.runs.start(TENANT, "web")
    await asked.background.settle()
    assert await world.containers.records.get(TENANT, container.id) is None, "removed as soon as it was told"
    await world.settle()


async def test_a_refused_start_that_nobody_waits_for_is_removed_all_the_same(world: World) -> None:
    container = await world.create(host={"AutoRemove": True})
    world.program = Program(fails=(127, "no"))
    starting = asyncio.create_task(world.services.runs.start(TENANT, "web"))
    await world.until(container, "starting")
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert await reach(world.containers.records, container, lambda _: False, 10) is None


async def test_the_launch_spec(world: World) -> None:
    container = await world.create(
        host={"CapAdd": ["NET_ADMIN"], "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}], "Init": True},
        config={
            "Entrypoint": ["/entry"],
            "Cmd": ["a"],
            "Tty": True,
            "StopSignal": "SIGUSR1",
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5},
        },
    )
    volume = Mount(type="volume", name="v", source="x", destination="/data/deep", copy_up=True)
    await world.change(container, mounts=[volume, Mount(type="tmpfs", destination="/data", tmpfs_options="size=1m")])
    await world.services.runs.start(TENANT, "web")
    spec = world.specs[0]
    assert spec["argv"] == ["/entry", "a"]
    assert (spec["tty"], spec["stop_signal"], spec["init"], spec["cap_add"]) == (True, 10, True, ["NET_ADMIN"])
    assert spec["ulimits"] == [{"name": "nofile", "soft": 1, "hard": 2}]
    assert spec["healthcheck"]["interval_ns"] == 5
    assert [mount["target"] for mount in spec["mounts"]] == ["/data", "/data/deep"]
    assert spec["sources"] == ["/.sockerless/volumes/0"]
    assert spec["linger_seconds"] == FAST.linger
    assert spec["hostname"] == container.id[:12]


async def test_other_gateways_are_named_with_whatever_brings_an_agent_up(tmp_path: Path) -> None:
    registered: list[Gateways] = []

    def ports(world: World) -> dict[str, Any]:
        registered.append(Gateways(world.store))
        return {"gateways": registered[-1], "check_stream": lambda shown, stream: (TENANT, stream)}

    world = World(tmp_path, ports=ports)
    try:
        for url in ("http://gw", "http://other"):
            await registered[0].register(url, url, 0, draining=False)
        container = await world.create()
        image = await Records(world.store, "images", Image).get(TENANT, container.image_id)
        assert image is not None
        world.services.preparation.begin(container, image)
        await world.services.background.settle()
        await world.services.runs.start(TENANT, "web")
        await world.services.links.report(TENANT, container.id, {"type": "released", "seq": 9})
        await world.services.background.settle()
        assert world.cloud.gateways == [(asked, "http://other") for asked in ("prepare", "run", "hold")]
    finally:
        await world.close()
