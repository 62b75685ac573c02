"""The reconciler: finishes or reverts what a crash left half done, and asks the cloud about runs that fell silent.

Every step is a compare-and-set or repeatable, so any number of instances may do the same pass at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from control_plane.backends.base import Backend
from control_plane.errors import DockerError
from control_plane.model import Container
from control_plane.services.agentless import AgentlessRuns
from control_plane.services.background import Background
from control_plane.services.execs import Execs
from control_plane.services.links import Links
from control_plane.services.outcomes import Outcomes, clock
from control_plane.services.removal import Removal
from control_plane.services.reports import POLICY, LinkGone, exit_recorded
from control_plane.services.restarts import Restarts
from control_plane.services.run_limits import RunLimits
from control_plane.services.run_settings import RunSettings
from control_plane.services.starts import Starts
from control_plane.services.stops import Stops
from control_plane.telemetry import hooks

_log = logging.getLogger(__name__)

_OVERDUE = 2.0
"""Seconds a restart by policy may be late before another instance does it."""

_LOOKS = (0.5, 1, 2, 4)
"""Pauses after looks at a run whose agent has just fallen silent, in units of `outcome_poll`."""


class Reconciler:
    """One pass looks at every container; the rare cloud calls are for silent runs only."""

    def __init__(
        self,
        outcomes: Outcomes,
        starts: Starts,
        stops: Stops,
        removal: Removal,
        restarts: Restarts,
        links: Links,
        execs: Execs,
        agentless: AgentlessRuns,
        backends: Mapping[str, Backend],
        background: Background,
        settings: RunSettings,
    ) -> None:
        self._outcomes = outcomes
        self._containers = outcomes.containers
        self._starts = starts
        self._stops = stops
        self._removal = removal
        self._restarts = restarts
        self._links = links
        self._execs = execs
        self._agentless = agentless
        self._backends = backends
        self._background = background
        self._limits = RunLimits(stops, background)
        self._settings = settings
        self._since = clock()
        # The only instance was away: whatever ended meanwhile is found at once, not when the agents are given up.
        self._next_audit = clock() + (0.0 if settings.sole_instance else settings.audit_interval)
        self._next_sweep = clock() + settings.sweep_interval
        self._next_exec_pass = clock() + settings.exec_keep
        self._dead: Callable[[str], Awaitable[bool]] | None = None

    def doubt_with(self, dead: Callable[[str], Awaitable[bool]]) -> None:
        """Who knows that a gateway is gone: nobody reports the end of the links that it had."""
        self._dead = dead

    async def run_forever(self) -> None:
        """Passes at the set interval until cancelled."""
        while True:
            try:
                await self.pass_once()
            except Exception:
                _log.exception("reconciler pass failed")
            await asyncio.sleep(self._settings.reconcile_interval)

    async def pass_once(self) -> None:
        """One look at everything."""
        with hooks.reconciling():
            await self._pass()

    async def _pass(self) -> None:
        now = clock()
        audit = now >= self._next_audit
        if audit:
            self._next_audit = now + self._settings.audit_interval
        everything = await self._containers.list()
        if hooks.containers is not None:
            hooks.containers(Counter(container.state.status for container in everything))
        for container in everything:
            try:
                await self._look(container, now, audit=audit)
            except DockerError as error:
                _log.warning("container %s cannot be reconciled: %s", container.id[:12], error.message)
            except Exception:
                _log.exception("container %s cannot be reconciled", container.id[:12])
        if now >= self._next_exec_pass:
            self._next_exec_pass = now + self._settings.exec_keep
            await self._execs.forget_old(self._settings.exec_keep)
        if now >= self._next_sweep:
            self._next_sweep = now + self._settings.sweep_interval
            await self.sweep()

    async def sweep(self) -> None:
        """Removes cloud resources whose container is gone."""
        known = {container.id for container in await self._containers.list()}
        for name, backend in self._backends.items():
            try:
                removed = await backend.sweep(known)
            except DockerError as error:
                _log.warning("sweep of %s failed: %s", name, error.message)
                continue
            if removed:
                _log.info("swept %d leftovers of %s", removed, name)

    async def _look(self, container: Container, now: float, *, audit: bool) -> None:
        match container.state.status:
            case "starting":
                await self._look_at_start(container, now)
            case "restarting":
                await self._look_at_restart(container, now)
            case "removing":
                if self._abandoned(container, now):
                    await self._removal.finish(container, volumes=_with_volumes(container))
            case "running" | "paused":
                container = await self._doubt_old_links(container, now)
                self._limits.look_at(container, self._backends[container.backend].capabilities, now)
                if audit or container.agent is None or not container.agent.connected:
                    await self.look_at(container)
            case "created" | "exited":
                container = await self._doubt_old_links(container, now)
                if container.lease is not None and self._abandoned(container, now):
                    await self._finish_restart(container)

    def _abandoned(self, container: Container, now: float) -> bool:
        """Whether the operation under way has lost its instance."""
        lease = container.lease
        if lease is None or lease.expires_at <= now:
            return True
        mine = lease.owner.startswith(self._settings.instance + "/") or lease.owner in {POLICY, "auto-remove"}
        return self._settings.sole_instance and not mine

    async def _look_at_start(self, container: Container, now: float) -> None:
        if self._abandoned(container, now):
            taken = await self._take_over(container)
            if taken is None:
                return
            container = taken
            if container.execution is None or container.execution.agentless:
                # Between the two writes of a start, or of its fall-back: what was asked for is asked for again.
                if container.execution is not None:
                    await self._agentless.resume(container)
                else:
                    await self._starts.resume(container)
                return
        await self._agentless.consider(container)
        self._agentless.watch(container)

    async def _take_over(self, container: Container) -> Container | None:
        """Our lease on the start, if nobody else moved it meanwhile."""
        lease = self._starts.lease()

        def change(current: Container) -> Container | None:
            if current.state != container.state or current.lease != container.lease:
                return None
            return current.model_copy(update={"lease": lease})

        taken = await self._containers.update(container.tenant, container.id, change)
        return taken if taken is not None and taken.lease == lease else None

    async def _look_at_restart(self, container: Container, now: float) -> None:
        due = container.lease.expires_at if container.lease is not None else 0.0
        if now > due + _OVERDUE:
            self._restarts.schedule(container)

    async def _finish_restart(self, container: Container) -> None:
        """An API restart whose instance died between stop and start."""
        if container.lease is not None and container.lease.operation == "start":
            await self._starts.start(container)

    async def _doubt_old_links(self, container: Container, now: float) -> Container:
        """After a start of this process: links that an earlier one recorded count once their agents say hello again."""
        if container.agent is None or not container.agent.connected:
            return container
        if self._dead is not None and await self._dead(container.agent.gateway):
            return (
                await self._outcomes.apply(container.tenant, container.id, LinkGone(container.agent.boot)) or container
            )
        if not self._settings.sole_instance:
            return container
        if container.id in self._links.greeted or now - self._since < self._settings.redial_grace:
            return container
        return await self._outcomes.apply(container.tenant, container.id, LinkGone(container.agent.boot)) or container

    def hear(self, tenant: str, container_id: str) -> None:
        """A backend has learnt that an execution ended or was refused: looked at in the background."""
        self._background.spawn(self._hear(tenant, container_id), f"look at {container_id[:12]}")

    async def _hear(self, tenant: str, container_id: str) -> None:
        container = await self._containers.get(tenant, container_id)
        if container is None or container.state.status not in {"starting", "running", "paused"}:
            return
        if container.state.status == "starting":
            await self._agentless.refused(container)
            return
        # Of a link that an earlier process recorded nobody knows yet whether it is still there.
        greeted = not self._settings.sole_instance or container.id in self._links.greeted
        if not greeted:
            await self.look_at(container)
        elif container.agent is None or not container.agent.connected:
            await self.look_after(container)

    async def look_after(self, container: Container) -> None:
        """Looks until the cloud knows the end or the agent is back; what takes longer is left to the passes."""
        for delay in _LOOKS:
            await self.look_at(container)
            await asyncio.sleep(delay * self._settings.outcome_poll)
            current = await self._containers.get(container.tenant, container.id)
            if current is None or current.state.run != container.state.run or exit_recorded(current):
                return
            if current.agent is None or current.agent.connected:
                return
            container = current

    async def look_at(self, container: Container) -> None:
        """Asks the cloud how the container's execution stands, and records the end if it has ended."""
        if container.state.status == "starting":
            await self._agentless.consider(container)
            return
        if exit_recorded(container):
            return
        if container.execution is None:
            container = await self._starts.find_execution(container) or container
        if container.execution is None:
            return
        if container.execution.agentless:
            self._agentless.watch(container)
        outcome = await self._backends[container.backend].outcome(container.execution)
        if outcome.finished:
            if container.agent is not None:
                await self._outcomes.apply(container.tenant, container.id, LinkGone(container.agent.boot))
            ended = await self._stops.record_outcome(container, outcome)
            if ended is not None:
                await self._execs.end_all(ended)


def _with_volumes(container: Container) -> bool:
    """`--rm` removes anonymous volumes; whether an interrupted `rm` wanted to is not known, so they stay."""
    return container.lease is not None and container.lease.owner == "auto-remove"
