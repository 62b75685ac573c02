"""The Cloud Run backend: a container is an execution of a job whose first process is the agent."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from control_plane.backends.agent_image import ImageContents
from control_plane.backends.base import Capabilities, Ended, LogLine, PlatformMount, RunOutcome
from control_plane.backends.binds import platform_volumes
from control_plane.backends.callback import callback_urls
from control_plane.backends.calls import CloudError, docker_errors
from control_plane.backends.cloud_run import capabilities, injection, without_agent
from control_plane.backends.cloud_run.agent_volume import AgentVolume
from control_plane.backends.cloud_run.executions import CONTAINER_ID, RUN, Executions, Wanted
from control_plane.backends.cloud_run.job import JobPlan, agent_job, plain_job
from control_plane.backends.cloud_run.jobs import Jobs
from control_plane.backends.cloud_run.settings import CloudRunSettings
from control_plane.backends.cloud_run.sweep import Sweep
from control_plane.backends.gcp.archive import Archive
from control_plane.backends.gcp.clients import Clients
from control_plane.backends.gcp.log_entries import Source
from control_plane.backends.gcp.logs import LogReader
from control_plane.backends.minute_quota import MinuteQuota
from control_plane.errors import NotServed
from control_plane.model import Container, Execution, Image

CALLBACK_URL = "SOCKERLESS_CALLBACK_URL"
AGENT_TOKEN = "SOCKERLESS_AGENT_TOKEN"  # noqa: S105 (a name)
_REMEMBERED = 10_000
_UNFIT = frozenset({"NOT_FOUND", "FAILED_PRECONDITION"})
"""RunJob of a job that is not there, or whose last change has failed: it is made, or changed once more."""

K = TypeVar("K")


class CloudRunBackend:
    """Implements `backends.base.Backend`. Holds only what can be found again: which jobs are known to exist."""

    def __init__(
        self,
        settings: CloudRunSettings,
        clients: Clients,
        images: ImageContents,
        agent_volume: AgentVolume | None = None,
        *,
        writes: MinuteQuota | None = None,
        log_reads: MinuteQuota | None = None,
    ) -> None:
        """`writes` and `log_reads` are the project's quotas where another backend draws on them too."""
        self._settings = settings
        self._clients = clients
        self._images = images
        self._agent_volume = agent_volume
        self._capabilities = capabilities.capabilities(settings)
        writes = writes or MinuteQuota("Cloud Run Admin write requests per minute", settings.writes_per_minute)
        self._executions = Executions(clients, writes)
        self._jobs = Jobs(clients, settings.parent, settings.endpoint_name, self._executions, writes)
        reader = LogReader(
            clients,
            settings.project,
            log_id=settings.log_id,
            reads_per_minute=settings.log_reads_per_minute,
            quota=log_reads,
        )
        self._archive = Archive(reader, _origin, self._finished, settings.log_drain)
        self._existing: OrderedDict[str, None] = OrderedDict()
        self._asked: OrderedDict[tuple[str, int, bool], None] = OrderedDict()
        self._making: dict[str, asyncio.Lock] = {}

    @property
    def capabilities(self) -> Capabilities:
        """What Cloud Run can do."""
        return self._capabilities

    async def warm(self) -> None:
        """Loads the SDKs and opens the channel; for after the listeners are up."""
        await self._clients.warm()

    def check(self, container: Container) -> list[str]:
        """See `Backend.check`."""
        return capabilities.check(container, self._settings)

    async def check_image(self, container: Container, image: Image) -> None:
        """See `Backend.check_image`. In `auto` with a writable registry it looks at nothing but the image's record."""
        if self._settings.injection != "none":
            await injection.check(image, self._settings, self._images)
            return
        refused = [*without_agent.refusals(container, image), *without_agent.terminal_refusal(container)]
        if refused:
            raise NotServed(
                "this endpoint runs containers without agent (SOCKERLESS_GCR_INJECTION=none), which cannot serve "
                + "; ".join(refused)
            )

    def platform_mounts(self, container: Container) -> list[PlatformMount]:
        """See `Backend.platform_mounts`."""
        return platform_volumes(container, self._settings.rules, self._settings.volume_root)[1]

    def follow(self, ended: Ended) -> None:
        """Nothing comes unasked: executions are looked at when somebody wants to know."""

    async def prepare(
        self, container: Container, image: Image, agent_token: str, *, gateways: Sequence[str] = ()
    ) -> None:
        """Nothing: the job is made, or found, by the first start."""

    async def hold(self, container: Container, *, gateways: Sequence[str] = ()) -> None:
        """Nothing: an execution is no request."""

    async def rest(self, container: Container) -> None:
        """Nothing: an execution ends with its agent."""

    async def run(
        self,
        container: Container,
        image: Image,
        agent_token: str,
        *,
        agentless: bool = False,
        recovering: bool = False,
        gateways: Sequence[str] = (),
    ) -> Execution:
        """See `Backend.run`. The second run of an image and shape is one write (RunJob) and no read."""
        run = container.state.run
        wanted = Wanted(container.id, run)
        agentless = agentless or self._settings.injection == "none"
        asked = (container.id, run, agentless)
        with docker_errors():
            plan = await self._plan(container, image, agentless=agentless)
            env = {} if agentless else self._agent_env(container, agent_token, gateways)
            env |= {CONTAINER_ID: container.id, RUN: str(run)}
            name = None
            if recovering or asked in self._asked:
                name = await self._executions.find(self._jobs.name(plan.job_id), wanted)
            _remember(self._asked, asked)
            if name is None:
                name = await (self._run_plain if agentless else self._run_shared)(plan, env, wanted)
        return _execution(name, plan, run, agentless=agentless)

    async def find(self, container: Container, image: Image) -> Execution | None:
        """See `Backend.find`. Later runs that its agent was given over the link have no execution of their own."""
        wanted = Wanted(container.id, container.state.run)
        agentless = self._settings.injection == "none"
        with docker_errors():
            plan = await self._plan(container, image, agentless=agentless)
            found = await self._executions.latest(self._jobs.name(plan.job_id), wanted)
        return None if found is None else _execution(found[0], plan, found[1], agentless=agentless)

    async def _plan(self, container: Container, image: Image, *, agentless: bool) -> JobPlan:
        if agentless:
            return plain_job(container, image, self._settings)
        launch = await injection.choose(image, self._settings, self._images, self._agent_volume)
        return agent_job(container, launch, self._settings)

    def _agent_env(self, container: Container, agent_token: str, gateways: Sequence[str]) -> dict[str, str]:
        return {
            CALLBACK_URL: callback_urls(self._settings.callback_url, container, gateways),
            CONTAINER_ID: container.id,
            AGENT_TOKEN: agent_token,
        }

    async def _run_shared(self, plan: JobPlan, env: dict[str, str], wanted: Wanted) -> str:
        """RunJob at once; only when there is no such job it is made. One maker a job, the others wait for it."""
        if plan.job_id in self._existing:
            try:
                return await self._jobs.run(plan.job_id, env, wanted)
            except CloudError as error:
                if error.code not in _UNFIT:
                    raise
                self._existing.pop(plan.job_id, None)  # swept, or changed in vain, by another control plane
        lock = self._making.setdefault(plan.job_id, asyncio.Lock())
        try:
            async with lock:
                if plan.job_id not in self._existing:
                    name = await self._run_or_create(plan, env, wanted)
                    _remember(self._existing, plan.job_id)
                    return name
        finally:
            if not lock.locked():
                self._making.pop(plan.job_id, None)
        return await self._jobs.run(plan.job_id, env, wanted)

    async def _run_or_create(self, plan: JobPlan, env: dict[str, str], wanted: Wanted) -> str:
        try:
            return await self._jobs.run(plan.job_id, env, wanted)
        except CloudError as error:
            if error.code not in _UNFIT:
                raise
        await self._jobs.create(plan)
        return await self._jobs.run(plan.job_id, env, wanted)

    async def _run_plain(self, plan: JobPlan, env: dict[str, str], wanted: Wanted) -> str:
        await self._jobs.ensure(plan)
        return await self._jobs.run(plan.job_id, env, wanted)

    async def outcome(self, execution: Execution) -> RunOutcome:
        """See `Backend.outcome`."""
        with docker_errors():
            return await self._executions.outcome(execution.name)

    async def _finished(self, container: Container) -> bool:
        execution = container.execution
        return execution is None or (await self._executions.outcome(execution.name)).finished

    async def cancel(self, execution: Execution) -> None:
        """See `Backend.cancel`."""
        with docker_errors():
            await self._executions.cancel(execution.name)

    async def remove(self, container: Container) -> None:
        """Deletes the container's own job, if it had one. Shared jobs stay for the next container."""
        execution = container.execution
        if execution is None or not _own_job(execution.job, container):
            return
        with docker_errors():
            await self._jobs.delete(execution.job)
        self._existing.pop(execution.job, None)

    async def logs(
        self, container: Container, *, since: int | None, until: int | None, tail: int | None, follow: bool
    ) -> AsyncIterator[LogLine]:
        """See `Backend.logs`."""
        with docker_errors():
            async for line in self._archive.lines(container, since=since, until=until, tail=tail, follow=follow):
                yield line

    async def sweep(self, known: set[str]) -> int:
        """See `Backend.sweep`."""
        sweep = Sweep(self._jobs, self._executions, known, self._settings.sweep_grace)
        try:
            with docker_errors():
                return await sweep.run()
        finally:
            for job_id in sweep.deleted_jobs:
                self._existing.pop(job_id, None)

    async def close(self) -> None:
        """Ends followers and closes the channels."""
        await self._archive.close()
        await self._clients.close()


def _execution(name: str, plan: JobPlan, run: int, *, agentless: bool) -> Execution:
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return Execution(name=name, job=plan.job_id, first_run=run, agentless=agentless, created_at=at)


def _origin(container: Container) -> tuple[Source, str] | None:
    execution = container.execution
    if execution is None:
        return None
    return Source(execution.job, execution.name.rpartition("/")[2]), execution.created_at


def _own_job(job_id: str, container: Container) -> bool:
    own = f"sockerless-{container.id[:12]}"
    return job_id == own or job_id.startswith(own + "-")


def _remember(known: OrderedDict[K, None], key: K) -> None:
    known[key] = None
    known.move_to_end(key)
    while len(known) > _REMEMBERED:
        known.popitem(last=False)


def environment_names() -> Mapping[str, str]:
    """What a container's environment in the cloud holds, for the documentation."""
    return {
        CALLBACK_URL: "where the agent dials: the container's gateway, then others, with spaces between",
        CONTAINER_ID: "which container it is",
        AGENT_TOKEN: "its token for the gateway",
        RUN: "number of the run, so that a lost answer of RunJob can be found again",
    }
