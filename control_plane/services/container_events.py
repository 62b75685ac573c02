"""What `docker events` says about containers."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol

from control_plane.model import ZERO_TIME, Container
from control_plane.services.reports import exit_recorded
from control_plane.services.restart_policy import ran_for


class EventSink(Protocol):
    """`services.events.Events`, as far as it is needed here."""

    def publish_container(
        self, container: Container, action: str, attributes: Mapping[str, str] | None = None
    ) -> Awaitable[None]:
        """A container's event with its labels, image and name."""
        ...

    def publish(
        self, tenant: str, type: str, action: str, actor_id: str, attributes: Mapping[str, str] | None = None
    ) -> Awaitable[None]:
        """Any event."""
        ...


class ContainerEvents:
    """Publishes container events; the sink adds moby's labels, image and name."""

    def __init__(self, events: EventSink) -> None:
        self._events = events

    async def publish(self, container: Container, action: str, **attributes: str) -> None:
        """`action` as moby writes it (`die`, `exec_start: ls -l`, `health_status: healthy`)."""
        await self._events.publish_container(container, action, attributes)

    async def pruned(self, tenant: str) -> None:
        """The event of `docker container prune`."""
        await self._events.publish(tenant, "container", "prune", "", {"reclaimed": "0"})

    async def transition(self, before: Container, after: Container) -> None:
        """The events a report's effect is worth."""
        old, new = before.state, after.state
        if new.started_at != old.started_at:
            await self.publish(after, "start")
        if exit_recorded(after) and new.finished_at != old.finished_at and new.finished_at != ZERO_TIME:
            if new.oom_killed:
                await self.publish(after, "oom")
            ran = ran_for(after, new.finished_at)
            await self.publish(after, "die", exitCode=str(new.exit_code), execDuration=str(int(ran)))
        status = new.health.status if new.health else None
        previous = old.health.status if old.health and old.run == new.run else None
        if status not in (None, "starting", previous):
            await self.publish(after, f"health_status: {status}")
