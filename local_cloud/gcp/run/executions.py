"""Executions: started, driven to their end task by task, cancelled, deleted, and taken up again after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from local_cloud.errors import ServiceError, invalid, not_found
from local_cloud.gcp.logging.model import Logs
from local_cloud.gcp.operations import Operations
from local_cloud.gcp.run import outcomes, records, template
from local_cloud.gcp.run.attempts import CANCELLED_TEXT, Attempt, Attempts, Outcome, failed
from local_cloud.gcp.run.records import ExecutionRecord, JobRecord, Records, TaskRecord
from local_cloud.images import ImageContent, Images
from local_cloud.options import Options

_log = logging.getLogger(__name__)
_RETRY_FIRST, _RETRY_LAST = 1.0, 30.0


@dataclass(slots=True)
class _Running:
    """An execution being driven by this process."""

    record: ExecutionRecord
    tasks: list[TaskRecord]
    attempts: dict[int, Attempt] = field(default_factory=dict)
    driver: asyncio.Task[None] | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Executions:
    """All executions of the local cloud."""

    def __init__(
        self, stored: Records, operations: Operations, images: Images, attempts: Attempts, logs: Logs, options: Options
    ) -> None:
        self._records = stored
        self._operations = operations
        self._images = images
        self._attempts = attempts
        self._logs = logs
        self._options = options
        self._running: dict[str, _Running] = {}
        self._clearing: set[asyncio.Task[None]] = set()
        self.ended: Callable[[Any], None] = lambda _execution: None
        """Called with each execution that ends, inside the transaction that records it."""

    # --- RunJob

    def start(self, parent: str, job: JobRecord, overrides: Any | None, ending: str, *, dry: bool = False) -> Any:
        """RunJob: a new execution of a job; returns its operation. `dry` only checks."""
        execution = template.new_execution(job.job, ending)
        if overrides is not None:
            template.override(execution, overrides)
        limit = self._options.quotas.running_executions
        if limit is not None and self._records.count_running(parent) >= limit:
            raise ServiceError(
                "RESOURCE_EXHAUSTED", f"Quota exceeded for running executions per region: the limit is {limit}."
            )
        if self._records.execution(execution.name) is not None:
            name = execution.name.rpartition("/")[2]
            raise ServiceError("ALREADY_EXISTS", f"Resource '{name}' already exists.")
        tasks = [
            TaskRecord(template.new_task(execution, number), 0, records.PENDING)
            for number in range(execution.task_count)
        ]
        if dry:
            return outcomes.done_operation(parent, execution)
        self._records.state.check_room()
        with self._records.state.transaction():
            operation = self._operations.create(parent, execution)
            record = ExecutionRecord(execution, operation.name, "", job.repository, job.digest)
            self._records.add_execution(parent, job.job.name, record, tasks)
            # Once it is sure that there is such an execution: RunJob notes it in the job, too.
            self._records.state.after_commit(lambda: self._drive(_Running(record, tasks)))
        return operation

    def _drive(self, running: _Running) -> None:
        self._running[running.record.execution.name] = running
        running.driver = asyncio.get_running_loop().create_task(self._keep_at(running))

    # --- after a restart

    async def resume(self) -> None:
        """Takes up what an earlier process left running, and frees containers nobody waits for."""
        known = await self._attempts.known()
        wanted: set[str] = set()
        for record in self._records.running_executions():
            tasks = self._records.tasks(record.execution.name)
            for task in tasks:
                if task.phase == records.STARTED:
                    attempt = Attempt(self._attempts.id_of(record.execution, task.task, task.attempt))
                    wanted.add(attempt.id)
            self._drive(_Running(record, tasks))
        for container in set(known) - wanted:
            if not container[:1].isdigit():  # a digit begins the id of an instance that answers requests
                await self._attempts.clear(container)

    async def detach(self) -> None:
        """Stops driving; the containers go on."""
        drivers = [running.driver for running in self._running.values() if running.driver is not None]
        for task in [*drivers, *self._clearing]:
            task.cancel()
        await asyncio.gather(*drivers, *self._clearing, return_exceptions=True)
        self._running.clear()

    # --- the drive

    async def _run(self, running: _Running) -> None:
        execution = running.record.execution
        try:
            if self._options.start_delay and not execution.HasField("start_time"):
                await self._delay(running)
            image = await self._image(running)
            if execution.task_count == 1:
                await self._task(running, running.tasks[0], image)
            else:
                slots = asyncio.Semaphore(execution.parallelism or execution.task_count)

                async def one(task: TaskRecord) -> None:
                    async with slots:
                        await self._task(running, task, image)

                await asyncio.gather(*(one(task) for task in running.tasks))
            self._end(running)
        finally:
            self._running.pop(execution.name, None)

    async def _keep_at(self, running: _Running) -> None:
        """Drives an execution; what goes wrong on this side (a full disk, say) is tried again until it works."""
        pause = _RETRY_FIRST
        while True:
            try:
                return await self._run(running)
            except ServiceError as error:
                _log.warning("execution %s stands still: %s", running.record.execution.name, error.message)
            except Exception:
                _log.exception("execution %s could not be driven; again in %d s", running.record.execution.name, pause)
            self._running[running.record.execution.name] = running
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY_LAST)

    async def _delay(self, running: _Running) -> None:
        due = running.record.execution.create_time.ToNanoseconds() / 1e9 + self._options.start_delay
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(running.wake.wait(), max(due - time.time(), 0.0))

    async def _image(self, running: _Running) -> ImageContent | ServiceError:
        record = running.record
        try:
            await self._operations.begin(record.operation)
            return await self._images.load(
                record.execution.template.containers[0].image, record.repository, record.digest
            )
        except ServiceError as error:
            return error

    async def _task(self, running: _Running, task: TaskRecord, image: ImageContent | ServiceError) -> None:
        while task.phase != records.DONE:
            if running.record.stopping and task.phase == records.PENDING:
                outcome = failed("CANCELLED", CANCELLED_TEXT)
            else:
                outcome = await self._attempt(running, task, image)
                await self._logs.drain(self._attempts.output(running.record.execution, task.task, task.attempt))
            self._settle(running, task, outcome)

    async def _attempt(self, running: _Running, task: TaskRecord, image: ImageContent | ServiceError) -> Outcome:
        execution = running.record.execution
        attempt = Attempt(self._attempts.id_of(execution, task.task, task.attempt))
        running.attempts[task.task.index] = attempt
        adopted = task.phase == records.STARTED and attempt.id in await self._attempts.known()
        try:
            if not adopted and task.phase == records.STARTED:
                if running.record.stopping:
                    return failed("CANCELLED", CANCELLED_TEXT)
                if self._attempts.output(execution, task.task, task.attempt)[0].exists():
                    # It ran, and went with the runtime: the user's command is not run a second time behind their back.
                    return failed("UNAVAILABLE", "The container was lost with the machine that ran it.")
            if not adopted and isinstance(image, ServiceError):
                return failed(image.code, image.message)
            if not adopted and not isinstance(image, ServiceError):
                self._note_start(running, task)
                refused = await self._attempts.start(attempt, execution, task.task, task.attempt, image)
                if refused is not None:
                    return refused
            if running.record.stopping:
                self._attempts.stop(attempt, running.record.stopping)
            started = task.task.start_time.ToNanoseconds() / 1e9
            return await self._attempts.finish(attempt, started, task.task.timeout.ToMilliseconds() / 1000)
        finally:
            running.attempts.pop(task.task.index, None)

    def _note_start(self, running: _Running, task: TaskRecord) -> None:
        execution, phase = running.record.execution, task.phase
        try:
            self._write_start(running, task, execution)
        except ServiceError:
            task.phase = phase  # nothing was written: the next try begins anew
            raise

    def _write_start(self, running: _Running, task: TaskRecord, execution: Any) -> None:
        with self._records.state.transaction():
            known = task.phase == records.STARTED
            task.phase = records.STARTED
            outcomes.task_started(task.task, task.attempt)
            outcomes.execution_started(execution, running.tasks)
            if not known:
                stdout, stderr = self._attempts.output(execution, task.task, task.attempt)
                self._logs.follow(execution.name, task.task.index, stdout, stderr)
            self._records.put_task(task)
            self._records.put_execution(running.record)

    def _settle(self, running: _Running, task: TaskRecord, outcome: Outcome) -> None:
        """Records an attempt's end: the task is done, or goes into its next attempt."""
        execution = running.record.execution
        container = self._attempts.id_of(execution, task.task, task.attempt)
        again = not outcome.succeeded and not running.record.stopping and task.attempt < task.task.max_retries
        with self._records.state.transaction():
            self._logs.close(self._attempts.output(execution, task.task, task.attempt))
            outcomes.attempt_ended(task.task, outcome, again=again)
            if again:
                task.attempt += 1
                task.phase = records.PENDING
                execution.retried_count += 1
            else:
                task.phase = records.DONE
            self._records.put_task(task)
            outcomes.count(execution, running.tasks)
            self._records.put_execution(running.record)
        clearing = asyncio.get_running_loop().create_task(self._attempts.clear(container))
        self._clearing.add(clearing)
        clearing.add_done_callback(self._clearing.discard)

    def _end(self, running: _Running) -> None:
        record = running.record
        with self._records.state.transaction():
            error = outcomes.execution_ended(record.execution, running.tasks, record.stopping)
            self._records.put_execution(record)
            self.ended(record.execution)
            self._operations.finish(record.operation, record.execution, error)
            if record.stopping == "delete":
                self._records.delete_execution(record.execution.name)

    # --- the other methods

    def get(self, name: str) -> ExecutionRecord:
        """Executions.GetExecution."""
        record = self._records.execution(name)
        if record is None:
            _, project, _, region, _, _, _, execution = name.split("/")
            not_found(
                f"Resource '{execution}' of kind 'EXECUTION' in region '{region}' in project '{project}' "
                "does not exist."
            )
        return record

    def cancel(self, parent: str, name: str, etag: str, *, dry: bool = False) -> Any:
        """Executions.CancelExecution: SIGTERM, the grace, SIGKILL; returns the operation."""
        record = self.get(name)
        outcomes.check_etag(record.execution, etag)
        if record.execution.HasField("completion_time"):
            raise ServiceError(
                "FAILED_PRECONDITION",
                f"Execution '{name.rpartition('/')[2]}' has already completed and cannot be cancelled.",
            )
        if dry:
            return outcomes.done_operation(parent, record.execution)
        return self._stop(parent, name, "cancel")

    def delete(self, parent: str, name: str, etag: str, *, dry: bool = False) -> Any:
        """Executions.DeleteExecution.

        A running one is terminated first: the API's ExecutionReason DELETED says the service does so.
        """
        record = self.get(name)
        outcomes.check_etag(record.execution, etag)
        if dry or record.execution.HasField("completion_time"):
            if not dry:
                self._records.delete_execution(name)
            return outcomes.done_operation(parent, outcomes.deleted(record.execution))
        return self._stop(parent, name, "delete")

    def stop_all(self, job: str) -> None:
        """Deletes all executions of a job, as deleting the job does."""
        for record in self._records.executions_of(job):
            if record.execution.HasField("completion_time"):
                self._records.delete_execution(record.execution.name)
            elif record.stopping != "delete":
                self._stop("/".join(job.split("/")[:4]), record.execution.name, "delete")

    def _stop(self, parent: str, name: str, reason: str) -> Any:
        running = self._running.get(name)
        if running is None:
            invalid(f"Execution '{name.rpartition('/')[2]}' is not being driven; restart the local cloud.")
        record = running.record
        with self._records.state.transaction():
            record.stopping = reason
            outcomes.stopping(record.execution)
            self._records.put_execution(record)
            operation = self._operations.create(parent, record.execution)
        running.wake.set()
        for attempt in running.attempts.values():
            self._attempts.stop(attempt, reason)
        driver = running.driver

        def finish(_driver: asyncio.Task[None]) -> None:
            if record.execution.HasField("completion_time"):
                self._operations.finish(operation.name, record.execution)

        if driver is not None:
            driver.add_done_callback(finish)
        return operation
