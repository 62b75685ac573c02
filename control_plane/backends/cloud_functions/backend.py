"""The Cloud Functions backend: a container is an invocation of a function whose first process is the agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from functools import partial

from agent_gateway import tickets
from control_plane import trouble
from control_plane.backends.agent_image import ImageContents
from control_plane.backends.base import Capabilities, Ended, LogLine, PlatformMount, RunOutcome
from control_plane.backends.binds import platform_volumes
from control_plane.backends.callback import callback_urls
from control_plane.backends.calls import docker_errors
from control_plane.backends.cloud_functions import capabilities
from control_plane.backends.cloud_functions.deployment import Deployment
from control_plane.backends.cloud_functions.functions import Functions
from control_plane.backends.cloud_functions.identity import Identity
from control_plane.backends.cloud_functions.invocation import Holding, Invocation
from control_plane.backends.cloud_functions.invocations import Invocations
from control_plane.backends.cloud_functions.making import FunctionsOfContainers
from control_plane.backends.cloud_functions.plan import environment_names
from control_plane.backends.cloud_functions.records import FunctionRecords
from control_plane.backends.cloud_functions.requests import Requests
from control_plane.backends.cloud_functions.services import Services
from control_plane.backends.cloud_functions.settings import CloudFunctionsSettings
from control_plane.backends.cloud_functions.source import StubSource
from control_plane.backends.cloud_functions.sweep import Sweep
from control_plane.backends.gcp.archive import Archive
from control_plane.backends.gcp.clients import Clients
from control_plane.backends.gcp.log_entries import Source
from control_plane.backends.gcp.logs import LogReader
from control_plane.backends.gcp.storage import ObjectStorage
from control_plane.backends.minute_quota import MinuteQuota
from control_plane.errors import Conflict, GatewayTimeout, NotServed
from control_plane.model import CloudFunction, Container, Execution, Image
from control_plane.timestamps import nanoseconds

__all__ = ["CloudFunctionsBackend", "environment_names"]

_MARGIN = 30.0
"""Seconds by which we wait longer for an answer than the platform does."""
_LAST_WORD = 10.0
"""Seconds that the agent of a container which is being removed is given to answer its invocation."""
_TOKEN_SECONDS = 24 * 3600
_ASK_AGAIN = 2.0


class CloudFunctionsBackend:
    """Implements `backends.base.Backend`.

    `writes` is the project's quota of Cloud Run Admin writes, `log_reads` that of log reads, shared with the Cloud Run
    backend where both serve one project. `key` is the endpoint's own.
    """

    def __init__(
        self,
        settings: CloudFunctionsSettings,
        clients: Clients,
        images: ImageContents,
        records: FunctionRecords,
        key: bytes,
        writes: MinuteQuota,
        functions_writes: MinuteQuota | None = None,
        *,
        log_reads: MinuteQuota | None = None,
    ) -> None:
        self._settings = settings
        self._clients = clients
        self._records = records
        self._key = key
        self._capabilities = capabilities.capabilities(settings)
        own_writes = functions_writes or MinuteQuota(
            "Cloud Functions write requests per minute", settings.writes_per_minute
        )
        http = clients.endpoint.storage
        self._functions = Functions(clients, settings.parent, settings.endpoint_name, own_writes)
        self._services = Services(clients, settings.parent, settings.endpoint_name, writes)
        self._storage = ObjectStorage(settings.project, settings.bucket_name, endpoint=http)
        self._deployment = Deployment(self._functions, self._services, StubSource(self._storage))
        self._identity = Identity(http)
        self._made = FunctionsOfContainers(
            settings, images, records, self._functions, self._deployment, self._identity, key
        )
        self._requests = Requests(http, settings.timeout + _MARGIN)
        self._invocations = Invocations(Holding(self._requests, self._identity, key))
        reader = LogReader(
            clients,
            settings.project,
            log_id=settings.log_id,
            reads_per_minute=settings.log_reads_per_minute,
            quota=log_reads,
        )
        self._archive = Archive(reader, _origin, self._finished, settings.log_drain)
        self._making: dict[str, asyncio.Task[CloudFunction]] = {}
        self._troubles: dict[str, trouble.Trouble] = {}
        self._asked: dict[str, float] = {}

    @property
    def capabilities(self) -> Capabilities:
        """What Cloud Functions can do."""
        return self._capabilities

    def check(self, container: Container) -> list[str]:
        """See `Backend.check`."""
        return capabilities.check(container, self._settings)

    async def check_image(self, container: Container, image: Image) -> None:
        """See `Backend.check_image`. Looks at nothing but the image's record."""
        capabilities.check_image(image, self._settings)

    def platform_mounts(self, container: Container) -> list[PlatformMount]:
        """See `Backend.platform_mounts`."""
        return platform_volumes(container, self._settings.rules, self._settings.volume_root)[1]

    def follow(self, ended: Ended) -> None:
        """See `Backend.follow`: told when a held invocation ends, by its answer or by a refusal."""
        self._invocations.follow(ended)

    async def prepare(
        self, container: Container, image: Image, agent_token: str, *, gateways: Sequence[str] = ()
    ) -> None:
        """See `Backend.prepare`: claims a function or deploys one, and gets the identity token for it."""
        task = self._function(container, image, agent_token, gateways)
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    def _function(
        self, container: Container, image: Image, agent_token: str, gateways: Sequence[str]
    ) -> asyncio.Task[CloudFunction]:
        """The one making of the container's function that is under way."""
        task = self._making.get(container.id)
        if task is None:
            work = self._made.make(container, image, agent_token, gateways)
            with trouble.watching() as self._troubles[container.id]:
                task = self._making[container.id] = asyncio.create_task(work, name=f"prepare {container.id[:12]}")
            task.add_done_callback(partial(self._made_or_not, container.id))
        return task

    def _made_or_not(self, container: str, task: asyncio.Task[CloudFunction]) -> None:
        if self._making.get(container) is task:
            del self._making[container]
            self._troubles.pop(container, None)
        if not task.cancelled():
            task.exception()  # whoever waits gets it; nobody may be left

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
        """See `Backend.run`. With its function deployed a start is one request, which is not waited for."""
        if agentless:
            raise NotServed("a function cannot run the command without agent: it has to answer requests")
        held = self._invocations.of(container.id)
        if held is not None and held.execution.first_run == container.state.run:
            return held.execution
        task = self._function(container, image, agent_token, gateways)
        met = self._troubles.get(container.id, trouble.Trouble())
        try:
            done, _ = await asyncio.wait({task}, timeout=self._settings.start_timeout)
        finally:
            trouble.note(met.text)
        if not done:
            because = f" ({met.text})" if met.text else ""
            raise GatewayTimeout(
                f"the container's function is still being deployed after {self._settings.start_timeout:g} seconds"
                f"{because}; the deployment goes on: start the container again in a while, or have the operator of "
                "this endpoint raise SOCKERLESS_GCF_START_TIMEOUT"
            )
        if task.cancelled():
            raise Conflict("container is marked for removal and cannot be started")
        function = task.result()
        execution = self._execution(container, function)
        invocation = self._invocation(container, function, execution, agent_token, gateways)
        invocation.busy_patience = self._settings.start_timeout if recovering else None
        invocation.renew = partial(self._made.renew, function, container, image, agent_token, gateways)
        self._invocations.start(invocation)
        return execution

    def _execution(self, container: Container, function: CloudFunction) -> Execution:
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        name = self._functions.name(function.name)
        return Execution(name=name, job=function.name, first_run=container.state.run, created_at=at)

    def _invocation(
        self,
        container: Container,
        function: CloudFunction,
        execution: Execution,
        agent_token: str,
        gateways: Sequence[str],
    ) -> Invocation:
        callback = callback_urls(self._settings.callback_url, container, gateways)
        body = self._body(container.id, container.state.run, callback, agent_token)
        patience = self._settings.start_timeout
        return Invocation(function, execution, container.tenant, container.id, body, patience)

    def _body(self, container: str, run: int, callback: str, token: str) -> dict[str, object]:
        body = {"container": container, "run": run, "hold": True, "limit_seconds": self._settings.limit_seconds}
        return body | ({"callback": callback} if callback else {}) | {"token": token}

    async def find(self, container: Container, image: Image) -> Execution | None:
        """See `Backend.find`. The platform keeps no record of requests: only one that is held here is known."""
        held = self._invocations.of(container.id)
        return None if held is None else held.execution

    async def outcome(self, execution: Execution) -> RunOutcome:
        """See `Backend.outcome`: what the held invocation's end said. Where none was held here, it is from now on."""
        known = self._invocations.get(execution.job)
        if known is not None and known.execution.created_at > execution.created_at:
            return RunOutcome(finished=True, error="the container was started again")
        if known is not None and known.outcome is not None:
            return known.outcome
        if known is not None and known.held:
            return RunOutcome(finished=False)
        with docker_errors():
            function = await self._made.named(execution.job)
        if function is None or not function.container:
            return RunOutcome(finished=True, error="the container's function does not exist any more")
        self._take_over(function, execution)
        return RunOutcome(finished=False)

    def _take_over(self, function: CloudFunction, execution: Execution) -> None:
        """Whoever held it is gone, or is another control plane: then the instance has no room, which tells as much."""
        clock = asyncio.get_running_loop().time()
        if clock - self._asked.get(function.name, -_ASK_AGAIN) < _ASK_AGAIN:
            return
        self._asked = {name: at for name, at in self._asked.items() if clock - at < _ASK_AGAIN} | {function.name: clock}
        token = tickets.mint_agent_token(self._key, function.tenant, function.container, _TOKEN_SECONDS)
        body = self._body(function.container, execution.first_run, self._settings.callback_url, token)
        patience = self._settings.start_timeout
        invocation = Invocation(function, execution, function.tenant, function.container, body, patience)
        invocation.busy_patience = 0.0
        self._invocations.start(invocation)

    async def _finished(self, container: Container) -> bool:
        return container.execution is None or (await self.outcome(container.execution)).finished

    async def cancel(self, execution: Execution) -> None:
        """See `Backend.cancel`: deletes the function: nothing else ends an instance. The next start needs another."""
        known = self._invocations.get(execution.job)
        if known is not None:
            if known.execution.created_at > execution.created_at:
                return
            known.cancelled = True
        with docker_errors():
            function = await self._made.named(execution.job)
            if function is not None and (not function.container or _claimed_after(function, execution)):
                return  # given back already: it is nobody's, or the next one's
            if function is not None:
                await self._made.delete(function)
            else:
                await self._functions.delete(execution.job)
        if known is not None:
            await self._invocations.end(known, RunOutcome(finished=True))

    async def hold(self, container: Container, *, gateways: Sequence[str] = ()) -> None:
        """See `Backend.hold`: in the background, unless one is held here."""
        held = self._invocations.of(container.id)
        if held is not None:
            self._invocations.doubt(held)
            return
        execution = container.execution
        if execution is None:
            return
        function = await self._records.of(container.tenant, container.id)
        if function is None or function.name != execution.job:
            return
        token = tickets.mint_agent_token(self._key, container.tenant, container.id, _TOKEN_SECONDS)
        invocation = self._invocation(container, function, execution, token, gateways)
        invocation.busy_patience = self._settings.start_timeout
        self._invocations.start(invocation)

    async def rest(self, container: Container) -> None:
        """See `Backend.rest`. A function that is not invoked does not run: it is only not invoked again."""
        held = self._invocations.of(container.id)
        if held is not None:
            held.cancelled = True

    async def remove(self, container: Container) -> None:
        """See `Backend.remove`: the function goes back to the pool after a clean end, else it is deleted."""
        making = self._making.get(container.id)
        if making is not None:
            making.cancel()
            await asyncio.wait({making})
        held = self._invocations.of(container.id)
        if held is not None and held.task is not None:
            await asyncio.wait({held.task}, timeout=_LAST_WORD)
        name = held.function.name if held is not None else container.execution.job if container.execution else ""
        last = self._invocations.get(name)
        clean = last is not None and last.container == container.id and last.clean and not last.held
        if last is not None and last.container == container.id:
            last.cancelled = True
        await self._made.free(container, clean=clean)
        if last is not None and last.container == container.id:
            self._invocations.forget(name)

    async def logs(
        self, container: Container, *, since: int | None, until: int | None, tail: int | None, follow: bool
    ) -> AsyncIterator[LogLine]:
        """See `Backend.logs`."""
        with docker_errors():
            async for line in self._archive.lines(container, since=since, until=until, tail=tail, follow=follow):
                yield line

    async def sweep(self, known: set[str]) -> int:
        """See `Backend.sweep`."""
        sweep = Sweep(
            self._functions,
            self._services,
            self._records,
            known,
            grace=self._settings.sweep_grace,
            busy=self._deployment.under_way,
        )
        with docker_errors():
            return await sweep.run()

    async def close(self) -> None:
        """Lets go of what is held and under way here; containers go on. The clients' channels are closed."""
        making = list(self._making.values())
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)
        await self._made.close()
        await self._invocations.close()
        await self._archive.close()
        await self._requests.close()
        await self._storage.close()
        await self._clients.close()


def _claimed_after(function: CloudFunction, execution: Execution) -> bool:
    return function.changed_at > nanoseconds(execution.created_at) / 1e9


def _origin(container: Container) -> tuple[Source, str] | None:
    execution = container.execution
    if execution is None:
        return None
    return Source(execution.job, container.id, "cloud_run_revision"), container.created_at or execution.created_at
