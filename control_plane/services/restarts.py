"""Restarts by policy: the backoff's timer, and the start after it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from control_plane.errors import DockerError
from control_plane.model import Container
from control_plane.services.background import Background
from control_plane.services.outcomes import clock

StartAgain = Callable[[Container], Awaitable[object]]


class Restarts:
    """Timers of this process; the reconciler starts what is overdue because another one's died."""

    def __init__(self, start_again: StartAgain, background: Background) -> None:
        self._start_again = start_again
        self._background = background
        self._waiting: set[str] = set()

    def schedule(self, container: Container) -> None:
        """Starts the container (status `restarting`) when its lease says that it is due."""
        if container.id in self._waiting:
            return
        self._waiting.add(container.id)
        self._background.spawn(self._restart(container), f"restart {container.id[:12]}")

    async def _restart(self, container: Container) -> None:
        due = container.lease.expires_at if container.lease is not None else 0.0
        try:
            await asyncio.sleep(max(0.0, due - clock()))
        finally:
            # From here on the same container may fail and be scheduled anew.
            self._waiting.discard(container.id)
        try:
            await self._start_again(container)
        except DockerError:
            return  # recorded in its state; moby does not try again after a start that failed
