"""A Cloud Run Admin service of the SDK's own message types, for the backend's tests: no runtime, faults on demand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc.aio
from google.cloud import run_v2
from google.longrunning import operations_pb2
from google.protobuf import any_pb2

WRITES = {"CreateJob", "UpdateJob", "RunJob", "DeleteJob", "CancelExecution"}
PARENT = "projects/p/locations/us-central1"


@dataclass
class Fault:
    """What to do instead of answering: `code` is sent; `after` says whether the call is carried out first."""

    code: grpc.StatusCode
    after: bool = False
    text: str = "made to fail"


@dataclass
class CloudRun:
    jobs: dict[str, Any] = field(default_factory=dict)
    executions: dict[str, Any] = field(default_factory=dict)
    tasks: dict[str, Any] = field(default_factory=dict)
    operations: dict[str, Any] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    slow_operations: int = 0
    """How often GetOperation says "not yet" of a job's creation."""
    address: str = ""

    @property
    def writes(self) -> dict[str, int]:
        return {name: count for name, count in self.calls.items() if name in WRITES}

    def end(self, name: str, *, exit_code: int = 0, signal: int = 0, text: str = "", ago: float = 0) -> None:
        """Ends an execution as the service records it."""
        execution = self.executions[name]
        execution.completion_time = datetime.now(UTC) - timedelta(seconds=ago)
        failed = bool(exit_code or signal or text)
        execution.succeeded_count, execution.failed_count = (0, 1) if failed else (1, 0)
        if text:
            state = run_v2.Condition.State.CONDITION_FAILED
            execution.conditions = [run_v2.Condition(type_="Completed", state=state, message=text)]
        result = (
            run_v2.TaskAttemptResult(exit_code=exit_code) if exit_code else run_v2.TaskAttemptResult(term_signal=signal)
        )
        task = run_v2.Task(name=f"{name}/tasks/t0")
        if exit_code or signal:
            task.last_attempt_result = result
        self.tasks[name] = task

    # --- jobs ---

    async def create_job(self, request: Any, context: Any) -> Any:
        if request.job.name:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "job.name must be empty")
        name = f"{request.parent}/jobs/{request.job_id}"
        if name in self.jobs:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, f"{name} exists")
        request.job.name = name
        request.job.etag = '"1"'
        request.job.create_time = datetime.now(UTC)
        self.jobs[name] = request.job
        return self._operation(request.job, pending=self.slow_operations)

    async def update_job(self, request: Any, context: Any) -> Any:
        self.jobs[request.job.name] = request.job
        return self._operation(request.job)

    async def get_job(self, request: Any, context: Any) -> Any:
        return await self._found(self.jobs, request.name, context)

    async def delete_job(self, request: Any, context: Any) -> Any:
        job = await self._found(self.jobs, request.name, context)
        if request.etag and request.etag != job.etag:
            await context.abort(grpc.StatusCode.ABORTED, "etag")
        del self.jobs[request.name]
        return self._operation(job)

    async def list_jobs(self, request: Any, context: Any) -> Any:
        names = sorted(name for name in self.jobs if name.startswith(request.parent))
        start = int(request.page_token or 0)
        page = names[start : start + 2]
        token = str(start + 2) if start + 2 < len(names) else ""
        return run_v2.ListJobsResponse(jobs=[self.jobs[name] for name in page], next_page_token=token)

    async def run_job(self, request: Any, context: Any) -> Any:
        job = await self._found(self.jobs, request.name, context)
        name = f"{request.name}/executions/{request.name.rpartition('/')[2]}-{len(self.executions)}"
        template = run_v2.TaskTemplate(job.template.template)
        for override in request.overrides.container_overrides:
            template.containers[0].env = [*template.containers[0].env, *override.env]
        execution = run_v2.Execution(
            name=name, job=request.name, template=template, labels=job.template.labels, create_time=datetime.now(UTC)
        )
        self.executions[name] = execution
        job.etag = f'"{len(self.executions) + 1}"'
        return self._operation(execution, pending=1_000_000)

    # --- executions, tasks, operations ---

    async def get_execution(self, request: Any, context: Any) -> Any:
        return await self._found(self.executions, request.name, context)

    async def list_executions(self, request: Any, context: Any) -> Any:
        found = [e for n, e in self.executions.items() if n.startswith(request.parent + "/")]
        return run_v2.ListExecutionsResponse(executions=found[::-1])

    async def cancel_execution(self, request: Any, context: Any) -> Any:
        execution = await self._found(self.executions, request.name, context)
        if execution.completion_time:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "already finished")
        self.end(request.name, signal=15)
        return self._operation(execution)

    async def list_tasks(self, request: Any, context: Any) -> Any:
        return run_v2.ListTasksResponse(tasks=[self.tasks[request.parent]] if request.parent in self.tasks else [])

    async def get_operation(self, request: Any, context: Any) -> Any:
        operation, pending = self.operations[request.name]
        self.operations[request.name] = (operation, pending - 1)
        answer = operations_pb2.Operation()
        answer.CopyFrom(operation)
        answer.done = pending <= 0
        return answer

    async def _found(self, known: dict[str, Any], name: str, context: Any) -> Any:
        if name not in known:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Resource '{name}' was not found")
        return known[name]

    def _operation(self, message: Any, pending: int = 0) -> Any:
        packed: Any = any_pb2.Any()  # type: ignore[attr-defined]
        packed.Pack(type(message).pb(message))
        name = f"{PARENT}/operations/{len(self.operations)}"
        operation = operations_pb2.Operation(name=name, metadata=packed, response=packed, done=pending <= 0)
        self.operations[name] = (operation, pending)
        return operation

    # --- the server ---

    def handler(self, method: str, serve: Callable[[Any, Any], Awaitable[Any]], request: Any) -> Any:
        async def answer(message: Any, context: Any) -> Any:
            self.calls[method] += 1
            faults = self.faults.get(method) or []
            fault = faults.pop(0) if faults else None
            if fault is not None and not fault.after:
                await context.abort(fault.code, fault.text)
            result = await serve(message, context)
            if fault is not None:
                await context.abort(fault.code, fault.text)
            return result

        plain = request is operations_pb2.GetOperationRequest
        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=request.FromString if plain else request.deserialize,
            response_serializer=lambda m: (
                m.SerializeToString() if hasattr(m, "SerializeToString") else type(m).serialize(m)
            ),
        )


