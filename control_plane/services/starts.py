"""Starting a container: claim the run, ask the lingering agent or the cloud for it, wait for the agent's report."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Protocol

from control_plane import trouble
from control_plane.backends.base import Backend
from control_plane.errors import (
    Conflict,
    DockerError,
    GatewayTimeout,
    InvalidParameter,
    NotFound,
    ServerError,
    Unavailable,
)
from control_plane.model import Container, Execution, Image, Lease, Published
from control_plane.services.background import Background
from control_plane.services.launch_spec import launch_spec
from control_plane.services.lifecycle import StartRequested
from control_plane.services.moves import Beside, alone, expected
from control_plane.services.outcomes import Outcomes, clock
from control_plane.services.ports import Agents, AgentUnreachable
from control_plane.services.records import Records
from control_plane.services.reports import Accepted, Failed, Started
from control_plane.services.run_settings import RunSettings
from control_plane.services.watching import reach
from control_plane.store.base import StoreFull
from control_plane.telemetry import hooks
from control_plane.timestamps import now

_ROOM_POLL = 0.5
"""Seconds between two tries to write into a store that is full."""


class NetworksOfStart(Protocol):
    """`services.networks.Networks`, as far as it is needed here."""

    async def rejoin(self, container: Container) -> None:
        """Raises NotFound when one of the container's networks is gone."""
        ...


AgentTokens = Callable[[Container], str]
"""Mints the token that the container's agent shows to the gateway."""


