"""The gRPC face of Cloud Run Admin v2: Jobs, Executions and Tasks."""

from __future__ import annotations

from typing import Any

from google.cloud import run_v2

from local_cloud.calls import Calls
from local_cloud.errors import not_found
from local_cloud.gcp.grpc_face import Message, Unary, unary
from local_cloud.gcp.run import names
from local_cloud.gcp.run.executions import Executions
from local_cloud.gcp.run.model import Jobs
from local_cloud.gcp.run.records import ExecutionMessage, JobMessage, Records, TaskMessage

JOBS = "google.cloud.run.v2.Jobs"
EXECUTIONS = "google.cloud.run.v2.Executions"
TASKS = "google.cloud.run.v2.Tasks"


class RunFace:
    """Requests in, model calls, answers out."""

    def __init__(self, jobs: Jobs, executions: Executions, stored: Records, calls: Calls, project: str) -> None:
        self._jobs = jobs
        self._executions = executions
        self._records = stored
        self._calls = calls
        self._project = project

    def services(self) -> dict[str, dict[str, Any]]:
        """gRPC service → method → handler."""
        requests: dict[str, dict[str, tuple[Any, Unary]]] = {
            JOBS: {
                "CreateJob": (run_v2.CreateJobRequest, self.create_job),
                "GetJob": (run_v2.GetJobRequest, self.get_job),
                "ListJobs": (run_v2.ListJobsRequest, self.list_jobs),
                "UpdateJob": (run_v2.UpdateJobRequest, self.update_job),
                "DeleteJob": (run_v2.DeleteJobRequest, self.delete_job),
                "RunJob": (run_v2.RunJobRequest, self.run_job),
            },
            EXECUTIONS: {
                "GetExecution": (run_v2.GetExecutionRequest, self.get_execution),
                "ListExecutions": (run_v2.ListExecutionsRequest, self.list_executions),
                "CancelExecution": (run_v2.CancelExecutionRequest, self.cancel_execution),
                "DeleteExecution": (run_v2.DeleteExecutionRequest, self.delete_execution),
            },
            TASKS: {
                "GetTask": (run_v2.GetTaskRequest, self.get_task),
                "ListTasks": (run_v2.ListTasksRequest, self.list_tasks),
            },
        }
        return {service: self._handlers(service, methods) for service, methods in requests.items()}

    def _handlers(self, service: str, methods: dict[str, tuple[Any, Unary]]) -> dict[str, Any]:
        short = service.rpartition(".")[2]
        return {name: unary(self._calls, f"{short}.{name}", kind.pb(), work) for name, (kind, work) in methods.items()}

    async def create_job(self, request: Message) -> Message:
        """Jobs.CreateJob."""
        return await self._jobs.create(request.parent, request.job_id, request.job, dry=request.validate_only)

    async def get_job(self, request: Message) -> Message:
        """Jobs.GetJob."""
        return self._jobs.get(request.name).job

    async def list_jobs(self, request: Message) -> Message:
        """Jobs.ListJobs."""
        parent = str(names.location(request.parent, self._project))
        bodies, token = self._records.page("run_jobs", "parent", parent, request.page_size, request.page_token)
        return run_v2.ListJobsResponse.pb()(
            jobs=[JobMessage.FromString(body) for body in bodies], next_page_token=token
        )

    async def update_job(self, request: Message) -> Message:
        """Jobs.UpdateJob."""
        return await self._jobs.update(request.job, allow_missing=request.allow_missing, dry=request.validate_only)

    async def delete_job(self, request: Message) -> Message:
        """Jobs.DeleteJob."""
        return self._jobs.delete(request.name, request.etag, dry=request.validate_only)

    async def run_job(self, request: Message) -> Message:
        """Jobs.RunJob."""
        overrides = request.overrides if request.HasField("overrides") else None
        return self._jobs.run(request.name, overrides, request.etag, dry=request.validate_only)

    async def get_execution(self, request: Message) -> Message:
        """Executions.GetExecution."""
        names.execution(request.name, self._project)
        return self._executions.get(request.name).execution

    async def list_executions(self, request: Message) -> Message:
        """Executions.ListExecutions; the job may be `-`."""
        names.job(request.parent, self._project)
        bodies, token = self._records.page(
            "run_executions", "job", request.parent, request.page_size, request.page_token
        )
        executions = [ExecutionMessage.FromString(body) for body in bodies]
        return run_v2.ListExecutionsResponse.pb()(executions=executions, next_page_token=token)

    async def cancel_execution(self, request: Message) -> Message:
        """Executions.CancelExecution."""
        self._jobs.count_write()
        job, _ = names.execution(request.name, self._project)
        location = job.partition("/jobs/")[0]
        return self._executions.cancel(location, request.name, request.etag, dry=request.validate_only)

    async def delete_execution(self, request: Message) -> Message:
        """Executions.DeleteExecution."""
        self._jobs.count_write()
        job, _ = names.execution(request.name, self._project)
        location = job.partition("/jobs/")[0]
        return self._executions.delete(location, request.name, request.etag, dry=request.validate_only)

    async def get_task(self, request: Message) -> Message:
        """Tasks.GetTask."""
        execution, name = names.task(request.name, self._project)
        task = self._records.task(request.name)
        if task is None:
            _, project, _, region = execution.split("/")[:4]
            not_found(f"Resource '{name}' of kind 'TASK' in region '{region}' in project '{project}' does not exist.")
        return task

    async def list_tasks(self, request: Message) -> Message:
        """Tasks.ListTasks; job and execution may be `-`."""
        names.execution(request.parent, self._project)
        bodies, token = self._records.page(
            "run_tasks", "execution", request.parent, request.page_size, request.page_token
        )
        return run_v2.ListTasksResponse.pb()(
            tasks=[TaskMessage.FromString(body) for body in bodies], next_page_token=token
        )
