"""What start and end write into tasks and executions: times, counts, conditions, attempt results.

Pure but for the clock.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from google.cloud import run_v2
from google.longrunning import operations_pb2

from local_cloud.errors import ServiceError
from local_cloud.gcp.run import conditions, records
from local_cloud.gcp.run.attempts import CANCELLED_TEXT, Outcome
from local_cloud.gcp.run.records import TaskRecord
from local_cloud.gcp.run.template import new_etag


def done_operation(parent: str, response: Any) -> Any:
    """An operation that was over at once and is kept nowhere."""
    operation = operations_pb2.Operation(name=f"{parent}/operations/{uuid.uuid4()}", done=True)
    operation.metadata.Pack(response)
    operation.response.Pack(response)
    return operation


def check_etag(resource: Any, etag: str) -> None:
    """Raises ServiceError ABORTED when the caller names another version than the current one."""
    if etag and etag != resource.etag:
        raise ServiceError(
            "ABORTED", f"Conflict for resource '{resource.name.rpartition('/')[2]}': the etag does not match."
        )


def deleted(resource: Any) -> Any:
    """Marks a resource's deletion."""
    resource.delete_time.FromNanoseconds(time.time_ns())
    return resource


def _touch(resource: Any) -> None:
    resource.update_time.FromNanoseconds(time.time_ns())
    resource.etag = new_etag()


def task_started(task: Any, attempt: int) -> None:
    """A task's attempt begins."""
    _touch(task)
    task.start_time.FromNanoseconds(time.time_ns())
    task.retried = attempt
    conditions.put(task, "Started", conditions.SUCCEEDED)


def execution_started(execution: Any, tasks: list[TaskRecord]) -> None:
    """The first container of an execution is about to start."""
    if not execution.HasField("start_time"):
        execution.start_time.FromNanoseconds(time.time_ns())
        conditions.put(execution, "ResourcesAvailable", conditions.SUCCEEDED, "Provisioned resources.")
        conditions.put(execution, "Started", conditions.SUCCEEDED, "Started deployed execution.")
    count(execution, tasks)


def count(execution: Any, tasks: list[TaskRecord]) -> None:
    """Brings an execution's counts in line with its tasks."""
    running = succeeded = failed = cancelled = 0
    for record in tasks:
        if record.phase == records.STARTED:
            running += 1
        elif record.phase == records.DONE:
            state = _completed(record.task)
            succeeded += state.state == conditions.SUCCEEDED
            stopped = state.execution_reason in (conditions.CANCELLED, conditions.DELETED)
            cancelled += stopped
            failed += state.state == conditions.FAILED and not stopped
    execution.running_count, execution.succeeded_count = running, succeeded
    execution.failed_count, execution.cancelled_count = failed, cancelled
    _touch(execution)


def _completed(resource: Any) -> Any:
    return next(condition for condition in resource.conditions if condition.type_ == "Completed")


def attempt_ended(task: Any, outcome: Outcome, *, again: bool) -> None:
    """An attempt is over; unless it is tried again, so is the task."""
    _touch(task)
    result = task.last_attempt_result
    result.Clear()
    result.exit_code, result.term_signal = outcome.exit_code, outcome.term_signal
    result.status.code, result.status.message = outcome.code, outcome.message
    task.last_attempt_result.SetInParent()
    if again:
        conditions.put(task, "Retry", conditions.RECONCILING, outcome.message, reason=0)
        return
    task.reconciling = False
    task.observed_generation = task.generation
    task.completion_time.FromNanoseconds(int(outcome.finished_at * 1e9) or time.time_ns())
    if outcome.succeeded:
        conditions.put(task, "Completed", conditions.SUCCEEDED)
        return
    stopped = outcome.message == CANCELLED_TEXT
    reason = conditions.CANCELLED if stopped else conditions.NON_ZERO_EXIT_CODE
    conditions.put(task, "Completed", conditions.FAILED, outcome.message, execution_reason=reason)


def stopping(execution: Any) -> None:
    """Somebody cancels or deletes a running execution."""
    _touch(execution)
    conditions.put(execution, "Completed", conditions.RECONCILING, "", execution_reason=conditions.CANCELLING)


def execution_ended(execution: Any, tasks: list[TaskRecord], reason: str) -> ServiceError | None:
    """All tasks are over. The error for RunJob's operation: none when it succeeded or was cancelled
    (a cancelled execution's operation ends with the execution as its response: apache/airflow#57791)."""
    count(execution, tasks)
    ends = [record.task.completion_time.ToNanoseconds() for record in tasks if record.task.HasField("completion_time")]
    execution.completion_time.FromNanoseconds(max(ends, default=time.time_ns()))
    execution.reconciling = False
    execution.observed_generation = execution.generation
    name = execution.name.rpartition("/")[2]
    if execution.succeeded_count == execution.task_count:
        seconds = (execution.completion_time.ToNanoseconds() - execution.start_time.ToNanoseconds()) / 1e9
        text = f"Execution completed successfully in {seconds:.2f}s."
        conditions.put(execution, "Completed", conditions.SUCCEEDED, text)
        return None
    if reason:
        why = conditions.DELETED if reason == "delete" else conditions.CANCELLED
        conditions.put(execution, "Completed", conditions.FAILED, CANCELLED_TEXT, execution_reason=why)
        return None
    first = next(record.task for record in tasks if _completed(record.task).state == conditions.FAILED)
    text = f"Task {first.name.rpartition('/')[2]} failed with message: {_completed(first).message}"
    conditions.put(execution, "Completed", conditions.FAILED, text, execution_reason=conditions.NON_ZERO_EXIT_CODE)
    done = f"{execution.succeeded_count}/{execution.task_count} tasks were a success."
    return ServiceError("ABORTED", f"Execution {name} has failed to complete, {done}")


_Status = run_v2.ExecutionReference.CompletionStatus
RUNNING = int(_Status.EXECUTION_RUNNING)


def completion_status(execution: Any) -> int:
    """How an ended execution stands in its job's reference to it."""
    if execution.succeeded_count == execution.task_count:
        return int(_Status.EXECUTION_SUCCEEDED)
    stopped = _completed(execution).execution_reason in (conditions.CANCELLED, conditions.DELETED)
    return int(_Status.EXECUTION_CANCELLED if stopped else _Status.EXECUTION_FAILED)
