"""Functions that are kept ready, on the local cloud."""

from __future__ import annotations

import pytest

from control_plane.model import Mount
from tests.contract.cloud_functions_world import ID, OTHER, World, container, until
from tests.contract.cloud_functions_world import world as world


async def test_a_ready_function_is_claimed_and_given_back(world: World) -> None:
    backend = world.backend(pool=1)
    first = await backend.run(container(), world.image, "token")
    await world.invoked()
    await until(lambda: any(not one.container for one in world.records.kept.values()))
    world.cloud.calls.reset()
    other = container(OTHER)
    second = await backend.run(other, world.image, "token")
    said = await world.invoked(container=OTHER)
    assert world.calls() == {"Functions.Invoke": 1}
    assert second.job != first.job
    assert "SOCKERLESS_CONTAINER_ID" not in said["env"]
    world.end(0, OTHER)
    await world.outcome(backend, second)
    await backend.remove(other.model_copy(update={"execution": second}))
    assert world.records.kept[second.job].container == ""
    third = await backend.run(container("ef" * 32), world.image, "token")
    assert third.job == second.job
    await world.invoked(container="ef" * 32)


async def test_a_function_whose_container_did_not_end_by_itself_is_not_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.backends.cloud_functions.backend._LAST_WORD", 0.1)
    backend = world.backend(pool=1)
    await backend.prepare(container(OTHER), world.image, "token")
    await until(lambda: any(not one.container for one in world.records.kept.values()))
    execution = await backend.run(container(), world.image, "token")
    assert execution.job != "skls-abababababab"
    await world.invoked()
    await backend.remove(container(execution=execution))
    assert execution.job not in world.records.kept


async def test_a_ready_function_that_is_gone_is_deployed_anew(world: World) -> None:
    backend = world.backend(pool=1)
    await backend.prepare(container(OTHER), world.image, "token")
    await until(lambda: any(not one.container for one in world.records.kept.values()))
    (spare,) = [one for one in world.records.kept.values() if not one.container]
    await backend._functions.delete(spare.name)
    execution = await backend.run(container(), world.image, "token")
    assert execution.job == spare.name
    assert (await world.invoked())["body"]["container"] == ID
    world.end(5)
    assert (await world.outcome(backend, execution)).exit_code == 5


async def test_containers_with_anonymous_volumes_use_no_pool(world: World) -> None:
    backend = world.backend(pool=1)
    mounts = [Mount(type="volume", name="e" * 64, destination="/data")]
    execution = await backend.run(container(mounts=mounts), world.image, "token")
    await world.invoked()
    world.end(0)
    await world.outcome(backend, execution)
    await backend.remove(container(mounts=mounts, execution=execution))
    await until(lambda: not world.resources())
