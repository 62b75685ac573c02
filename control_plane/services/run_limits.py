"""Runs that a tenant's policy ends sooner than the platform would."""

from __future__ import annotations

import logging

from control_plane.backends.base import Capabilities
from control_plane.errors import DockerError
from control_plane.model import Container
from control_plane.services.background import Background
from control_plane.services.stops import Stops
from control_plane.timestamps import nanoseconds

_log = logging.getLogger(__name__)

_GRACE = 10
"""Seconds from the stop signal to KILL."""


class RunLimits:
    """Asked by the reconciler, so a run may last one of its intervals longer."""

    def __init__(self, stops: Stops, background: Background) -> None:
        self._stops = stops
        self._background = background
        self._ending: set[str] = set()

    def look_at(self, container: Container, capabilities: Capabilities, now: float) -> None:
        """Stops the container if its run has lasted too long; restart policies do not apply to that end."""
        if over_limit(container, capabilities, now) and container.id not in self._ending:
            self._ending.add(container.id)
            self._background.spawn(self._end(container), f"end {container.id[:12]} at its run limit")

    async def _end(self, container: Container) -> None:
        _log.info("container %s has reached its run limit of %d seconds", container.id[:12], container.run_limit)
        try:
            await self._stops.stop(container, None, _GRACE)
        except DockerError as error:
            _log.info("container %s was not stopped: %s", container.id[:12], error.message)
        finally:
            self._ending.discard(container.id)


def over_limit(container: Container, capabilities: Capabilities, now: float) -> bool:
    """Whether the present run is past a limit that the platform does not see to itself. `now` is Unix seconds."""
    limit = container.run_limit
    if not 0 < limit < capabilities.max_run_seconds:
        return False
    return now - nanoseconds(container.state.started_at) / 1e9 > limit
