"""What `docker events` says about containers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from control_plane.services.reports import exit_recorded
from control_plane.services.restart_policy import ran_for
from control_plane.model import ZERO_TIME, Container


class EventSink(Protocol):
    """`services.events.Events`, as far as it is needed here."""

    async def publish(
        self, tenant: str, type: str, action: str, actor_id: str, attributes: Mapping[str, str]
    ) -> None: ...


class ContainerEvents:
    """Publishes container events with moby's attributes: labels, image, name, and the action's own."""

    def __init__(self, events: EventSink) -> None:
        self._events = events

    async def publish(self, container: Container, action: str, **attributes: str) -> None:
        """`action` as moby writes it (`die`, `exec_start: ls -l`, `health_status: healthy`)."""
        shown = {**container.labels, "image": container.image, "name": container.name, **attributes}
        await self._events.publish(container.tenant, "container", action, container.id, shown)

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


