"""A local cloud for a test: a runtime of plain processes, the official SDK clients, images pushed over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
from google.cloud import run_v2
from google.cloud.run_v2.services.executions.transports.grpc_asyncio import ExecutionsGrpcAsyncIOTransport
from google.cloud.run_v2.services.jobs.transports.grpc_asyncio import JobsGrpcAsyncIOTransport
from google.cloud.run_v2.services.tasks.transports.grpc_asyncio import TasksGrpcAsyncIOTransport
from google.longrunning import operations_pb2

from local_cloud.options import Options
from local_cloud.runtime.api import ExitStatus, RunSpec, RuntimeRefused
from local_cloud.server import LocalCloud

PARENT = "projects/local/locations/us-central1"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class ProcessRuntime:
    """The runtime's API over plain processes of this machine: no image, no namespaces.

    Like the real one it outlives a LocalCloud.
    """

    network = "host"

    def __init__(self) -> None:
        self.specs: dict[str, RunSpec] = {}
        self.removed: list[str] = []
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._exits: dict[str, asyncio.Task[ExitStatus]] = {}

    async def run(self, spec: RunSpec) -> int:
        self.specs[spec.id] = spec
        env = spec.env | {f"MOUNT{number}": str(mount.source) for number, mount in enumerate(spec.mounts)}
        with spec.stdout.open("ab") as out, spec.stderr.open("ab") as err:
            try:
                process = await asyncio.create_subprocess_exec(
                    *spec.argv, stdout=out, stderr=err, stdin=asyncio.subprocess.DEVNULL, env=env, cwd="/"
                )
            except OSError as error:
                raise RuntimeRefused(f"{spec.argv[0]}: {error.strerror}", "spec") from None
        self._processes[spec.id] = process
        self._exits[spec.id] = asyncio.create_task(self._wait(process))
        return process.pid

    async def address(self, id: str) -> str:
        if id not in self._exits or self._exits[id].done():
            raise RuntimeRefused(f"execution {id} is not running", "state")
        return "127.0.0.1"

    async def _wait(self, process: asyncio.subprocess.Process) -> ExitStatus:
        code = await process.wait()
        number = -code if code < 0 else 0
        return ExitStatus(128 + number if number else code, number, False, "", time.time())

    async def wait(self, id: str) -> ExitStatus:
        if id not in self._exits:
            raise RuntimeRefused(f"no execution {id}", "spec")
        return await asyncio.shield(self._exits[id])

    async def kill(self, id: str, signal: int) -> None:
        if id not in self._processes:  # removed between two signals: refused as the launcher does it
            raise RuntimeRefused(f"no execution {id}", "unknown")
        with suppress(ProcessLookupError):
            self._processes[id].send_signal(signal)

    async def ids(self) -> dict[str, bool]:
        return {id: not task.done() for id, task in self._exits.items()}

    async def remove(self, id: str) -> None:
        self.removed.append(id)
        process = self._processes.pop(id, None)
        if process is not None and process.returncode is None:
            process.kill()
        self._exits.pop(id, None)

    async def end(self) -> None:
        for id in list(self._processes):
            await self.remove(id)


class NoLayers:
    """Layers are not needed by plain processes."""

    async def unpack(self, digest: str, blob: Path, media_type: str) -> Path:
        return blob.parent

    async def remove_unused(self, keep: set[str]) -> None:
        pass


class Sdk:
    """The official async clients over one insecure channel."""

    def __init__(self, target: str) -> None:
        self.channel = grpc.aio.insecure_channel(target)
        self.jobs = run_v2.JobsAsyncClient(transport=JobsGrpcAsyncIOTransport(channel=self.channel))
        self.executions = run_v2.ExecutionsAsyncClient(transport=ExecutionsGrpcAsyncIOTransport(channel=self.channel))
        self.tasks = run_v2.TasksAsyncClient(transport=TasksGrpcAsyncIOTransport(channel=self.channel))

    async def create(self, job_id: str, job: run_v2.Job) -> run_v2.Job:
        operation = await self.jobs.create_job(parent=PARENT, job=job, job_id=job_id)
        made: run_v2.Job = await operation.result()
        return made

    async def run(self, job_id: str, **overrides: Any) -> run_v2.Execution:
        request = run_v2.RunJobRequest(name=f"{PARENT}/jobs/{job_id}")
        if overrides:
            request.overrides = run_v2.RunJobRequest.Overrides(**overrides)
        operation = await self.jobs.run_job(request)
        execution: run_v2.Execution = operation.metadata
        return execution

    @staticmethod
    async def until(true: Callable[[], object], limit: float = 20.0) -> None:
        """Waits for a condition."""
        deadline = time.monotonic() + limit
        while not true():
            assert time.monotonic() < deadline, "it does not come true"
            await asyncio.sleep(0.01)

    async def ended(self, name: str, limit: float = 20.0) -> run_v2.Execution:
        deadline = time.monotonic() + limit
        while True:
            execution = await self.executions.get_execution(name=name)
            if execution.completion_time:
                return execution
            assert time.monotonic() < deadline, "the execution does not end"
            await asyncio.sleep(0.01)

    async def wait(self, operation: str, seconds: float) -> Any:
        """WaitOperation; this SDK version hands its answer over as bytes."""
        request = operations_pb2.WaitOperationRequest(name=operation)
        request.timeout.FromNanoseconds(int(seconds * 1e9))
        answer: Any = await self.jobs.wait_operation(request)
        return operations_pb2.Operation.FromString(answer) if isinstance(answer, bytes) else answer

    async def task(self, execution: str, number: int = 0) -> run_v2.Task:
        return await self.tasks.get_task(name=f"{execution}/tasks/{execution.rpartition('/')[2]}-task{number}")


@asynccontextmanager
async def local_cloud(data: Path, runtime: Any = None, **options: Any) -> AsyncIterator[tuple[LocalCloud, Sdk]]:
    """A running local cloud and clients for it; plain processes unless a runtime is given."""
    own = ProcessRuntime() if runtime is None else None
    cloud = LocalCloud(data, options=Options(**options), runtime=runtime or own, layers=NoLayers())
    await cloud.start()
    sdk = Sdk(cloud.grpc_target)
    try:
        yield cloud, sdk
    finally:
        await sdk.channel.close(None)
        await cloud.stop()
        if own is not None:
            await own.end()


async def push(url: str, name: str = "local/apps/tool:latest", layers: list[bytes] | None = None, **config: Any) -> str:
    """Pushes an image over the distribution API; returns the reference that a job names it by."""
    repository, _, tag = name.partition(":")
    body = {"architecture": "amd64", "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": []}}
    async with httpx.AsyncClient(base_url=url) as client:
        descriptors = []
        for blob, kind in [(json.dumps(body).encode(), "config.v1+json")] + [(b, "layer.v1.tar") for b in layers or []]:
            digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
            answer = await client.post(f"/v2/{repository}/blobs/uploads/?digest={digest}", content=blob)
            assert answer.status_code == 201, answer.text
            media_type = f"application/vnd.oci.image.{kind}"
            descriptors.append({"mediaType": media_type, "digest": digest, "size": len(blob)})
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptors[0], "layers": descriptors[1:]}
        headers = {"Content-Type": MANIFEST}
        answer = await client.put(f"/v2/{repository}/manifests/{tag}", content=json.dumps(manifest), headers=headers)
        assert answer.status_code == 201, answer.text
    return f"{url.removeprefix('http://')}/{name}"


def job(image: str, *command: str, retries: int | None = 0, **template: Any) -> run_v2.Job:
    """A job with one container."""
    container = run_v2.Container(image=image, command=list(command), **template.pop("container", {}))
    tasks = run_v2.TaskTemplate(containers=[container], **template.pop("task", {}))
    if retries is not None:
        tasks.max_retries = retries
    return run_v2.Job(template=run_v2.ExecutionTemplate(template=tasks, **template))


def environment(pid: int) -> dict[str, str]:
    """The environment of a process of this machine."""
    data = Path(f"/proc/{pid}/environ").read_bytes()
    return dict(entry.split("=", 1) for entry in os.fsdecode(data).split("\0") if "=" in entry)