_METHODS: dict[str, dict[str, Any]] = {
    "google.cloud.run.v2.Jobs": {
        "CreateJob": run_v2.CreateJobRequest,
        "UpdateJob": run_v2.UpdateJobRequest,
        "GetJob": run_v2.GetJobRequest,
        "DeleteJob": run_v2.DeleteJobRequest,
        "ListJobs": run_v2.ListJobsRequest,
        "RunJob": run_v2.RunJobRequest,
    },
    "google.cloud.run.v2.Executions": {
        "GetExecution": run_v2.GetExecutionRequest,
        "ListExecutions": run_v2.ListExecutionsRequest,
        "CancelExecution": run_v2.CancelExecutionRequest,
    },
    "google.cloud.run.v2.Tasks": {"ListTasks": run_v2.ListTasksRequest},
    "google.longrunning.Operations": {"GetOperation": operations_pb2.GetOperationRequest},
}


def _python_name(method: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in method).lstrip("_")


@asynccontextmanager
async def serving() -> AsyncIterator[CloudRun]:
    cloud = CloudRun()
    server = grpc.aio.server()
    for service, methods in _METHODS.items():
        handlers = {m: cloud.handler(m, getattr(cloud, _python_name(m)), request) for m, request in methods.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    cloud.address = f"127.0.0.1:{port}"
    try:
        yield cloud
    finally:
        await server.stop(None)
        await asyncio.sleep(0)