class Starts:
    """One run at a time per container: the compare-and-set to `starting` decides whose it is."""

    def __init__(
        self,
        outcomes: Outcomes,
        images: Records[Image],
        backends: Mapping[str, Backend],
        agents: Agents,
        networks: NetworksOfStart,
        agent_token: AgentTokens,
        background: Background,
        settings: RunSettings,
    ) -> None:
        self._outcomes = outcomes
        self._containers = outcomes.containers
        self._images = images
        self._backends = backends
        self._agents = agents
        self._networks = networks
        self._agent_token = agent_token
        self._background = background
        self._settings = settings
        self._accepted: Callable[[Container, Execution], None] | None = None
        self._refused: Callable[[Container], None] | None = None
        self._home: Callable[[Container], Awaitable[Container]] | None = None
        self._beside: Beside = alone

    def follow(self, accepted: Callable[[Container, Execution], None]) -> None:
        """Who looks after an execution from the moment the cloud has accepted it; must not block."""
        self._accepted = accepted

    def refused_with(self, refused: Callable[[Container], None]) -> None:
        """Who removes a container with `--rm` once its failed start has been seen; must not block."""
        self._refused = refused

    def home_with(self, home: Callable[[Container], Awaitable[Container]]) -> None:
        """Who finds a container another gateway when its own has died."""
        self._home = home

    def lease(self) -> Lease:
        """A start lease of this process, told apart from its other ones."""
        owner = f"{self._settings.instance}/{secrets.token_hex(6)}"
        expires_at = clock() + self._settings.lease
        return Lease(operation="start", owner=owner, expires_at=expires_at, trace=hooks.trace_now())

    def name_with(self, beside: Beside) -> None:
        """Who names other gateways to a container's agent."""
        self._beside = beside

    async def start(
        self,
        container: Container,
        *,
        manual: bool = True,
        published: Published | None = None,
        refused: DockerError | None = None,
    ) -> Container:
        """`docker start`: returns once the process runs (or has run already).

        `refused`: why it is known to fail; that is recorded as its outcome, and raised.

        Raises NotModified when it runs, Conflict, the cloud's refusal, InvalidParameter or ServerError with Docker's
        text when the command could not be started, GatewayTimeout when nothing was heard of it.
        """
        event = StartRequested(self.lease(), manual, published)
        claimed = await self._outcomes.apply(container.tenant, container.id, event)
        if claimed is None:
            raise NotFound(f"No such container: {container.id}")
        if claimed.lease is not None and claimed.lease.owner == event.lease.owner:
            if refused is not None:
                await self._note_failure(claimed, refused.message)
                raise refused
            await self._launch_keeping_lease(claimed)
        elif claimed.state.status != "starting":
            return claimed
        return await self._await_report(claimed)

    async def _launch_keeping_lease(self, claimed: Container) -> None:
        """A platform may take minutes before it accepts a start: nobody else is to think that ours is abandoned."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(self._settings.lease / 3)
                await self._renew(claimed)

        renewing = asyncio.create_task(renew())
        try:
            await self._launch_or_fail(claimed)
        finally:
            renewing.cancel()

    async def resume(self, container: Container) -> None:
        """Takes over a start whose instance is gone: asks again for what may have been asked for already."""
        await self._launch_or_fail(container, recovering=True)

    async def launch_with_cloud(
        self, container: Container, *, agentless: bool = False, recovering: bool = False
    ) -> Execution | None:
        """Asks the cloud for an execution and records it. None when the container was stopped or removed meanwhile."""
        image = await self._images.get(container.tenant, container.image_id)
        if image is None:
            raise NotFound(f"No such image: {container.image}")
        backend = self._backends[container.backend]
        token = self._agent_token(container)
        try:
            with trouble.watching() as met:
                async with asyncio.timeout(self._settings.start_timeout):
                    gateways = () if agentless else await self._beside(container)
                    execution = await backend.run(
                        container, image, token, agentless=agentless, recovering=recovering, gateways=gateways
                    )
        except TimeoutError:
            text = f"the container did not start within {self._settings.start_timeout:.0f} seconds"
            raise GatewayTimeout(f"{text}: {met.text}" if met.text else text) from None
        accepted = Accepted(container.state.run, execution)
        after = await self._outcomes.apply(container.tenant, container.id, accepted)
        if after is not None and after.execution == execution and after.state.status not in {"removing", "dead"}:
            if execution.agentless:
                # Nobody will report the start: it counts from the cloud's acceptance on.
                await self._outcomes.apply(after.tenant, after.id, Started(container.state.run, 0, now()))
            if self._accepted is not None:
                self._accepted(after, execution)
            return execution
        self._background.spawn(backend.cancel(execution), f"cancel execution of {container.id[:12]}, no longer wanted")
        if after is None:
            self._background.spawn(backend.remove(container), f"remove what was made for {container.id[:12]}")
        return None

    async def find_execution(self, container: Container) -> Container | None:
        """Records the execution of a run whose start died with its process between the cloud's answer and our write.

        The container as it is then, or None when the cloud knows of no execution.
        """
        image = await self._images.get(container.tenant, container.image_id)
        found = None if image is None else await self._backends[container.backend].find(container, image)
        if found is None:
            return None
        return await self._outcomes.apply(container.tenant, container.id, Accepted(container.state.run, found))

    async def _launch_or_fail(self, container: Container, *, recovering: bool = False) -> None:
        try:
            if not recovering:
                await self._networks.rejoin(container)
            if container.agent is not None and container.agent.connected:
                if await self._launch_over_link(container):
                    return
                container = await self._forget_agent(container) or container
            if self._home is not None:
                container = await self._home(container)
            await self.launch_with_cloud(container, recovering=recovering)
        except Exception as error:
            message = "the container could not be started"
            if isinstance(error, DockerError | StoreFull):
                message = str(error)
            await self._note_failure(container, message)
            if isinstance(error, DockerError | StoreFull):
                raise
            raise ServerError(message, internal=repr(error)) from error

    async def _note_failure(self, container: Container, message: str) -> None:
        try:
            failed = await self.fail(container, 128, message)
            if failed is not None:
                self._seen(failed)
        except StoreFull:
            # Else the reconciler would start it as soon as there is room, long after its user was told that it failed.
            work = self._note_failure_when_there_is_room(container, message)
            self._background.spawn(work, f"note that {container.id[:12]} could not be started")

    async def _note_failure_when_there_is_room(self, container: Container, message: str) -> None:
        while True:
            await asyncio.sleep(_ROOM_POLL)
            with suppress(StoreFull):
                await self.fail(container, 128, message)
                return

    async def _launch_over_link(self, container: Container) -> bool:
        """Starts the process in the file system that a lingering agent holds: no cloud call."""
        mounts = self._backends[container.backend].platform_mounts(container)
        spec = launch_spec(container, mounts, self._settings)
        try:
            await self._agents.call(container, "start", {"spec": spec, "streams": expected(container, clock())})
        except AgentUnreachable:
            return False
        except (Unavailable, GatewayTimeout):
            # The agent may have heard. It tells at its next hello, and is asked again there if it has not.
            return True
        return True

    async def _forget_agent(self, container: Container) -> Container | None:
        """The agent that seemed connected is gone, and its file system with it."""

        def change(current: Container) -> Container | None:
            if current.state.run != container.state.run or current.state.status != "starting":
                return None
            return current.model_copy(update={"agent": None, "execution": None})

        return await self._containers.update(container.tenant, container.id, change)

    async def fail(self, container: Container, code: int, message: str) -> Container | None:
        """Records that the container's present run could not be started."""
        report = Failed(container.state.run, code, message, clock())
        return await self._outcomes.apply(container.tenant, container.id, report)

    async def _await_report(self, claimed: Container) -> Container:
        """Waits for the run's start, keeping our lease alive; gives up at the deadline."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.start_timeout
        last = claimed

        def settled(current: Container) -> bool:
            nonlocal last
            last = current
            return current.state.run != claimed.state.run or current.state.status != "starting"

        while True:
            patience = min(self._settings.lease / 3, max(0.0, deadline - loop.time()))
            try:
                current = await reach(self._containers, claimed, settled, patience)
            except TimeoutError:
                if loop.time() >= deadline:
                    await self._give_up(claimed)
                await self._renew(claimed)
                continue
            self._seen(last)
            return _started_or_refusal(claimed, current or last)

    def _seen(self, container: Container) -> None:
        """What became of a start is known here: a container that removes itself need not be kept for it."""
        if container.state.start_failed and container.state.status == "removing" and self._refused is not None:
            self._refused(container)

    async def _renew(self, claimed: Container) -> None:
        lease = claimed.lease

        def change(current: Container) -> Container | None:
            if lease is None or current.lease is None or current.lease.owner != lease.owner:
                return None
            renewed = lease.model_copy(update={"expires_at": clock() + self._settings.lease})
            return current.model_copy(update={"lease": renewed})

        await self._containers.update(claimed.tenant, claimed.id, change)

    async def _give_up(self, claimed: Container) -> None:
        message = f"the container did not start within {self._settings.start_timeout:.0f} seconds"
        after = await self.fail(claimed, 128, message)
        if after is not None and after.state.error == message:
            if after.execution is not None:
                backend = self._backends[after.backend]
                self._background.spawn(backend.cancel(after.execution), f"cancel start of {after.id[:12]}")
            raise GatewayTimeout(message)


def _started_or_refusal(claimed: Container, current: Container) -> Container:
    """What became of the claimed run, as the answer to `start`."""
    was, state = claimed.state, current.state
    started = state.started_at != was.started_at or state.status in {"running", "paused", "restarting"}
    if state.status == "removing" and not started and not state.error:
        raise Conflict("container is marked for removal and cannot be started")
    if state.run != was.run or started or not state.error:
        return current
    if state.exit_code in {126, 127}:
        raise InvalidParameter(state.error)
    raise ServerError(state.error)
