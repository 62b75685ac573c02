"""The Azure Functions backend: a container is a function app whose only process is the agent."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from control_plane.backends.agent_image import ImageContents
from control_plane.backends.azure import tags
from control_plane.backends.azure.clients import Clients
from control_plane.backends.azure.logs import LogReader
from control_plane.backends.azure_functions import capabilities
from control_plane.backends.azure_functions.apps import Apps
from control_plane.backends.azure_functions.archive import Archive
from control_plane.backends.azure_functions.invocations import Invocation, Invocations
from control_plane.backends.azure_functions.settings import AzureFunctionsSettings
from control_plane.backends.azure_functions.site import invoke_key
from control_plane.backends.azure_functions.sites import Sites
from control_plane.backends.azure_functions.sweep import Sweep
from control_plane.backends.base import Capabilities, Ended, LogLine, PlatformMount, RunOutcome
from control_plane.backends.callback import callback_urls
from control_plane.backends.calls import CloudError, docker_errors
from control_plane.backends.minute_quota import MinuteQuota
from control_plane.errors import NotServed
from control_plane.model import Container, Execution, Image

_log = logging.getLogger(__name__)


class AzureFunctionsBackend:
    """Implements `backends.base.Backend`. Nothing is loaded or opened before the first container."""

    def __init__(self, settings: AzureFunctionsSettings, clients: Clients, images: ImageContents, key: bytes) -> None:
        self._settings = settings
        self._clients = clients
        self._key = key
        self._capabilities = capabilities.capabilities(settings)
        writes = MinuteQuota("Azure Resource Manager writes per minute", settings.writes_per_minute)
        self._sites = Sites(clients, settings.resource_group, writes)
        self._apps = Apps(self._sites, settings, images, key)
        self._invocations = Invocations(clients, float(settings.start_limit), self._refused)
        self._ended: Ended | None = None
        self._archive: Archive | None = None
        if settings.log_analytics_workspace:
            reader = LogReader(
                clients, settings.log_analytics_workspace, reads_per_minute=settings.log_reads_per_minute
            )
            self._archive = Archive(reader, self.outcome, settings.log_drain)

    @property
    def capabilities(self) -> Capabilities:
        """What Azure Functions can do."""
        return self._capabilities

    def check(self, container: Container) -> list[str]:
        """See `Backend.check`."""
        return capabilities.check(container, self._settings)

    async def check_image(self, container: Container, image: Image) -> None:
        """See `Backend.check_image`."""
        capabilities.check_image(image, self._settings)

    def platform_mounts(self, container: Container) -> list[PlatformMount]:
        """None: volumes without a name are directories of the container's own file system, others are refused."""
        return []

    def follow(self, ended: Ended) -> None:
        """See `Backend.follow`: told when an app has finally refused a run."""
        self._ended = ended

    async def prepare(
        self, container: Container, image: Image, agent_token: str, *, gateways: Sequence[str] = ()
    ) -> None:
        """See `Backend.prepare`: plan and app, stopped."""
        with docker_errors():
            await self._apps.made(container, image, agent_token, gateways)

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
        """See `Backend.run`: starts the app; the request that brings the run's limit is sent in the background."""
        if agentless:
            raise NotServed(
                "no agent connected, and Azure Functions cannot run the command without one: it wants a container that "
                "answers HTTP requests"
            )
        with docker_errors():
            app = await self._apps.start(container, image, agent_token, gateways)
        execution = self._execution(container)
        body: dict[str, Any] = {
            "container": container.id,
            "run": container.state.run,
            "hold": False,
            "limit_seconds": self._settings.timeout,
            "callback": callback_urls(self._settings.callback_url, container, gateways),
            "token": agent_token,
        }
        site = execution.job
        key = invoke_key(self._key, site)
        self._invocations.begin(Invocation(execution.name, container.tenant, container.id, site, app.host, key, body))
        return execution

    async def find(self, container: Container, image: Image) -> Execution | None:
        """See `Backend.find`: an app that runs was started for the container's newest run."""
        with docker_errors():
            site = await self._sites.get(tags.resource_name(container.id))
        if site is None or not tags.is_ours(site.tags, self._settings.endpoint_name) or _stopped(site):
            return None
        return self._execution(container)

    async def outcome(self, execution: Execution) -> RunOutcome:
        """See `Backend.outcome`: over once the app is stopped, gone, or has refused the run. There is no exit code."""
        failure = self._invocations.failure(execution.name)
        if failure:
            return RunOutcome(finished=True, error=failure)
        if self._apps.running_run(execution.job) > execution.first_run:
            return RunOutcome(finished=True)
        with docker_errors():
            site = await self._sites.get(execution.job)
        if site is None:
            return RunOutcome(finished=True, error="the container's function app does not exist any more")
        if not _stopped(site):
            return RunOutcome(finished=False)
        error = ""
        if self._invocations.waiting(execution.name):
            error = (
                "App Service stopped the container's app before it answered: the image could not be pulled, or did not "
                f"answer within {self._settings.start_limit} seconds (SOCKERLESS_AZF_START_LIMIT)"
            )
            self._invocations.cancel(execution.job, execution.name)
        return RunOutcome(finished=True, error=error)

    async def cancel(self, execution: Execution) -> None:
        """See `Backend.cancel`: stops the app, unless it has been started for a newer run."""
        self._invocations.cancel(execution.job, execution.name)
        with docker_errors():
            await self._apps.stop(execution.job, execution.first_run)

    async def hold(self, container: Container, *, gateways: Sequence[str] = ()) -> None:
        """Nothing: an app lives without requests."""

    async def rest(self, container: Container) -> None:
        """See `Backend.rest`: stops the app, which costs and would start its container again and again."""
        if not container.state.run:
            return
        site = tags.resource_name(container.id)
        if self._apps.running_run(site) <= container.state.run:
            self._invocations.cancel(site)
        with docker_errors():
            await self._apps.stop(site, container.state.run)

    async def remove(self, container: Container) -> None:
        """See `Backend.remove`: the app, and the plan made for it."""
        site = tags.resource_name(container.id)
        self._invocations.cancel(site)
        with docker_errors():
            await self._apps.remove(site)

    async def logs(
        self, container: Container, *, since: int | None, until: int | None, tail: int | None, follow: bool
    ) -> AsyncIterator[LogLine]:
        """See `Backend.logs`."""
        if self._archive is None:
            raise NotServed(
                f"the agent of container {container.id[:12]} is gone, and the output it kept with it: for the lines in "
                "Log Analytics the operator of this endpoint has to set SOCKERLESS_AZF_LOG_ANALYTICS_WORKSPACE"
            )
        resource = self._settings.site_id(tags.resource_name(container.id))
        with docker_errors():
            lines = self._archive.lines(container, resource, since=since, until=until, tail=tail, follow=follow)
            async for line in lines:
                yield line

    async def sweep(self, known: set[str]) -> int:
        """See `Backend.sweep`."""
        with docker_errors():
            return await Sweep(self._sites, self._settings.endpoint_name, self._settings.sweep_grace, known).run()

    async def close(self) -> None:
        """See `Backend.close`."""
        await self._invocations.close()
        if self._archive is not None:
            await self._archive.close()
        await self._apps.close()
        await self._clients.close()

    async def _refused(self, wanted: Invocation) -> None:
        """The app does not take the run: it is stopped, so that nothing runs that nobody accounts for."""
        _log.warning("container %s: %s", wanted.container[:12], self._invocations.failure(wanted.execution))
        try:
            await self._apps.stop(wanted.site, int(wanted.body["run"]))
        except CloudError as error:
            _log.warning("container %s: its app cannot be stopped: %s", wanted.container[:12], error)
        if self._ended is not None:
            self._ended(wanted.tenant, wanted.container)

    def _execution(self, container: Container) -> Execution:
        site, run = tags.resource_name(container.id), container.state.run
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return Execution(name=f"{self._settings.site_id(site)}/runs/{run}", job=site, first_run=run, created_at=at)


def _stopped(site: Any) -> bool:
    return str(site.properties.state) == "Stopped"
