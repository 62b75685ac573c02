"""The way out when no agent ever connects: the user's own command, run by the platform; the cloud has its exit code."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from control_plane.backends.base import Backend
from control_plane.errors import DockerError
from control_plane.model import Container, Execution
from control_plane.services.outcomes import Outcomes, clock
from control_plane.services.run_settings import RunSettings
from control_plane.services.starts import Starts
from control_plane.timestamps import nanoseconds

_log = logging.getLogger(__name__)

_FIRST_LOOK = 15.0
"""Seconds a start is given before the cloud is asked about it."""


class AgentlessRuns:
    """Once per run: first the intent by compare-and-set (a late agent is turned away from then on), then the cloud."""

    def __init__(
        self, outcomes: Outcomes, starts: Starts, backends: Mapping[str, Backend], settings: RunSettings
    ) -> None:
        self._outcomes = outcomes
        self._containers = outcomes.containers
        self._starts = starts
        self._backends = backends
        self._settings = settings

    async def consider(self, container: Container) -> None:
        """Falls back when the execution of a start is over, or old, and its agent has not said hello."""
        execution = container.execution
        if container.state.status != "starting" or execution is None or execution.agentless:
            return
        if container.agent is not None:
            await self._after_hello(container, execution)
            return
        age = clock() - nanoseconds(execution.created_at) / 1e9
        backend = self._backends[container.backend]
        if age < min(_FIRST_LOOK, self._settings.agent_connect_timeout):
            return
        if age < self._settings.agent_connect_timeout and not (await backend.outcome(execution)).finished:
            return
        await self._fall_back(container, execution)

    async def _after_hello(self, container: Container, execution: Execution) -> None:
        """The agent came and went before the process ran: the command may have begun, so it is not run again."""
        if container.agent is None or container.agent.connected:
            return
        outcome = await self._backends[container.backend].outcome(execution)
        if outcome.finished:
            text = outcome.error or "the container's agent ended before it reported the start of the process"
            await self._starts.fail(container, outcome.exit_code or 128, text)

    async def _fall_back(self, container: Container, execution: Execution) -> None:
        intent = execution.model_copy(update={"name": "", "agentless": True})

        def change(current: Container) -> Container | None:
            if current.state.status != "starting" or current.execution != execution or current.agent is not None:
                return None
            return current.model_copy(update={"execution": intent})

        marked = await self._containers.update(container.tenant, container.id, change)
        if marked is None or marked.execution != intent:
            return
        _log.warning("container %s: no agent connected, the command is run without one", container.id[:12])
        await self._backends[container.backend].cancel(execution)
        await self.resume(marked)

    async def resume(self, container: Container) -> None:
        """Asks for the agentless execution (again); it counts as running once the cloud has accepted it."""
        try:
            await self._starts.launch_with_cloud(container, agentless=True, recovering=True)
        except DockerError as error:
            await self._starts.fail(container, 128, error.message)
