"""The Cloud Functions backend where calls fail, answers are lost and processes crash: nothing twice, nothing left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from local_cloud.faults import Fault
from tests.contract.cloud_functions_world import ID, World, container, until
from tests.contract.cloud_functions_world import world as world


@pytest.mark.parametrize("lost", ["Functions.CreateFunction", "Services.UpdateService", "Functions.DeleteFunction"])
async def test_a_lost_answer_makes_nothing_twice_and_leaves_nothing(world: World, lost: str) -> None:
    world.fail_once(lost, Fault(lost_response=True))
    backend = world.backend()
    execution = await backend.run(container(), world.image, "token")
    await world.invoked()
    assert world.resources()["functions"] == 1
    world.end(0)
    await world.outcome(backend, execution)
    await backend.remove(container(execution=execution))
    await until(lambda: not world.resources())


@pytest.mark.parametrize(
    "fails",
    ["Functions.CreateFunction", "Services.UpdateService", "Functions.DeleteFunction", "Metadata.IdentityToken"],
)
async def test_what_fails_in_passing_is_tried_again(world: World, fails: str) -> None:
    of_call = fails.startswith("Metadata")
    world.fail_once(fails, Fault(status="UNAVAILABLE") if of_call else Fault(operation_error="INTERNAL"))
    backend = world.backend()
    execution = await backend.run(container(), world.image, "token")
    await world.invoked()
    world.end(0)
    await world.outcome(backend, execution)
    await backend.remove(container(execution=execution))
    await until(lambda: not world.resources())


async def test_two_control_planes_deploy_one_function(world: World) -> None:
    first, second = world.backend(), world.backend()
    await asyncio.gather(
        first.prepare(container(), world.image, "one"), second.prepare(container(), world.image, "two")
    )
    assert world.resources() == {"functions": 1, "run.services": 1}
    assert list(world.records.kept) == ["skls-abababababab"]
    await second.run(container(), world.image, "two")
    assert (await world.invoked())["body"]["token"] == "two"


async def test_with_a_fifth_of_all_calls_failing_every_container_ends_right_and_nothing_is_left(world: World) -> None:
    refused, lost = Fault(status="UNAVAILABLE", probability=0.1), Fault(lost_response=True, probability=0.1)
    broken = Fault(operation_error="INTERNAL", probability=0.1)
    # A lost answer of the invocation itself would need a control plane: it tells the next instance's agent to end.
    world.cloud.calls.set_faults({"Functions.Invoke": refused, "[FSMO]*": [refused, lost, broken]})
    backend = world.backend(pool=1)

    async def one(number: int) -> int | None:
        held = container(f"{number:02x}" * 32)
        execution = await backend.run(held, world.image, "token")
        await world.invoked(container=held.id)
        world.end(number, held.id)
        outcome = await world.outcome(backend, execution)
        await backend.remove(held.model_copy(update={"execution": execution}))
        return outcome.exit_code

    assert await asyncio.gather(*(one(number) for number in range(1, 6))) == [1, 2, 3, 4, 5]
    await backend._made.close()
    world.cloud.calls.set_faults({})
    await backend.sweep(set())
    for record in list(world.records.kept.values()):
        await world.records.put(record.model_copy(update={"changed_at": 0.0}))
    await backend.sweep(set())
    await until(lambda: not world.resources())
    assert world.records.kept == {}


async def test_the_sweep_finds_what_crashes_left(world: World) -> None:
    backend = world.backend(pool=1)
    first = await backend.run(container(), world.image, "token")
    await world.invoked()
    await until(lambda: any(not one.container for one in world.records.kept.values()))
    assert await backend.sweep({ID}) == 0
    world.records.kept.pop(first.job)
    assert await backend.sweep({ID}) == 0  # its label says whose it is
    assert await backend.sweep(set()) == 1
    (spare,) = world.records.kept.values()
    assert await backend.sweep(set()) == 0  # it is kept ready
    await world.records.put(spare.model_copy(update={"changed_at": 0.0}))
    assert await backend.sweep(set()) == 1
    assert world.records.kept == {}
    await until(lambda: not world.resources())


async def test_a_record_without_function_is_forgotten(world: World) -> None:
    backend = world.backend()
    await backend.prepare(container(), world.image, "token")
    (record,) = world.records.kept.values()
    await backend._functions.delete(record.name)
    assert await backend.sweep({ID}) == 0
    assert world.records.kept == {}


async def test_a_service_whose_function_is_gone_is_removed_and_a_strangers_is_not(world: World) -> None:
    backend = world.backend()
    client = await backend._clients.services()
    image = f"{world.image.repository}@{world.image.manifest_digest}"
    ours = {"managed-by": "sockerless", "sockerless-endpoint": "sockerless"}
    for name, labels in {"skls-left": ours, "theirs": ours | {"sockerless-endpoint": "another"}}.items():
        service: Any = {"labels": labels, "template": {"containers": [{"image": image}]}}
        request: Any = {"parent": "projects/local/locations/us-central1", "service_id": name, "service": service}
        await (await client.create_service(request=request)).result()
    assert await backend.sweep(set()) == 1
    await until(lambda: world.resources() == {"run.services": 1})
