"""The reconciler ends a run at its tenant's limit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.model import Container
from control_plane.timestamps import rfc3339
from tests.unit.run_world import TENANT, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.close()


async def running(world: World, limit: int, **host: object) -> Container:
    container = await world.create(host=host)
    await world.services.runs.start(TENANT, "web")
    found = await world.until(container, "running")
    long_ago = found.state.model_copy(update={"started_at": rfc3339(1_700_000_000_000_000_000)})
    return await world.change(container, run_limit=limit, state=long_ago)


async def test_a_run_past_its_limit_is_stopped_and_not_restarted(world: World) -> None:
    container = await running(world, 60, RestartPolicy={"Name": "always", "MaximumRetryCount": 0})
    await world.services.reconciler.pass_once()
    await world.services.background.settle()
    ended = await world.until(container, "exited")
    assert (ended.state.exit_code, ended.state.stop_requested) == (143, True)


@pytest.mark.parametrize("limit", [0, 3600])
async def test_the_platforms_own_limit_is_left_to_it(world: World, limit: int) -> None:
    container = await running(world, limit)
    await world.services.reconciler.pass_once()
    await world.services.background.settle()
    assert (await world.get(container)).state.status == "running"
