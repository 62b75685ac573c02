"""The Cloud Functions backend against the local cloud, through the official SDKs, with an agent's HTTP face."""

from __future__ import annotations

import asyncio

import pytest

from control_plane.errors import GatewayTimeout, NotServed
from control_plane.model import RunState
from local_cloud.faults import Fault
from tests.contract.cloud_functions_world import ID, World, container, until
from tests.contract.cloud_functions_world import world as world


async def test_a_container_is_deployed_invoked_ended_and_removed_with_few_calls(world: World) -> None:
    backend = world.backend()
    await backend.prepare(container(), world.image, "token", gateways=["http://127.0.0.1:2"])
    assert world.calls() == {
        "Functions.CreateFunction": 1, "Services.GetService": 1, "Services.UpdateService": 1,
    }  # fmt: skip
    world.cloud.calls.reset()
    execution = await backend.run(container(), world.image, "token", gateways=["http://127.0.0.1:3"])
    assert execution.name == "projects/local/locations/us-central1/functions/skls-abababababab"
    assert execution.job == "skls-abababababab"
    said = await world.invoked()
    assert said["body"] == {
        "container": ID, "run": 1, "hold": True, "limit_seconds": 3585.0,
        "callback": "http://127.0.0.1:1 http://127.0.0.1:3", "token": "token",
    }  # fmt: skip
    assert said["env"]["SOCKERLESS_AGENT_MODE"] == "function"
    assert said["env"]["SOCKERLESS_CONTAINER_ID"] == ID
    assert said["env"]["SOCKERLESS_AGENT_TOKEN"] == "token"
    assert said["env"]["SOCKERLESS_AGENT_CALLBACK_URL"] == "http://127.0.0.1:1 http://127.0.0.1:2"
    assert not (await backend.outcome(execution)).finished
    assert await backend.run(container(), world.image, "token") == execution
    assert await backend.find(container(), world.image) == execution
    assert world.calls() == {"Functions.Invoke": 1}
    world.end(7)
    await until(lambda: world.ended)
    assert world.ended == [("acme", ID)]
    assert (await backend.outcome(execution)).exit_code == 7
    world.cloud.calls.reset()
    await backend.remove(container(execution=execution))
    assert world.calls() == {"Functions.DeleteFunction": 1}
    await until(lambda: not world.resources())
    assert world.records.kept == {}
    await backend.remove(container(execution=execution))


async def test_a_start_waits_for_the_deployment_under_way(world: World) -> None:
    backend = world.backend()
    preparing = asyncio.create_task(backend.prepare(container(), world.image, "token"))
    await asyncio.sleep(0)
    await backend.run(container(), world.image, "token")
    await preparing
    await world.invoked()
    assert world.calls()["Functions.CreateFunction"] == 1


async def test_a_start_says_when_the_deployment_takes_too_long_and_the_next_one_finds_it(world: World) -> None:
    backend = world.backend(start_timeout=0.3)
    world.cloud.calls.set_faults({"Functions.CreateFunction": Fault(operation_delay=1.0)})
    with pytest.raises(GatewayTimeout, match="SOCKERLESS_GCF_START_TIMEOUT"):
        await backend.run(container(), world.image, "token")
    await until(lambda: world.records.kept)
    later = world.backend(start_timeout=30)
    await later.run(container(), world.image, "token")
    assert world.calls()["Functions.CreateFunction"] == 1


async def test_a_later_run_invokes_the_same_function_again(world: World) -> None:
    backend = world.backend()
    first = await backend.run(container(), world.image, "token")
    before = await world.invoked()
    world.end(0)
    await world.outcome(backend, first)
    again = container(state=RunState(run=2, status="starting"), execution=first)
    second = await backend.run(again, world.image, "token")
    said = await world.invoked(2)
    assert said["body"]["run"] == 2
    assert said["pid"] != before["pid"]  # a fresh instance
    assert (second.job, second.first_run) == (first.job, 2)
    assert world.calls()["Functions.CreateFunction"] == 1


async def test_an_agent_that_lets_go_is_invoked_at_once(world: World) -> None:
    backend = world.backend()
    execution = await backend.run(container(), world.image, "token")
    before = await world.invoked()
    world.end("released")
    said = await world.invoked(2)
    assert said["pid"] == before["pid"]
    assert not (await backend.outcome(execution)).finished


async def test_another_process_takes_over_what_nobody_holds(world: World) -> None:
    first = world.backend()
    execution = await first.run(container(), world.image, "token")
    before = await world.invoked()
    await first.close()
    world.backends.remove(first)
    second = world.backend()
    await second.hold(container(execution=execution))
    said = await world.invoked(2)
    assert said["pid"] == before["pid"]
    assert said["body"]["token"].count(".") == 2  # an agent token of the endpoint's
    world.end(4)
    assert (await world.outcome(second, execution)).exit_code == 4


async def test_an_outcome_asked_for_elsewhere_is_that_it_lives_as_long_as_it_is_held(world: World) -> None:
    holder, other = world.backend(), world.backend()
    execution = await holder.run(container(), world.image, "token")
    await world.invoked()
    assert not (await other.outcome(execution)).finished
    await until(lambda: world.calls()["Functions.Invoke"] == 2)
    assert not (await other.outcome(execution)).finished
    assert (await holder.outcome(execution)).finished is False
    assert len(world.seen()) == 1


async def test_cancel_deletes_the_function_and_the_next_start_deploys_another(world: World) -> None:
    backend = world.backend()
    execution = await backend.run(container(), world.image, "token")
    await world.invoked()
    await backend.cancel(execution)
    assert (await world.outcome(backend, execution)).exit_code is None
    await backend.cancel(execution)
    await until(lambda: not world.resources())
    await backend.run(container(state=RunState(run=2)), world.image, "token")
    await world.invoked(2)
    assert world.calls()["Functions.CreateFunction"] == 2


async def test_removal_during_the_deployment_leaves_nothing(world: World) -> None:
    backend = world.backend()
    world.cloud.calls.set_faults({"Functions.CreateFunction": Fault(operation_delay=0.5)})
    preparing = asyncio.create_task(backend.prepare(container(), world.image, "token"))
    await until(lambda: world.calls().get("Functions.CreateFunction"))
    await backend.remove(container())
    await preparing
    await until(lambda: not world.resources())
    assert world.records.kept == {}


async def test_output_is_found_by_service_and_container(world: World) -> None:
    backend = world.backend()
    execution = await backend.run(container(), world.image, "token")
    await world.invoked()
    world.end(0)
    await world.outcome(backend, execution)
    held = container(execution=execution, state=RunState(run=1, status="exited"))
    async with asyncio.timeout(20):
        lines = [line async for line in backend.logs(held, since=None, until=None, tail=None, follow=True)]
    assert [(line.stream, line.text) for line in lines] == [("stdout", b"run 1\n")]


async def test_nothing_runs_without_agent(world: World) -> None:
    with pytest.raises(NotServed, match="without agent"):
        await world.backend().run(container(), world.image, "token", agentless=True)
