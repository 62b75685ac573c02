"""The Cloud Functions backend against the local cloud, through the official SDKs, with an agent's HTTP face."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from control_plane.backends.base import RunOutcome
from control_plane.backends.cloud_functions.backend import CloudFunctionsBackend
from control_plane.backends.cloud_functions.settings import CloudFunctionsSettings, load_settings
from control_plane.backends.gcp.clients import Clients, Endpoint
from control_plane.backends.minute_quota import MinuteQuota
from control_plane.errors import GatewayTimeout, NotServed
from control_plane.model import Container, Execution, Image, Mount, RunState
from local_cloud.faults import Fault
from local_cloud.runtime.api import RunSpec
from local_cloud.server import LocalCloud
from tests.contract import function_agent, local_gcp_fixtures
from tests.contract.test_cloud_run_on_local_cloud import Images, _digest
from tests.unit.cloud_function_records import MemoryRecords

ID, OTHER = "ab" * 32, "cd" * 32
KEY = b"k" * 32


class AgentRuntime(local_gcp_fixtures.ProcessRuntime):
    """Runs the agent's HTTP face in place of the agent."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    async def run(self, spec: RunSpec) -> int:
        assert spec.argv[0] == "/.sockerless/agent"
        face = (sys.executable, str(function_agent.__file__), str(self._directory))
        return await super().run(replace(spec, argv=face))


@dataclass
class World:
    cloud: LocalCloud
    records: MemoryRecords
    image: Image
    agents: Path
    backends: list[CloudFunctionsBackend]
    ended: list[tuple[str, str]]

    def settings(self, **changes: Any) -> CloudFunctionsSettings:
        plain: dict[str, Any] = {
            "project": "local", "bucket": "volumes-bucket", "gcp_endpoint": self.cloud.grpc_target, "pool": 0,
            "storage_endpoint": self.cloud.http_url, "log_drain": 0.2, "writes_per_minute": 0,
            "log_reads_per_minute": 0, "start_timeout": 20.0, "sweep_grace": 0.0,
        }  # fmt: skip
        return load_settings(**(plain | changes))

    def backend(self, **changes: Any) -> CloudFunctionsBackend:
        clients = Clients(Endpoint(grpc=self.cloud.grpc_target, storage=self.cloud.http_url))
        writes = MinuteQuota("writes", 0)
        made = CloudFunctionsBackend(self.settings(**changes), clients, Images(), self.records, KEY, writes)
        made.follow(lambda tenant, container: self.ended.append((tenant, container)))
        self.backends.append(made)
        return made

    def calls(self) -> dict[str, int]:
        """Without polls, and what is read of images and tokens."""
        counts = {name: count for name, count in self.cloud.calls.counts().items() if count}
        others = ("Operations.", "Registry.", "Storage.", "Metadata.")
        return {name: count for name, count in counts.items() if not name.startswith(others)}

    def seen(self, container: str = ID) -> list[dict[str, Any]]:
        path = self.agents / f"{container}.seen"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    async def invoked(self, times: int = 1, container: str = ID) -> dict[str, Any]:
        await until(lambda: len(self.seen(container)) >= times)
        return self.seen(container)[-1]

    def end(self, said: str | int, container: str = ID) -> None:
        part = self.agents / f"{container}.part"
        part.write_text(str(said))
        part.rename(self.agents / f"{container}.end")

    async def outcome(self, backend: CloudFunctionsBackend, execution: Execution) -> RunOutcome:
        async with asyncio.timeout(20):
            while not (found := await backend.outcome(execution)).finished:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return found

    def resources(self) -> dict[str, int]:
        google: Any = self.cloud._google
        return {name: count for name, count in google.resources().items() if count}

    def fail_once(self, method: str, fault: Fault) -> None:
        """The next call of a method goes wrong, those after it do not."""
        calls = self.cloud.calls
        plain = calls.before
        calls.set_faults({method: fault})

        async def before(called: str) -> Fault | None:
            try:
                return await plain(called)
            finally:
                if called == method:
                    calls.set_faults({})

        calls.before = before  # type: ignore[method-assign,assignment]


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 (what is waited for is another process's)
            await asyncio.sleep(0.01)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    agents = tmp_path / "agents"
    agents.mkdir()
    runtime = AgentRuntime(agents)
    async with local_gcp_fixtures.local_cloud(tmp_path / "cloud", runtime, stop_grace=0.2) as (cloud, _):
        reference = await local_gcp_fixtures.push(cloud.http_url, "local/apps/tool:latest")
        image = Image(
            id="sha256:1", tenant="acme", created_at="", tags=["tool:latest"],
            repository=reference.rpartition(":")[0], config={"config": {}},
            manifest_digest=(await _digest(cloud.http_url, "local/apps/tool")).strip(),
        )  # fmt: skip
        made = World(cloud, MemoryRecords(), image, agents, [], [])
        try:
            yield made
        finally:
            for backend in made.backends:
                await backend.close()
            await runtime.end()


def container(id: str = ID, **changes: Any) -> Container:
    plain = Container(
        id=id, tenant="acme", name="c", created_at="", image="tool", image_id="sha256:1", config={"Cmd": ["x"]},
        host_config={}, backend="gcf", gateway="http://127.0.0.1:1", state=RunState(run=1, status="starting"),
    )  # fmt: skip
    return plain.model_copy(update=changes)


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
