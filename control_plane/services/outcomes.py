"""Applies what agents and clouds report, and does what follows: events, restarts by policy, automatic removal."""

from __future__ import annotations

import time
from collections.abc import Callable

from control_plane.model import Container
from control_plane.services.container_events import ContainerEvents
from control_plane.services.lifecycle import LifecycleEvent, advance
from control_plane.services.records import Records

_HAS_RUN = {"starting", "running", "paused"}

Follower = Callable[[Container], None]
"""Starts work in the background; must not block."""


class Outcomes:
    """One compare-and-set per report; only the write that changed the document has consequences."""

    def __init__(self, containers: Records[Container], events: ContainerEvents) -> None:
        self.containers = containers
        self.events = events
        self._restarting: Follower | None = None
        self._removing: Follower | None = None
        self._lost: Follower | None = None

    def follow(self, *, restarting: Follower, removing: Follower, lost: Follower) -> None:
        """Who carries on when a policy restarts a container, one removes itself, or a run ends without its agent."""
        self._restarting = restarting
        self._removing = removing
        self._lost = lost

    async def apply(self, tenant: str, container_id: str, event: LifecycleEvent) -> Container | None:
        """The container after the event, None when there is none. Raises DockerError when a request is refused."""
        before: Container | None = None

        def change(current: Container) -> Container:
            nonlocal before
            before = current
            return advance(current, event)

        after = await self.containers.update(tenant, container_id, change)
        if after is not None and before is not None and after != before:
            await self.follow_up(before, after)
        return after

    async def follow_up(self, before: Container, after: Container) -> None:
        """What a change that was just written calls for."""
        await self.events.transition(before, after)
        if after.state.status == "restarting" and before.state.status != "restarting" and self._restarting:
            self._restarting(after)
        if _removes_itself(before, after) and self._removing:
            self._removing(after)
        if _ended_unheard(before, after) and self._lost:
            self._lost(after)


def _removes_itself(before: Container, after: Container) -> bool:
    lease = after.lease
    owned = lease is not None and lease.owner == "auto-remove"
    return owned and after.state.status == "removing" and before.state.status != "removing"


def _ended_unheard(before: Container, after: Container) -> bool:
    """Whether a run ended, or was given up, of which no agent reports (any more)."""
    ended = before.state.status in _HAS_RUN and after.state.status not in _HAS_RUN
    return ended and (after.agent is None or not after.agent.connected)


def clock() -> float:
    """Unix seconds, for leases."""
    return time.time()
