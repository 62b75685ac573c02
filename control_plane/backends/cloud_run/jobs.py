"""Jobs of Cloud Run Admin v2: run, create, delete, list. Counts its writes against the project's quota."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from control_plane.backends.calls import AMBIGUOUS, TRANSIENT, UNSENT, CloudError, call, failure_of, pause_before
from control_plane.backends.cloud_run.executions import Executions, Wanted
from control_plane.backends.cloud_run.job import CONTAINER_NAME, JobPlan
from control_plane.backends.gcp import labels
from control_plane.backends.gcp.clients import Clients
from control_plane.backends.gcp.operations import finished
from control_plane.backends.minute_quota import MinuteQuota

_STARTING = "starting the container"
_START_DEADLINE = 60.0
_WAITING = "waiting for the container's job"
_CONDITION_FAILED = 3
"""`run_v2.Condition.State.CONDITION_FAILED`."""
_CONDITIONS_UNDER_WAY = (1, 2)
"""`CONDITION_PENDING` and `CONDITION_RECONCILING`."""
_LOOK_AGAIN = 0.25
"""Seconds between two looks at a job that another control plane makes."""
_CREATE_DEADLINE = 120.0


class Jobs:
    """The jobs of one project and region."""

    def __init__(self, clients: Clients, parent: str, endpoint_name: str, executions: Executions, writes: MinuteQuota):
        self._clients = clients
        self._parent = parent
        self._endpoint_name = endpoint_name
        self._executions = executions
        self._writes = writes

    def name(self, job_id: str) -> str:
        """The full resource name."""
        return f"{self._parent}/jobs/{job_id}"

    async def run(self, job_id: str, env: dict[str, str], wanted: Wanted) -> str:
        """RunJob; returns the execution's full name as soon as the service accepted it.

        The operation is not waited for: it lasts as long as the execution. After a lost answer the execution is looked
        for before the job is run again. Raises CloudError (NOT_FOUND when there is no such job).
        """
        request = self._run_request(job_id, env)
        loop = asyncio.get_running_loop()
        ends = loop.time() + _START_DEADLINE
        begun = time.time()
        tries = 0
        while True:
            try:
                return await self._run_once(request)
            except Exception as error:
                failure = failure_of(error, _STARTING)
                if failure is None:
                    raise
                pause = pause_before(tries, failure.code)
                again = failure.code in UNSENT or failure.code in AMBIGUOUS
                if not again or loop.time() + pause >= ends:
                    raise failure from error
            tries += 1
            await asyncio.sleep(pause)
            if failure.code in AMBIGUOUS:
                found = await self._executions.find(
                    self.name(job_id), wanted, since=begun, total=max(ends - loop.time(), 0.5)
                )
                if found is not None:
                    return found

    def _run_request(self, job_id: str, env: dict[str, str]) -> dict[str, Any]:
        override: dict[str, Any] = {"name": CONTAINER_NAME}
        if env:
            override["env"] = [{"name": name, "value": value} for name, value in env.items()]
        return {"name": self.name(job_id), "overrides": {"container_overrides": [override]}}

    async def _run_once(self, request: dict[str, Any]) -> str:
        client = await self._clients.jobs()
        await self._writes.turn()
        operation = await client.run_job(request=request, timeout=15.0, retry=None)
        return str(operation.metadata.name)

    async def create(self, plan: JobPlan) -> None:
        """CreateJob, waited for; a job that is there with the same content is success, another content is updated."""
        request = {"parent": self._parent, "job_id": plan.job_id, "job": plan.job}

        async def attempt(timeout: float) -> Any:
            client = await self._clients.jobs()
            await self._writes.turn()
            return await client.create_job(request=request, timeout=timeout, retry=None)

        try:
            operation = await call("creating the container's job", attempt, total=_CREATE_DEADLINE, each=30.0)
            await finished(operation, _WAITING, total=_CREATE_DEADLINE)
        except CloudError as error:
            if error.code != "ALREADY_EXISTS":
                raise
            await self._take_over(plan, error)

    async def ensure(self, plan: JobPlan) -> None:
        """The job with this content, made or updated: for jobs of one container, off the fast path."""
        try:
            found = await self._get(plan.job_id)
        except CloudError as error:
            if error.code != "NOT_FOUND":
                raise
            await self.create(plan)
            return
        await self._update_if_different(plan, found)

    async def _take_over(self, plan: JobPlan, conflict: CloudError) -> None:
        """The name is taken: by an earlier try of ours, another control plane, or a stranger."""
        found = await self._get(plan.job_id)
        if not labels.is_ours(found.labels, self._endpoint_name):
            raise CloudError(
                "FAILED_PRECONDITION", f"a job {plan.job_id} exists that is not ours", conflict.doing
            ) from conflict
        await self._update_if_different(plan, found)

    async def _update_if_different(self, plan: JobPlan, found: Any) -> None:
        ends = asyncio.get_running_loop().time() + _CREATE_DEADLINE
        while dict(found.labels).get(labels.TEMPLATE) == plan.template and not _has_failed(found):
            if not _is_pending(found):
                return
            # Another control plane makes it at this moment, or did until it was killed; not ready, it refuses to run.
            if asyncio.get_running_loop().time() > ends:
                raise CloudError("DEADLINE_EXCEEDED", "it is not ready", _WAITING)
            await asyncio.sleep(_LOOK_AGAIN)
            found = await self._get(plan.job_id)
        job = {**plan.job, "name": self.name(plan.job_id), "etag": found.etag}

        async def attempt(timeout: float) -> Any:
            client = await self._clients.jobs()
            await self._writes.turn()
            return await client.update_job(request={"job": job}, timeout=timeout, retry=None)

        operation = await call("updating the container's job", attempt, total=_CREATE_DEADLINE, each=30.0)
        await finished(operation, _WAITING, total=_CREATE_DEADLINE)

    async def _get(self, job_id: str) -> Any:
        async def attempt(timeout: float) -> Any:
            client = await self._clients.jobs()
            return await client.get_job(name=self.name(job_id), timeout=timeout, retry=None)

        return await call("reading the container's job", attempt)

    async def delete(self, job_id: str, etag: str = "") -> bool:
        """DeleteJob with its executions; False when it is gone already (or `etag` is not current any more).

        Not waited for: nothing depends on it.
        """
        request = {"name": self.name(job_id), "etag": etag}

        async def attempt(timeout: float) -> Any:
            client = await self._clients.jobs()
            await self._writes.turn()
            return await client.delete_job(request=request, timeout=timeout, retry=None)

        try:
            await call("removing the container's job", attempt, repeat=TRANSIENT)
        except CloudError as error:
            if error.code == "NOT_FOUND" or (etag and error.code in ("ABORTED", "FAILED_PRECONDITION")):
                return False
            raise
        return True

    async def ours(self) -> AsyncIterator[Any]:
        """All jobs of this endpoint (`run_v2.Job`)."""
        token = ""
        while True:
            page = await self._page(token)
            for job in page.jobs:
                if labels.is_ours(job.labels, self._endpoint_name):
                    yield job
            token = page.next_page_token
            if not token:
                return

    async def _page(self, token: str) -> Any:
        async def attempt(timeout: float) -> Any:
            client = await self._clients.jobs()
            request = {"parent": self._parent, "page_size": 100, "page_token": token}
            pager = await client.list_jobs(request=request, timeout=timeout, retry=None)
            return await anext(aiter(pager.pages))

        return await call("listing the endpoint's jobs", attempt)


def _is_pending(job: Any) -> bool:
    """Whether the operation that makes or changes it goes on."""
    return bool(job.terminal_condition.state in _CONDITIONS_UNDER_WAY)


def _has_failed(job: Any) -> bool:
    """Its last change was accepted and then not carried out: it cannot be run as it is."""
    return bool(job.terminal_condition.state == _CONDITION_FAILED)
