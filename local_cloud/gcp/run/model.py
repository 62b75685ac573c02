"""Jobs: created, reconciled with their image, updated, run and deleted."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import Any, NoReturn

from google.api import launch_stage_pb2

from local_cloud.errors import ServiceError, invalid, not_found
from local_cloud.gcp.operations import Operations
from local_cloud.gcp.run import conditions, labels, names, outcomes, template
from local_cloud.gcp.run.executions import Executions
from local_cloud.gcp.run.records import ExecutionMessage, JobMessage, JobRecord, Records
from local_cloud.images import Images
from local_cloud.options import PROJECT_NUMBER, Options
from local_cloud.quotas import Rate

_log = logging.getLogger(__name__)
_IMPORT_LIMIT = 30.0
"""Seconds that CreateJob waits for the image's import, with no delay set, to answer with its operation done."""
_INPUT = ("labels", "annotations", "template", "binary_authorization")


class Jobs:
    """All jobs of the local cloud."""

    def __init__(
        self,
        stored: Records,
        operations: Operations,
        images: Images,
        executions: Executions,
        project: str,
        options: Options,
    ) -> None:
        self._records = stored
        self._operations = operations
        self._images = images
        self._executions = executions
        self._project = project
        self._options = options
        self._reconciling: dict[str, asyncio.Task[None]] = {}
        metric = "Cloud Run Admin API write requests"
        self.writes = Rate(options.quotas.run_writes_per_minute, metric, "run.googleapis.com", PROJECT_NUMBER)
        executions.ended = self._note_execution

    def count_write(self) -> None:
        """Takes one of the admin writes a minute; raises ServiceError RESOURCE_EXHAUSTED."""
        self.writes.take()

    # --- CreateJob, UpdateJob

    async def create(self, parent: str, job_id: str, wanted: Any, *, dry: bool) -> Any:
        """Jobs.CreateJob; returns the operation."""
        location = str(names.location(parent, self._project))
        self.count_write()
        if wanted.name:
            invalid(
                "Violation in CreateJobRequest.job.name: must be empty; the name comes from CreateJobRequest.job_id."
            )
        names.check_job_id(job_id)
        self._check(wanted)
        name = f"{location}/jobs/{job_id}"
        if self._records.job(name) is not None:
            raise ServiceError("ALREADY_EXISTS", f"Resource '{job_id}' already exists.")
        limit = self._options.quotas.jobs
        if limit is not None and self._records.count_jobs(location) >= limit:
            raise ServiceError("RESOURCE_EXHAUSTED", f"Quota exceeded for jobs per region: the limit is {limit}.")
        job = JobMessage(name=name, uid=str(uuid.uuid4()), creator=template.CREATOR)
        job.create_time.FromNanoseconds(time.time_ns())
        return await self._accept(location, job, wanted, dry=dry)

    async def update(self, wanted: Any, *, allow_missing: bool, dry: bool) -> Any:
        """Jobs.UpdateJob: the whole job is replaced; returns the operation."""
        location, job_id = names.job(wanted.name, self._project)
        record = self._records.job(wanted.name)
        if record is None and allow_missing:
            fresh = JobMessage()
            fresh.CopyFrom(wanted)
            fresh.name = ""
            return await self.create(location, job_id, fresh, dry=dry)
        if record is None:
            self._missing(wanted.name)
        self.count_write()
        outcomes.check_etag(record.job, wanted.etag)
        self._check(wanted)
        return await self._accept(location, record.job, wanted, dry=dry)

    def _check(self, wanted: Any) -> None:
        labels.check_labels(wanted.labels, "job.labels")
        labels.check_annotations(wanted.annotations, "job.annotations")
        if wanted.start_execution_token or wanted.run_execution_token:
            names.check_job_id(f"a{wanted.start_execution_token or wanted.run_execution_token}")
        template.check(wanted.template, self._images, self._options.nfs_servers)

    async def _accept(self, location: str, job: Any, wanted: Any, *, dry: bool) -> Any:
        for field in _INPUT:
            job.ClearField(field)
            getattr(job, field).MergeFrom(getattr(wanted, field))
        if not wanted.HasField("binary_authorization"):
            job.ClearField("binary_authorization")
        job.client, job.client_version = wanted.client, wanted.client_version
        chosen = wanted.WhichOneof("create_execution")
        job.ClearField(job.WhichOneof("create_execution") or "start_execution_token")
        if chosen is not None:
            setattr(job, chosen, getattr(wanted, chosen))
        job.launch_stage = wanted.launch_stage or launch_stage_pb2.GA
        template.complete(job.template)
        job.generation += 1
        job.last_modifier, job.etag, job.reconciling = template.CREATOR, template.new_etag(), True
        job.update_time.FromNanoseconds(time.time_ns())
        del job.conditions[:]
        conditions.fill(job.terminal_condition, "Ready", conditions.RECONCILING)
        if dry:
            return outcomes.done_operation(location, job)
        with self._records.state.transaction():
            operation = self._operations.create(location, job)
            record = JobRecord(job, "", "", operation.name)
            self._records.put_job(location, record)
        reconciling = self._reconcile_soon(location, record)
        if not self._options.create_delay and not self._operations.delayed(operation.name):
            await asyncio.wait({reconciling}, timeout=_IMPORT_LIMIT)
            return self._operations.get(operation.name)
        return operation

    def _reconcile_soon(self, location: str, record: JobRecord) -> asyncio.Task[None]:
        name = record.job.name
        before = self._reconciling.pop(name, None)
        if before is not None:
            before.cancel()
        task = asyncio.get_running_loop().create_task(self._reconcile(location, record))
        self._reconciling[name] = task
        task.add_done_callback(lambda done: self._reconciling.get(name) is done and self._reconciling.pop(name))
        return task

    async def _reconcile(self, location: str, record: JobRecord) -> None:
        """Imports the job's image and makes the job ready, or failed with the reason; then ends its operation."""
        if self._options.create_delay:
            await asyncio.sleep(self._options.create_delay)
        image = record.job.template.template.containers[0].image
        error: ServiceError | None = None
        try:
            await self._operations.begin(record.operation)
            record.repository, record.digest = self._images.resolve(image)
            await self._images.load(image, record.repository, record.digest)
        except ServiceError as refusal:
            error = refusal
        with self._records.state.transaction():
            current = self._records.job(record.job.name)
            if current is None or current.operation != record.operation:
                self._operations.finish(
                    record.operation, error=ServiceError("ABORTED", "Conflict: the job was changed meanwhile.")
                )
                return
            self._settle(record, error)
            self._records.put_job(location, record)
            if error is not None or not (record.job.start_execution_token or record.job.run_execution_token):
                self._finish_operation(location, record, error)
                return
        self._run_by_token(location, record)

    def _settle(self, record: JobRecord, error: ServiceError | None) -> None:
        job = record.job
        job.reconciling = False
        job.observed_generation = job.generation
        if error is None:
            conditions.fill(job.terminal_condition, "Ready", conditions.SUCCEEDED)
        else:
            reason = conditions.CONTAINER_MISSING if error.code == "NOT_FOUND" else conditions.INTERNAL
            conditions.fill(job.terminal_condition, "Ready", conditions.FAILED, error.message, reason=reason)

    def _finish_operation(self, location: str, record: JobRecord, error: ServiceError | None) -> None:
        operation, record.operation = record.operation, ""
        self._records.put_job(location, record)
        self._operations.finish(operation, record.job, error)

    def _run_by_token(self, location: str, record: JobRecord) -> None:
        """Starts the execution that a token in the job asks for.

        With `start_execution_token` the operation ends when it has started, with `run_execution_token` when it is over.
        """
        job = record.job
        token = job.start_execution_token or job.run_execution_token
        error: ServiceError | None = None
        try:
            self._executions.start(location, record, None, token)
            self._note_new_execution(location, record, f"{job.name}/executions/{job.name.rpartition('/')[2]}-{token}")
        except ServiceError as refusal:
            error = refusal
        if error is not None or job.start_execution_token:
            self._finish_operation(location, record, error)

    # --- RunJob

    def run(self, name: str, overrides: Any | None, etag: str, *, dry: bool) -> Any:
        """Jobs.RunJob; returns the operation, which lasts as long as the execution and names it in its metadata."""
        location, _ = names.job(name, self._project)
        self.count_write()
        record = self.get(name)
        outcomes.check_etag(record.job, etag)
        if record.job.terminal_condition.state != conditions.SUCCEEDED:
            job_id = name.rpartition("/")[2]
            why = (
                record.job.terminal_condition.message
                or "it is still being reconciled; wait for the operation that changes it."
            )
            raise ServiceError("FAILED_PRECONDITION", f"Job '{job_id}' is not ready and cannot be run: {why}")
        if dry:
            return self._executions.start(location, record, overrides, template.suffix(), dry=True)
        with self._records.state.transaction():
            operation = self._executions.start(location, record, overrides, template.suffix())
            started = ExecutionMessage()
            operation.metadata.Unpack(started)
            self._note_new_execution(location, record, started.name)
        return operation

    def _note_new_execution(self, location: str, record: JobRecord, execution: str) -> None:
        job = record.job
        job.execution_count += 1
        latest = job.latest_created_execution
        latest.Clear()
        latest.name = execution.rpartition("/")[2]
        latest.create_time.FromNanoseconds(time.time_ns())
        latest.completion_status = outcomes.RUNNING
        self._records.put_job(location, record)

    def _note_execution(self, execution: Any) -> None:
        """An execution ended: the job's reference to its latest one is brought up to date."""
        record = self._records.job(execution.job)
        if record is None:
            return
        location, job = "/".join(execution.job.split("/")[:4]), record.job
        name = execution.name.rpartition("/")[2]
        if job.latest_created_execution.name == name:
            latest = job.latest_created_execution
            latest.completion_time.CopyFrom(execution.completion_time)
            latest.completion_status = outcomes.completion_status(execution)
            self._records.put_job(location, record)
        if record.operation and job.run_execution_token and name.endswith(f"-{job.run_execution_token}"):
            error = None
            if execution.succeeded_count != execution.task_count:
                error = ServiceError("ABORTED", f"Execution {name} has failed to complete.")
            self._finish_operation(location, record, error)

    # --- the rest

    def get(self, name: str) -> JobRecord:
        """Jobs.GetJob."""
        names.job(name, self._project)
        record = self._records.job(name)
        if record is None:
            self._missing(name)
        return record

    def _missing(self, name: str) -> NoReturn:
        _, project, _, region, _, job_id = name.split("/")
        not_found(f"Resource '{job_id}' of kind 'JOB' in region '{region}' in project '{project}' does not exist.")

    def delete(self, name: str, etag: str, *, dry: bool) -> Any:
        """Jobs.DeleteJob: its executions are terminated and deleted with it; their log entries stay."""
        location, _ = names.job(name, self._project)
        self.count_write()
        record = self.get(name)
        outcomes.check_etag(record.job, etag)
        job = outcomes.deleted(record.job)
        if not dry:
            self._records.delete_job(name)
            self._executions.stop_all(name)
        return outcomes.done_operation(location, job)

    def resume(self) -> None:
        """Takes up reconciliations that a restart interrupted."""
        for record in self._records.reconciling_jobs():
            location = "/".join(record.job.name.split("/")[:4])
            if record.job.reconciling:
                self._reconcile_soon(location, record)
            elif record.job.start_execution_token:
                self._finish_operation(location, record, None)

    async def detach(self) -> None:
        """Stops reconciling; `resume` takes it up."""
        tasks = list(self._reconciling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
