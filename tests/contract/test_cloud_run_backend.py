"""The Cloud Run backend through the official SDK against a gRPC server of the SDK's own types."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from control_plane.backends import calls
from control_plane.backends.cloud_run import host_config, sweep
from control_plane.backends.cloud_run.backend import CloudRunBackend
from control_plane.backends.cloud_run.settings import CloudRunSettings, load_settings
from control_plane.backends.gcp.clients import Clients, Endpoint
from control_plane.errors import GatewayTimeout, InvalidParameter, NotFound, NotServed, Unavailable
from control_plane.model import Container, Image, Mount, RunState
from tests.contract.cloud_run_service import PARENT, CloudRun, Fault, serving

TOKEN = "agent-token"
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
ID = "ab" * 32
OTHER = "cd" * 32


class Images:
    def __init__(self) -> None:
        self.layered = 0

    async def stat(self, image: Image, path: str) -> Mapping[str, Any]:
        raise NotFound(path)

    async def ensure_agent_layer(self, image: Image) -> Image:
        self.layered += 1
        return image.model_copy(update={"agent_digest": "sha256:" + "d" * 64})


def container(id: str = ID, run: int = 1, **changes: Any) -> Container:
    plain = Container(
        id=id, tenant="Team A", name="c", created_at="2026-01-01T00:00:00Z", image="busybox", image_id="sha256:1",
        config={"Cmd": ["sh", "-c", "exit 3"], "Env": ["SECRET=hush", "A=1"], "User": ""}, host_config={},
        backend="cloudrun", gateway="http://gateway:1", state=RunState(run=run, status="starting"),
    )  # fmt: skip
    return plain.model_copy(update=changes)


def image(**changes: Any) -> Image:
    plain = Image(
        id="sha256:1", tenant="Team A", created_at="2026-01-01T00:00:00Z", tags=["busybox:latest"],
        repository="127.0.0.1:5000/p/r/busybox", manifest_digest="sha256:" + "a" * 64, config={"config": {}},
    )  # fmt: skip
    return plain.model_copy(update=changes)


def settings(**changes: Any) -> CloudRunSettings:
    return load_settings(project="p", **changes)


@pytest.fixture
async def cloud(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CloudRun]:
    for name, value in {"_FIRST_PAUSE": 0.001, "_FIRST_QUOTA_PAUSE": 0.001, "_LONGEST_PAUSE": 0.01}.items():
        monkeypatch.setattr(calls, name, value)
    async with serving() as served:
        yield served


@pytest.fixture
async def backend(cloud: CloudRun) -> AsyncIterator[CloudRunBackend]:
    made = CloudRunBackend(settings(), Clients(Endpoint(grpc=cloud.address)), Images())
    yield made
    await made.close()


async def test_second_run_of_an_image_and_shape_is_one_write_and_no_read(
    cloud: CloudRun, backend: CloudRunBackend
) -> None:
    first = await backend.run(container(), image(), TOKEN)
    assert cloud.calls == {"RunJob": 2, "CreateJob": 1}
    cloud.calls.clear()
    second = await backend.run(container(OTHER), image(), TOKEN)
    assert cloud.calls == {"RunJob": 1}
    assert first.job == second.job
    assert first.name != second.name


async def test_after_a_restart_of_the_control_plane_the_job_is_found_without_a_read(
    cloud: CloudRun, backend: CloudRunBackend
) -> None:
    await backend.run(container(), image(), TOKEN)
    other = CloudRunBackend(settings(), Clients(Endpoint(grpc=cloud.address)), Images())
    cloud.calls.clear()
    await other.run(container(OTHER), image(), TOKEN)
    assert cloud.calls == {"RunJob": 1}
    await other.close()


async def test_nothing_of_the_users_is_in_the_job_and_the_agents_names_are_in_the_execution(
    cloud: CloudRun, backend: CloudRunBackend
) -> None:
    execution = await backend.run(container(), image(), TOKEN)
    (job,) = cloud.jobs.values()
    assert "hush" not in str(job)
    assert "exit 3" not in str(job)
    main = job.template.template.containers[0]
    assert main.image == "127.0.0.1:5000/p/r/busybox@sha256:" + "d" * 64
    assert list(main.command) == ["/.sockerless/agent"]
    assert job.template.template.max_retries == 0
    assert job.template.template.timeout == timedelta(hours=168)
    env = {e.name: e.value for e in cloud.executions[execution.name].template.containers[0].env}
    assert env == {
        "SOCKERLESS_CALLBACK_URL": "http://gateway:1",
        "SOCKERLESS_CONTAINER_ID": ID,
        "SOCKERLESS_AGENT_TOKEN": TOKEN,
        "SOCKERLESS_RUN": "1",
    }


async def test_the_execution_names_other_gateways_and_the_job_none(cloud: CloudRun, backend: CloudRunBackend) -> None:
    others = ["http://gateway:2", "http://gateway:1", "https://gateway3"]
    execution = await backend.run(container(), image(), TOKEN, gateways=others)
    env = {e.name: e.value for e in cloud.executions[execution.name].template.containers[0].env}
    assert env["SOCKERLESS_CALLBACK_URL"] == "http://gateway:1 http://gateway:2 https://gateway3"
    assert "http://gateway" not in str(cloud.jobs)


async def test_fifty_runs_at_once_of_a_new_image_make_one_job(cloud: CloudRun, backend: CloudRunBackend) -> None:
    cloud.slow_operations = 2
    runs = [backend.run(container(f"{n:064x}"), image(), TOKEN) for n in range(50)]
    executions = await asyncio.gather(*runs)
    assert cloud.writes == {"CreateJob": 1, "RunJob": 51}
    assert len({e.name for e in executions}) == 50


async def test_lost_answer_of_run_job_does_not_run_twice(cloud: CloudRun, backend: CloudRunBackend) -> None:
    await backend.run(container(OTHER), image(), TOKEN)
    cloud.faults["RunJob"] = [Fault(UNAVAILABLE, after=True)]
    execution = await backend.run(container(), image(), TOKEN)
    assert len(cloud.executions) == 2
    assert execution.name in cloud.executions
    assert cloud.calls["ListExecutions"] == 1


async def test_lost_request_of_run_job_is_sent_again(cloud: CloudRun, backend: CloudRunBackend) -> None:
    await backend.run(container(OTHER), image(), TOKEN)
    cloud.faults["RunJob"] = [Fault(UNAVAILABLE), Fault(grpc.StatusCode.RESOURCE_EXHAUSTED)]
    await backend.run(container(), image(), TOKEN)
    assert len(cloud.executions) == 2


async def test_lost_answer_of_create_job_is_success(cloud: CloudRun, backend: CloudRunBackend) -> None:
    cloud.faults["CreateJob"] = [Fault(UNAVAILABLE, after=True)]
    await backend.run(container(), image(), TOKEN)
    assert len(cloud.jobs) == 1
    assert len(cloud.executions) == 1


async def test_a_job_of_the_same_name_that_is_not_ours_is_not_run(cloud: CloudRun, backend: CloudRunBackend) -> None:
    await backend.run(container(), image(), TOKEN)
    (job,) = cloud.jobs.values()
    job.labels = {"made-by": "stranger"}
    cloud.faults["RunJob"] = [Fault(grpc.StatusCode.NOT_FOUND)]
    other = CloudRunBackend(settings(), Clients(Endpoint(grpc=cloud.address)), Images())
    with pytest.raises(Exception, match="not ours"):
        await other.run(container(OTHER), image(), TOKEN)
    await other.close()


async def test_recovering_finds_the_execution_of_a_process_that_is_gone(
    cloud: CloudRun, backend: CloudRunBackend
) -> None:
    first = await backend.run(container(), image(), TOKEN)
    other = CloudRunBackend(settings(), Clients(Endpoint(grpc=cloud.address)), Images())
    again = await other.run(container(), image(), TOKEN, recovering=True)
    assert again.name == first.name
    later = await other.run(container(run=2), image(), TOKEN, recovering=True)
    assert later.name != first.name
    await other.close()


async def test_find_tells_the_newest_execution_up_to_the_run_and_starts_nothing(
    cloud: CloudRun, backend: CloudRunBackend
) -> None:
    assert await backend.find(container(), image()) is None
    await backend.run(container(OTHER), image(), TOKEN)
    assert await backend.find(container(), image()) is None
    first = await backend.run(container(), image(), TOKEN)
    third = await backend.run(container(run=3), image(), TOKEN)
    executions = len(cloud.executions)
    for run, expected in ((1, first), (2, first), (3, third), (4, third)):
        found = await backend.find(container(run=run), image())
        assert found is not None
        assert (found.name, found.first_run) == (expected.name, expected.first_run)
    assert len(cloud.executions) == executions


async def test_run_is_idempotent_within_a_process(cloud: CloudRun, backend: CloudRunBackend) -> None:
    first = await backend.run(container(), image(), TOKEN)
    again = await backend.run(container(), image(), TOKEN)
    assert again.name == first.name


async def test_a_swept_template_is_made_again(cloud: CloudRun, backend: CloudRunBackend) -> None:
    await backend.run(container(), image(), TOKEN)
    cloud.jobs.clear()
    await backend.run(container(OTHER), image(), TOKEN)
    assert len(cloud.jobs) == 1


async def test_exhausted_quota_is_503_and_named(
    cloud: CloudRun, backend: CloudRunBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.backends.cloud_run.jobs._START_DEADLINE", 0.05)
    text = "Quota exceeded for quota metric 'Write requests' and limit 'Write requests per minute' of service 'run'"
    cloud.faults["RunJob"] = [Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, text=text)] * 1000
    with pytest.raises(Unavailable, match="Write requests / Write requests per minute") as caught:
        await backend.run(container(), image(), TOKEN)
    assert caught.value.status == 503


async def test_a_cloud_that_does_not_answer_is_a_timeout_or_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control_plane.backends.cloud_run.jobs._START_DEADLINE", 0.1)
    backend = CloudRunBackend(settings(), Clients(Endpoint(grpc="127.0.0.1:1")), Images())
    with pytest.raises((Unavailable, GatewayTimeout)):
        await backend.run(container(), image(), TOKEN)
    await backend.close()


@pytest.mark.parametrize(
    ("end", "code", "error"),
    [
        ({"exit_code": 42}, 42, ""),
        ({"signal": 9}, 137, ""),
        ({}, 0, ""),
        ({"text": "Image 'x' not found."}, None, "Image 'x' not found."),
    ],
)
async def test_outcome(
    cloud: CloudRun, backend: CloudRunBackend, end: dict[str, Any], code: int | None, error: str
) -> None:
    execution = await backend.run(container(), image(), TOKEN)
    assert not (await backend.outcome(execution)).finished
    cloud.end(execution.name, **end)
    outcome = await backend.outcome(execution)
    assert (outcome.finished, outcome.exit_code, outcome.error) == (True, code, error)
    assert outcome.finished_at is not None
    assert outcome.finished_at.tzinfo is UTC


async def test_outcome_of_an_execution_that_is_gone(cloud: CloudRun, backend: CloudRunBackend) -> None:
    execution = await backend.run(container(), image(), TOKEN)
    cloud.executions.clear()
    outcome = await backend.outcome(execution)
    assert outcome.finished
    assert outcome.exit_code is None


async def test_cancel_is_repeatable(cloud: CloudRun, backend: CloudRunBackend) -> None:
    execution = await backend.run(container(), image(), TOKEN)
    await backend.cancel(execution)
    await backend.cancel(execution)
    cloud.executions.clear()
    await backend.cancel(execution)
    assert cloud.calls["CancelExecution"] == 3


async def test_agentless_runs_the_users_command_in_a_job_of_its_own(cloud: CloudRun, backend: CloudRunBackend) -> None:
    execution = await backend.run(container(), image(), TOKEN, agentless=True)
    assert execution.agentless
    assert execution.job == f"sockerless-{ID[:12]}"
    main = cloud.jobs[f"{PARENT}/jobs/{execution.job}"].template.template.containers[0]
    assert [*main.command, *main.args] == ["sh", "-c", "exit 3"]
    assert main.image == "127.0.0.1:5000/p/r/busybox@sha256:" + "a" * 64
    assert {e.name: e.value for e in main.env} == {"SECRET": "hush", "A": "1"}
    held = container(execution=execution)
    await backend.remove(held)
    await backend.remove(held)
    assert cloud.jobs == {}


async def test_agentless_job_is_updated_when_the_container_was(cloud: CloudRun, backend: CloudRunBackend) -> None:
    await backend.run(container(), image(), TOKEN, agentless=True)
    await backend.run(container(run=2, host_config={"Memory": 2 << 30}), image(), TOKEN, agentless=True)
    assert cloud.calls["UpdateJob"] == 1
    (job,) = cloud.jobs.values()
    assert job.template.template.containers[0].resources.limits["memory"] == "2Gi"


async def test_agentless_refuses_another_user(backend: CloudRunBackend) -> None:
    with pytest.raises(NotServed, match="--user"):
        await backend.run(container(config={"Cmd": ["true"], "User": "1000"}), image(), TOKEN, agentless=True)


async def test_remove_leaves_shared_jobs(cloud: CloudRun, backend: CloudRunBackend) -> None:
    execution = await backend.run(container(), image(), TOKEN)
    await backend.remove(container(execution=execution))
    assert len(cloud.jobs) == 1
    await backend.remove(container())


async def test_a_container_with_anonymous_volumes_has_a_job_of_its_own(
    cloud: CloudRun, backend: CloudRunBackend
) -> None:
    held = container(mounts=[Mount(type="volume", name="e" * 64, destination="/data")])
    execution = await backend.run(held, image(), TOKEN)
    await backend.remove(held.model_copy(update={"execution": execution}))
    assert cloud.jobs == {}


def age(message: Any, seconds: float) -> None:
    message.create_time = datetime.now(UTC) - timedelta(seconds=seconds)


async def test_sweep_spares_the_young_the_known_and_the_strangers(cloud: CloudRun, backend: CloudRunBackend) -> None:
    await backend.run(container(), image(), TOKEN)
    await backend.run(container(OTHER), image(), TOKEN, agentless=True)
    assert await backend.sweep(set()) == 0  # all younger than the grace
    for message in [*cloud.jobs.values(), *cloud.executions.values()]:
        age(message, 601)
    assert await backend.sweep({ID, OTHER}) == 0
    for job in cloud.jobs.values():
        job.labels["sockerless-endpoint"] = "another"
    assert await backend.sweep(set()) == 0
    assert len(cloud.jobs) == 2


async def test_sweep_removes_orphans_and_idle_templates(cloud: CloudRun, backend: CloudRunBackend) -> None:
    shared = await backend.run(container(), image(), TOKEN)
    await backend.run(container(OTHER), image(), TOKEN, agentless=True)
    for message in [*cloud.jobs.values(), *cloud.executions.values()]:
        age(message, sweep.IDLE + 1)
    assert await backend.sweep(set()) == 2  # the orphan's execution is cancelled, the plain job removed
    assert list(cloud.jobs) == [f"{PARENT}/jobs/{shared.job}"]
    assert await backend.sweep(set()) == 0  # just finished: not idle yet
    cloud.end(shared.name, signal=15, ago=sweep.IDLE + 1)
    assert await backend.sweep(set()) == 1
    assert cloud.jobs == {}
    cloud.calls.clear()
    await backend.run(container(run=2), image(), TOKEN)
    assert cloud.calls == {"RunJob": 2, "CreateJob": 1}


async def test_image_of_another_processor_is_refused(backend: CloudRunBackend) -> None:
    with pytest.raises(NotServed, match="linux/arm64"):
        await backend.run(container(), image(architecture="arm64"), TOKEN)


async def test_why_no_injection_works_is_said(cloud: CloudRun) -> None:
    backend = CloudRunBackend(settings(registry_writable=False), Clients(Endpoint(grpc=cloud.address)), Images())
    with pytest.raises(NotServed, match=r"image_layer: .*not writable.*volume: .*startup_command: .*no /bin/sh"):
        await backend.run(container(), image(), TOKEN)
    assert cloud.calls == {}
    await backend.close()


async def test_sizes_beyond_cloud_run_are_refused_at_create(backend: CloudRunBackend) -> None:
    with pytest.raises(InvalidParameter, match="8 CPUs"):
        backend.check(container(host_config={"NanoCpus": 9_000_000_000}))
    assert backend.capabilities.name == host_config.NAME


async def test_warm_makes_no_call(cloud: CloudRun, backend: CloudRunBackend) -> None:
    await backend.warm()
    assert cloud.calls == {}
