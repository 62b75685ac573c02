"""Cloud Run Admin v2 of the local cloud, driven by the official async clients."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.api_core import exceptions
from google.cloud import run_v2
from google.longrunning import operations_pb2

from tests.contract.local_gcp_fixtures import PARENT, ProcessRuntime, Sdk, job, local_cloud, push

State = run_v2.Condition.State
Reason = run_v2.Condition.ExecutionReason
Override = run_v2.RunJobRequest.Overrides.ContainerOverride


def condition(resource: Any, kind: str) -> run_v2.Condition:
    found: run_v2.Condition = next(found for found in resource.conditions if found.type_ == kind)
    return found


async def test_a_job_gets_the_services_defaults(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        made = await sdk.create("tool", job(await push(cloud.http_url), "true", retries=None))
        assert made.name == f"{PARENT}/jobs/tool"
        tasks = made.template.template
        assert (made.template.task_count, tasks.max_retries, tasks.timeout.total_seconds()) == (1, 3, 600)
        assert dict(tasks.containers[0].resources.limits) == {"cpu": "1000m", "memory": "512Mi"}
        assert made.uid
        assert made.etag
        assert made.generation == made.observed_generation == 1
        assert made.terminal_condition.state == State.CONDITION_SUCCEEDED
        assert not made.reconciling
        assert (await sdk.jobs.get_job(name=made.name)).uid == made.uid


async def test_an_execution_runs_and_tells_its_exit_code(tmp_path: Path) -> None:
    runtime = ProcessRuntime()
    async with local_cloud(tmp_path, runtime) as (cloud, sdk):
        image = await push(cloud.http_url, Env=["FROM_IMAGE=1"], User="app", WorkingDir="/srv")
        await sdk.create("tool", job(image, "sh", "-c", "exit 42", container={"env": [{"name": "A", "value": "b c"}]}))
        started = await sdk.run("tool")
        assert started.name.startswith(f"{PARENT}/jobs/tool/executions/tool-")
        ended = await sdk.ended(started.name)
        assert (ended.failed_count, ended.succeeded_count, ended.running_count) == (1, 0, 0)
        assert condition(ended, "Completed").execution_reason == Reason.NON_ZERO_EXIT_CODE
        assert ended.start_time <= ended.completion_time
        task = await sdk.task(started.name)
        assert task.last_attempt_result.exit_code == 42
        assert task.last_attempt_result.status.code
        (spec,) = runtime.specs.values()
        assert (spec.user, spec.workdir, spec.memory_bytes, spec.cpus) == ("app", "/srv", 512 << 20, 1.0)
        assert {
            "FROM_IMAGE": "1",
            "A": "b c",
            "CLOUD_RUN_JOB": "tool",
            "CLOUD_RUN_TASK_INDEX": "0",
        }.items() <= spec.env.items()
        assert spec.env["CLOUD_RUN_EXECUTION"] == started.name.rpartition("/")[2]
        assert (await sdk.jobs.get_job(name=f"{PARENT}/jobs/tool")).execution_count == 1


async def test_run_jobs_operation_lasts_as_long_as_the_execution(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with local_cloud(tmp_path / "data") as (cloud, sdk):
        image = await push(cloud.http_url)
        await sdk.create("tool", job(image, "sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.02; done"))
        operation = await sdk.jobs.run_job(name=f"{PARENT}/jobs/tool")
        name = operation.metadata.name
        assert not operation.operation.done
        assert not (await sdk.wait(operation.operation.name, 0.01)).done
        running = await sdk.executions.get_execution(name=name)
        assert running.running_count == 1
        assert running.reconciling
        gate.touch()
        done = await sdk.wait(operation.operation.name, 10)
        assert done.done
        execution = run_v2.Execution.deserialize(done.response.value)
        assert execution.succeeded_count == 1
        assert condition(execution, "Completed").state == State.CONDITION_SUCCEEDED


async def test_create_takes_its_delay(tmp_path: Path) -> None:
    async with local_cloud(tmp_path, create_delay=0.2) as (cloud, sdk):
        wanted = job(await push(cloud.http_url), "true")
        operation = await sdk.jobs.create_job(parent=PARENT, job=wanted, job_id="tool")
        assert not operation.operation.done
        with pytest.raises(exceptions.FailedPrecondition, match="not ready"):
            await sdk.run("tool")
        assert (await sdk.wait(operation.operation.name, 10)).done
        await sdk.ended((await sdk.run("tool")).name)


async def test_overrides_replace_args_and_merge_env(tmp_path: Path) -> None:
    runtime = ProcessRuntime()
    async with local_cloud(tmp_path, runtime) as (cloud, sdk):
        image = await push(cloud.http_url, Cmd=["image-command"])
        env = [{"name": "KEPT", "value": "1"}, {"name": "CHANGED", "value": "old"}]
        await sdk.create("tool", job(image, "echo", container={"args": ["a"], "env": env}))
        change = Override(args=["b", "c"], env=[{"name": "CHANGED", "value": "new"}])
        execution = await sdk.run("tool", container_overrides=[change], task_count=2, timeout={"seconds": 30})
        ended = await sdk.ended(execution.name)
        assert (ended.task_count, ended.succeeded_count) == (2, 2)
        assert ended.template.timeout.total_seconds() == 30
        specs = list(runtime.specs.values())
        assert [spec.argv for spec in specs] == [("echo", "b", "c")] * 2
        assert {spec.env["CLOUD_RUN_TASK_INDEX"] for spec in specs} == {"0", "1"}
        assert (specs[0].env["KEPT"], specs[0].env["CHANGED"]) == ("1", "new")
        await sdk.ended((await sdk.run("tool", container_overrides=[Override(clear_args=True)])).name)
        assert list(runtime.specs.values())[-1].argv == ("echo",)


async def test_failed_tasks_are_retried_as_often_as_the_job_says(tmp_path: Path) -> None:
    runtime = ProcessRuntime()
    async with local_cloud(tmp_path, runtime) as (cloud, sdk):
        image = await push(cloud.http_url)
        await sdk.create("tool", job(image, "sh", "-c", "[ $CLOUD_RUN_TASK_ATTEMPT = 2 ]", retries=None))
        ended = await sdk.ended((await sdk.run("tool")).name)
        assert (ended.succeeded_count, ended.retried_count) == (1, 2)
        assert len(runtime.specs) == 3
        task = await sdk.task(ended.name)
        assert (task.retried, task.last_attempt_result.exit_code) == (2, 0)


async def test_a_task_is_ended_at_its_timeout(tmp_path: Path) -> None:
    async with local_cloud(tmp_path, stop_grace=0.1) as (cloud, sdk):
        image = await push(cloud.http_url)
        stubborn = job(
            image, "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done", task={"timeout": {"nanos": 200_000_000}}
        )
        await sdk.create("tool", stubborn)
        ended = await sdk.ended((await sdk.run("tool")).name)
        result = (await sdk.task(ended.name)).last_attempt_result
        assert (result.term_signal, result.exit_code) == (9, 0)
        assert "timeout" in result.status.message


async def test_cancel_lets_a_trap_finish(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    async with local_cloud(tmp_path / "data") as (cloud, sdk):
        script = f"trap 'exit 5' TERM; touch {ready}; while :; do sleep 0.02; done"
        await sdk.create("tool", job(await push(cloud.http_url), "sh", "-c", script))
        run = await sdk.jobs.run_job(name=f"{PARENT}/jobs/tool")
        name = run.metadata.name
        await sdk.until(lambda: ready.exists())
        await sdk.executions.cancel_execution(name=name)
        ended = await sdk.ended(name)
        assert (ended.cancelled_count, ended.failed_count) == (1, 0)
        assert condition(ended, "Completed").execution_reason == Reason.CANCELLED
        assert (await sdk.task(name)).last_attempt_result.exit_code == 5
        operation = await sdk.jobs.get_operation(operations_pb2.GetOperationRequest(name=run.operation.name))
        assert operation.done
        assert not operation.HasField("error")
        with pytest.raises(exceptions.FailedPrecondition):
            await sdk.executions.cancel_execution(name=name)


async def test_deleting_a_job_ends_and_deletes_its_executions(tmp_path: Path) -> None:
    runtime = ProcessRuntime()
    async with local_cloud(tmp_path, runtime) as (cloud, sdk):
        await sdk.create("tool", job(await push(cloud.http_url), "sleep", "60"))
        name = (await sdk.run("tool")).name
        await sdk.until(lambda: runtime.specs)
        await (await sdk.jobs.delete_job(name=f"{PARENT}/jobs/tool")).result()
        with pytest.raises(exceptions.NotFound, match="'tool' of kind 'JOB' in region 'us-central1'"):
            await sdk.jobs.get_job(name=f"{PARENT}/jobs/tool")
        for _ in range(500):
            try:
                await sdk.executions.get_execution(name=name)
            except exceptions.NotFound:
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("the execution outlives its job")
        await sdk.until(lambda: runtime.removed)


async def test_an_unknown_image_fails_the_operation_and_the_job(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        image = f"{cloud.http_url.removeprefix('http://')}/local/apps/nothing:1"
        with pytest.raises(exceptions.GoogleAPICallError, match=f"Image '{image}' not found."):
            await sdk.create("tool", job(image, "true"))
        made = await sdk.jobs.get_job(name=f"{PARENT}/jobs/tool")
        assert made.terminal_condition.state == State.CONDITION_FAILED
        with pytest.raises(exceptions.FailedPrecondition, match="not found"):
            await sdk.run("tool")


async def test_a_command_that_cannot_start_fails_with_the_runtimes_words(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        await sdk.create("tool", job(await push(cloud.http_url), "/no/such/program"))
        ended = await sdk.ended((await sdk.run("tool")).name)
        assert "/no/such/program" in condition(ended, "Completed").message


async def test_updates_replace_the_job(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        image = await push(cloud.http_url)
        made = await sdk.create("tool", job(image, "false"))
        stale = made.etag
        changed = job(image, "true")
        changed.name, changed.etag = made.name, stale
        updated = await (await sdk.jobs.update_job(job=changed)).result()
        assert updated.generation == 2
        assert (await sdk.ended((await sdk.run("tool")).name)).succeeded_count == 1
        with pytest.raises(exceptions.Aborted):
            await sdk.jobs.update_job(job=changed)


async def test_a_start_token_creates_and_starts_in_one_call(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        wanted = job(await push(cloud.http_url), "true")
        wanted.start_execution_token = "first"
        made = await sdk.create("tool", wanted)
        assert made.latest_created_execution.name == "tool-first"
        assert (await sdk.ended(f"{made.name}/executions/tool-first")).succeeded_count == 1
        assert "Jobs.RunJob" not in cloud.calls.counts()


async def test_lists_have_pages(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        image = await push(cloud.http_url)
        for number in range(5):
            await sdk.create(f"tool-{number}", job(image, "true"))
        names = [made.name async for made in await sdk.jobs.list_jobs(request={"parent": PARENT, "page_size": 2})]
        assert sorted(names) == [f"{PARENT}/jobs/tool-{number}" for number in range(5)]
        assert cloud.calls.counts()["Jobs.ListJobs"] == 3
        for number in (0, 1):
            await sdk.ended((await sdk.run(f"tool-{number}")).name)
        every = [found.job async for found in await sdk.executions.list_executions(parent=f"{PARENT}/jobs/-")]
        assert sorted(every) == [f"{PARENT}/jobs/tool-0", f"{PARENT}/jobs/tool-1"]
        one = [found async for found in await sdk.executions.list_executions(parent=f"{PARENT}/jobs/tool-0")]
        tasks = [found async for found in await sdk.tasks.list_tasks(parent=one[0].name)]
        assert [task.index for task in tasks] == [0]


async def test_volumes_reach_the_container(tmp_path: Path) -> None:
    runtime = ProcessRuntime()
    export = tmp_path / "export"
    export.mkdir()
    async with local_cloud(tmp_path / "data", runtime) as (cloud, sdk):
        async with httpx.AsyncClient(base_url=cloud.http_url) as client:
            await client.post("/storage/v1/b", json={"name": "shared"})
        volumes = [
            {"name": "scratch", "empty_dir": {}},
            {"name": "bucket", "gcs": {"bucket": "shared", "mount_options": ["only-dir=a/b"], "read_only": True}},
            {"name": "disk", "nfs": {"server": "localhost", "path": str(export)}},
        ]
        mounts = [{"name": volume["name"], "mount_path": f"/{volume['name']}"} for volume in volumes]
        script = "touch $MOUNT0/x $MOUNT2/y"
        wanted = job(
            await push(cloud.http_url),
            "sh",
            "-c",
            script,
            container={"volume_mounts": mounts},
            task={"volumes": volumes},
        )
        await sdk.create("tool", wanted)
        assert (await sdk.ended((await sdk.run("tool")).name)).succeeded_count == 1
        (spec,) = runtime.specs.values()
        found = {mount.target: (mount.source, mount.read_only) for mount in spec.mounts}
        assert found["/bucket"] == (tmp_path / "data/storage/shared/a/b", True)
        assert found["/disk"] == (export, False)
        assert (export / "y").exists()
        await sdk.until(lambda: runtime.removed)
        await asyncio.sleep(0.05)
        assert not found["/scratch"][0].exists()


async def test_a_missing_bucket_fails_the_execution(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        task = {"volumes": [{"name": "bucket", "gcs": {"bucket": "nowhere"}}]}
        container = {"volume_mounts": [{"name": "bucket", "mount_path": "/data"}]}
        await sdk.create("tool", job(await push(cloud.http_url), "true", container=container, task=task))
        ended = await sdk.ended((await sdk.run("tool")).name)
        assert "bucket nowhere does not exist" in condition(ended, "Completed").message


async def test_calls_are_counted_and_can_be_made_to_fail(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk), httpx.AsyncClient(base_url=cloud.http_url) as admin:
        image = await push(cloud.http_url)
        await admin.delete("/_local/calls")
        await admin.put("/_local/faults", json={"Jobs.Create*": {"status": "UNAVAILABLE", "lost_response": True}})
        with pytest.raises(exceptions.ServiceUnavailable):
            await sdk.jobs.create_job(parent=PARENT, job=job(image, "true"), job_id="tool")
        await admin.put("/_local/faults", json={"Jobs.RunJob": {"status": "INTERNAL"}})
        assert (await sdk.jobs.get_job(name=f"{PARENT}/jobs/tool")).generation == 1
        with pytest.raises(exceptions.InternalServerError):
            await sdk.run("tool")
        assert not [found async for found in await sdk.executions.list_executions(parent=f"{PARENT}/jobs/tool")]
        counts = (await admin.get("/_local/calls")).json()
        assert (counts["Jobs.CreateJob"], counts["Jobs.RunJob"], counts["Jobs.GetJob"]) == (1, 1, 1)
        assert (await admin.put("/_local/faults", json={"x": {"status": "NONSENSE"}})).status_code == 400


async def test_jobs_executions_and_operations_survive_a_restart(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    runtime = ProcessRuntime()
    async with local_cloud(tmp_path / "data", runtime) as (cloud, sdk):
        target, url = cloud.grpc_target, cloud.http_url
        await sdk.create(
            "tool", job(await push(url), "sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.02; done; exit 7")
        )
        operation = await sdk.jobs.run_job(name=f"{PARENT}/jobs/tool")
        ending = await sdk.run("tool")
        await sdk.until(lambda: len(runtime.specs) == 2)
    for id in runtime.specs:
        if id.startswith(ending.name.rpartition("/")[2]):
            await runtime.kill(id, 9)  # ends while nobody watches
    async with local_cloud(tmp_path / "data", runtime) as (cloud, sdk):
        assert (cloud.grpc_target, cloud.http_url) == (target, url)
        assert (await sdk.ended(ending.name)).failed_count == 1
        assert (await sdk.task(ending.name)).last_attempt_result.term_signal == 9
        name = operation.metadata.name
        assert (await sdk.executions.get_execution(name=name)).running_count == 1
        gate.touch()
        await sdk.ended(name)
        assert (await sdk.task(name)).last_attempt_result.exit_code == 7
        assert (await sdk.jobs.get_operation(operations_pb2.GetOperationRequest(name=operation.operation.name))).done
        assert len(runtime.specs) == 2


async def test_a_container_lost_with_its_runtime_fails_and_is_not_run_again(tmp_path: Path) -> None:
    runtime = ProcessRuntime()
    async with local_cloud(tmp_path, runtime) as (cloud, sdk):
        await sdk.create("tool", job(await push(cloud.http_url), "sleep", "60"))
        name = (await sdk.run("tool")).name
        await sdk.until(lambda: runtime.specs)
    await runtime.end()
    after = ProcessRuntime()
    async with local_cloud(tmp_path, after) as (_, sdk):
        ended = await sdk.ended(name)
        assert "lost" in condition(ended, "Completed").message
        assert not after.specs


async def test_a_second_local_cloud_is_kept_out_of_the_directory(tmp_path: Path) -> None:
    async with local_cloud(tmp_path):
        with pytest.raises(RuntimeError, match="another local cloud"):
            async with local_cloud(tmp_path):
                pass


async def test_an_operation_can_be_listed_and_deleted(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        await sdk.create("tool", job(await push(cloud.http_url), "true"))
        found = await sdk.jobs.list_operations(operations_pb2.ListOperationsRequest(name=PARENT))
        assert len(found.operations) == 1
        await sdk.jobs.delete_operation(operations_pb2.DeleteOperationRequest(name=found.operations[0].name))
        with pytest.raises(exceptions.NotFound):
            await sdk.jobs.get_operation(operations_pb2.GetOperationRequest(name=found.operations[0].name))


async def test_fifty_executions_at_once_all_end(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, sdk):
        await sdk.create("tool", job(await push(cloud.http_url), "sh", "-c", "exit $CLOUD_RUN_TASK_INDEX"))

        async def one(client: Sdk) -> int:
            ended = await client.ended((await client.run("tool", task_count=2)).name)
            return int(ended.succeeded_count) * 10 + int(ended.failed_count)

        assert await asyncio.gather(*(one(sdk) for _ in range(25))) == [11] * 25
