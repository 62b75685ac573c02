"""The reconciler: finishes or reverts what a crash left half done, and asks the cloud about runs that fell silent.

Every step is a compare-and-set or repeatable, so any number of instances may do the same pass at once; to keep the
store's bill small one does (`turns`), and reads what is due (`control_plane/due.py`). All containers are read once in
`audit_interval`, and when a gateway has died. An embedded endpoint's reads cost nothing: it looks at all each time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

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
from control_plane.services.turns import Turn
from control_plane.telemetry import hooks

_log = logging.getLogger(__name__)

_OVERDUE = 2.0
"""Seconds a restart by policy may be late before another instance does it."""

_SHORTEST_TURN = 50.0
"""Seconds: less than the minute between two calls of a schedule, so that one which crashed costs the next nothing."""

_LOOKS = (0.5, 1, 2, 4)
"""Pauses after looks at a run whose agent has just fallen silent, in units of `outcome_poll`."""


class LivingGateways(Protocol):
    """`services.gateways.Gateways`, as far as it is needed here."""

    async def living(self) -> set[str]:
        """The URLs of those that live."""
        ...

    async def dead(self, url: str) -> bool:
        """Whether one is gone for certain."""
        ...


class Reconciler:
    """One pass looks at every container that is due; the rare cloud calls are for silent runs only."""

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
        # Without passes of its own an instance makes one when a schedule calls, and sweeps when that does.
        self._scheduled = settings.reconcile_interval <= 0
        length = _SHORTEST_TURN if self._scheduled else 2 * settings.reconcile_interval
        self._turn = Turn(self._containers.store, "reconciler", settings.instance, length, clock)
        # The only instance was away: whatever ended meanwhile is found at once, not when the agents are given up.
        self._turn.note(swept=clock(), execs=clock())
        self._gateways: LivingGateways | None = None

    def doubt_with(self, gateways: LivingGateways) -> None:
        """Who knows that a gateway is gone: nobody reports the end of the links that it had."""
        self._gateways = gateways

    async def run_forever(self) -> None:
        """Passes at the set interval until cancelled."""
        while True:
            try:
                await self.pass_once()
            except Exception:
                _log.exception("reconciler pass failed")
            await asyncio.sleep(self._settings.reconcile_interval)

    async def pass_once(self) -> bool:
        """One look at all that is due; False when it is another instance's turn."""
        if not self._settings.sole_instance and not await self._turn.take():
            if hooks.containers is not None:
                hooks.containers(None)
            return False
        whole = False
        try:
            with hooks.reconciling():
                await self._pass()
            whole = True
        finally:
            # One that cannot leaves it to the others.
            if self._scheduled or not whole:
                await self._turn.give_up()
        return True

    async def leave(self) -> None:
        """This instance makes no more passes: another need not wait until its turn is over."""
        await self._turn.give_up()

    async def _pass(self) -> None:
        now, turn = clock(), self._turn
        audit = _passed(now, turn.progress.audited, self._settings.audit_interval)
        living, died = await self._gateways_now()
        if audit or died or turn.first or self._settings.sole_instance:
            chosen = await self._containers.list()
            if hooks.containers is not None:
                hooks.containers(Counter(container.state.status for container in chosen))
        else:
            chosen = await self._containers.due(now)
        turn.first = False
        await self._look_at_each(chosen, now, audit=audit)
        turn.note(gateways=living, audited=now if audit else turn.progress.audited)
        if _passed(now, turn.progress.execs, self._settings.exec_keep):
            await self._execs.forget_old(self._settings.exec_keep)
            turn.note(execs=now)
        if not self._scheduled and _passed(now, turn.progress.swept, self._settings.sweep_interval):
            await self.sweep()
            turn.note(swept=now)

    async def _gateways_now(self) -> tuple[tuple[str, ...], bool]:
        """The gateways to tell the next pass of, and whether one of those the last one told of is dead for certain.

        One that is only silent stays among them until it is dead, or is back.
        """
        if self._gateways is None:
            return (), False
        living = await self._gateways.living()
        silent = [url for url in self._turn.progress.gateways if url not in living]
        dead = [url for url in silent if await self._gateways.dead(url)]
        return tuple(sorted({*living, *silent} - {*dead})), bool(dead)

    async def _look_at_each(self, containers: Sequence[Container], now: float, *, audit: bool) -> None:
        for container in containers:
            try:
                await self._look(container, now, audit=audit)
            except DockerError as error:
                _log.warning("container %s cannot be reconciled: %s", container.id[:12], error.message)
            except Exception:
                _log.exception("container %s cannot be reconciled", container.id[:12])

    async def sweep(self) -> None:
        """Removes cloud resources whose container is gone."""
        known = await self._containers.keys()
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
        if self._gateways is not None and await self._gateways.dead(container.agent.gateway):
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


def _passed(now: float, last: float, interval: float) -> bool:
    """Whether it is time again; also when the last time was noted by a clock that is far ahead."""
    return not last <= now < last + interval and not now < last <= now + interval


def _with_volumes(container: Container) -> bool:
    """`--rm` removes anonymous volumes; whether an interrupted `rm` wanted to is not known, so they stay."""
    return container.lease is not None and container.lease.owner == "auto-remove"
