"""Finds what crashes leave behind: executions and jobs of containers that are gone, templates nobody uses."""

from __future__ import annotations

import time
from typing import Any

from control_plane.backends.cloud_run.executions import CONTAINER_ID, Executions, environment
from control_plane.backends.cloud_run.jobs import Jobs
from control_plane.backends.gcp import labels

IDLE = 3600.0
"""Seconds after which a template that nothing runs in is removed."""


class Sweep:
    """One pass over the endpoint's jobs."""

    def __init__(self, jobs: Jobs, executions: Executions, known: set[str], grace: float) -> None:
        self._jobs = jobs
        self._executions = executions
        self._known = known
        self._grace = grace
        self._known_values = {labels.container_value(container) for container in known}
        self._now = time.time()
        self.deleted_jobs: list[str] = []

    async def run(self) -> int:
        """Returns how many resources were removed or cancelled. Raises CloudError."""
        removed = 0
        async for job in self._jobs.ours():
            removed += await self._job(job)
        return removed

    async def _job(self, job: Any) -> int:
        if self._now - _seconds(job.create_time) < self._grace:
            return 0
        job_id = job.name.rpartition("/")[2]
        owner = dict(job.labels).get(labels.CONTAINER)
        if owner is not None:
            if owner in self._known_values:
                return 0
            return await self._delete(job_id)
        cancelled, running, last = await self._shared_executions(job)
        if running == 0 and cancelled == 0 and self._now - max(last, _seconds(job.create_time)) >= IDLE:
            # The etag changes when somebody runs the job meanwhile: then it is not idle.
            return await self._delete(job_id, job.etag)
        return cancelled

    async def _delete(self, job_id: str, etag: str = "") -> int:
        if not await self._jobs.delete(job_id, etag):
            return 0
        self.deleted_jobs.append(job_id)
        return 1

    async def _shared_executions(self, job: Any) -> tuple[int, int, float]:
        """(cancelled, left running, last activity) of a template's executions; cancels orphans."""
        latest = job.latest_created_execution
        last = max(_seconds(latest.create_time), _seconds(latest.completion_time)) if latest else 0.0
        cancelled = running = 0
        async for execution in self._executions.of(job.name):
            last = max(last, _seconds(execution.create_time), _seconds(execution.completion_time))
            if execution.completion_time:
                continue
            young = self._now - _seconds(execution.create_time) < self._grace
            if young or environment(execution).get(CONTAINER_ID) in self._known:
                running += 1
                continue
            await self._executions.cancel(execution.name)
            cancelled += 1
        return cancelled, running, last


def _seconds(at: Any) -> float:
    return float(at.timestamp()) if at else 0.0
