"""Executions of Cloud Run Admin v2: found again, read, cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from control_plane.backends.base import RunOutcome
from control_plane.backends.calls import CloudError, call
from control_plane.backends.gcp.clients import Clients
from control_plane.backends.minute_quota import MinuteQuota

CONTAINER_ID = "SOCKERLESS_CONTAINER_ID"
RUN = "SOCKERLESS_RUN"
_CLOCK_SLACK = 120.0
"""Seconds by which the service's clock may be behind ours."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which run of which container an execution is for: in its environment, RunJob takes no labels."""

    container: str
    run: int

    def matches(self, execution: Any) -> bool:
        """Whether an execution (`run_v2.Execution`) was made for this run."""
        env = environment(execution)
        return env.get(CONTAINER_ID) == self.container and env.get(RUN) == str(self.run)

    def earlier(self, execution: Any) -> int | None:
        """The run that an execution was made for, if it is one of this container up to this one."""
        env = environment(execution)
        run = env.get(RUN, "")
        if env.get(CONTAINER_ID) != self.container or not run.isdecimal():
            return None
        return int(run) if int(run) <= self.run else None


class Executions:
    """The executions of one project and region."""

    def __init__(self, clients: Clients, writes: MinuteQuota) -> None:
        self._clients = clients
        self._writes = writes

    async def find(self, job: str, wanted: Wanted, *, since: float | None = None, total: float = 30.0) -> str | None:
        """The full name of the execution made for a run (not before the Unix time `since`), or None.

        Raises CloudError. Only after a lost answer or a crash: it reads all executions of the job.
        """
        earliest = None if since is None else since - _CLOCK_SLACK
        try:
            async for execution in self.of(job, total=total):
                if earliest is not None and execution.create_time.timestamp() < earliest:
                    continue
                if wanted.matches(execution):
                    return str(execution.name)
        except CloudError as error:
            if error.code != "NOT_FOUND":
                raise
        return None

    async def latest(self, job: str, wanted: Wanted) -> tuple[str, int] | None:
        """The newest execution made for a container, up to the run that is wanted: its full name and its run."""
        found: tuple[str, int] | None = None
        try:
            async for execution in self.of(job):
                run = wanted.earlier(execution)
                if run is not None and (found is None or run > found[1]):
                    found = str(execution.name), run
        except CloudError as error:
            if error.code != "NOT_FOUND":
                raise
        return found

    async def of(self, job: str, *, total: float = 30.0) -> AsyncIterator[Any]:
        """All executions of a job (`run_v2.Execution`); `total` seconds for each page."""
        token = ""
        while True:
            page = await self._page(job, token, total)
            for execution in page.executions:
                yield execution
            token = page.next_page_token
            if not token:
                return

    async def _page(self, job: str, token: str, total: float) -> Any:
        async def attempt(timeout: float) -> Any:
            client = await self._clients.executions()
            request = {"parent": job, "page_size": 100, "page_token": token}
            pager = await client.list_executions(request=request, timeout=timeout, retry=None)
            return await anext(aiter(pager.pages))

        return await call("looking for the container's execution", attempt, total=total)

    async def outcome(self, name: str) -> RunOutcome:
        """How an execution stands. Raises CloudError; one that is gone has finished without a known exit code."""

        async def attempt(timeout: float) -> Any:
            client = await self._clients.executions()
            return await client.get_execution(name=name, timeout=timeout, retry=None)

        try:
            execution = await call("reading the container's execution", attempt)
        except CloudError as error:
            if error.code != "NOT_FOUND":
                raise
            return RunOutcome(finished=True, error="the execution does not exist any more")
        if not execution.completion_time:
            return RunOutcome(finished=False)
        finished_at = datetime.fromtimestamp(execution.completion_time.timestamp(), UTC)
        if execution.succeeded_count and not execution.failed_count:
            return RunOutcome(finished=True, exit_code=0, finished_at=finished_at)
        tasks = await self._tasks(name)
        return outcome_of(execution, tasks, finished_at)

    async def _tasks(self, execution: str) -> list[Any]:
        async def attempt(timeout: float) -> Any:
            client = await self._clients.tasks()
            request = {"parent": execution, "page_size": 1}
            pager = await client.list_tasks(request=request, timeout=timeout, retry=None)
            return await anext(aiter(pager.pages))

        try:
            return list((await call("reading the container's task", attempt)).tasks)
        except CloudError as error:
            if error.code != "NOT_FOUND":
                raise
            return []

    async def cancel(self, name: str) -> None:
        """CancelExecution, not waited for. A finished or unknown one is no error."""

        async def attempt(timeout: float) -> Any:
            client = await self._clients.executions()
            await self._writes.turn()
            return await client.cancel_execution(name=name, timeout=timeout, retry=None)

        try:
            await call("stopping the container", attempt)
        except CloudError as error:
            if error.code not in ("NOT_FOUND", "FAILED_PRECONDITION"):
                raise


def outcome_of(execution: Any, tasks: list[Any], finished_at: datetime | None) -> RunOutcome:
    """The exit code of the one task's last attempt: its code, 128 + its signal, else the platform's own text."""
    result = tasks[0].last_attempt_result if tasks else None
    if result is not None and result.exit_code:
        return RunOutcome(finished=True, exit_code=int(result.exit_code), finished_at=finished_at)
    if result is not None and result.term_signal:
        return RunOutcome(finished=True, exit_code=128 + int(result.term_signal), finished_at=finished_at)
    return RunOutcome(finished=True, error=_failure_text(execution, tasks), finished_at=finished_at)


def _failure_text(execution: Any, tasks: list[Any]) -> str:
    """The condition that failed, from the task or the execution."""
    for holder in (*tasks[:1], execution):
        for condition in holder.conditions:
            if condition.state.name == "CONDITION_FAILED" and condition.message:
                return str(condition.message)
    if tasks and tasks[0].last_attempt_result and tasks[0].last_attempt_result.status.message:
        return str(tasks[0].last_attempt_result.status.message)
    return "the execution was cancelled" if execution.cancelled_count else "the execution failed"


def environment(execution: Any) -> dict[str, str]:
    """The environment an execution's first container was given."""
    containers = execution.template.containers
    return {variable.name: variable.value for variable in containers[0].env} if containers else {}
