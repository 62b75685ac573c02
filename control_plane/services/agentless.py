"""The way out when no agent ever connects: the user's own command, run by the platform; the cloud has its exit code."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from control_plane.backends.base import Backend
from control_plane.errors import DockerError, NotServed
from control_plane.model import Container, Execution
from control_plane.services.background import Background
from control_plane.services.outcomes import Outcomes, clock
from control_plane.services.ports import Agents
from control_plane.services.run_settings import RunSettings
from control_plane.services.starts import Starts
from control_plane.services.stops import Stops
from control_plane.timestamps import nanoseconds

_log = logging.getLogger(__name__)

_FIRST_LOOK = 15.0
"""Seconds a start is given before the cloud is asked about it."""
_NEXT_LOOK = 5.0
_RUNS = frozenset({"starting", "running", "paused"})
_POLLS = (0.1, 5.0)
"""First and longest pause between two looks at a run without agent: nobody else tells of its end."""


class AgentlessRuns:
    """Once per run: first the intent by compare-and-set (a late agent is turned away from then on), then the cloud."""

    def __init__(
        self,
        outcomes: Outcomes,
        starts: Starts,
        stops: Stops,
        backends: Mapping[str, Backend],
        agents: Agents,
        background: Background,
        settings: RunSettings,
    ) -> None:
        self._outcomes = outcomes
        self._containers = outcomes.containers
        self._starts = starts
        self._stops = stops
        self._backends = backends
        self._agents = agents
        self._background = background
        self._settings = settings

    def accepted(self, container: Container, execution: Execution) -> None:
        """From the cloud's acceptance on: looks whether an agent comes, or how a run without one ends.

        What is lost of it with the process, the reconciler does in its passes.
        """
        if not execution.agentless:
            first = min(_FIRST_LOOK, self._settings.agent_connect_timeout)
            self._await_agent(container, execution, first)
            return
        self._background.spawn(self._end_attachments(container), f"end attachments of {container.id[:12]}")
        self._await_end(container, execution, _POLLS[0])

    def _await_agent(self, container: Container, execution: Execution, delay: float) -> None:
        async def look() -> None:
            current = await self._containers.get(container.tenant, container.id)
            if current is None or current.state.status != "starting" or current.execution != execution:
                return
            if current.agent is None:
                try:
                    await self.consider(current)
                finally:
                    left = self._settings.agent_connect_timeout - _age(execution)
                    self._await_agent(container, execution, min(_NEXT_LOOK, max(left, 0.1)))

        self._background.later(delay, look, f"look for the agent of {container.id[:12]}")

    def _await_end(self, container: Container, execution: Execution, delay: float) -> None:
        async def look() -> None:
            current = await self._containers.get(container.tenant, container.id)
            if current is None or current.execution != execution or current.state.status not in _RUNS:
                return
            outcome = await self._backends[current.backend].outcome(execution)
            if not outcome.finished:
                self._await_end(container, execution, min(delay * 1.5, _POLLS[1]))
                return
            await self._stops.record_outcome(current, outcome)

        self._background.later(delay, look, f"look for the end of {container.id[:12]}")

    async def _end_attachments(self, container: Container) -> None:
        """Clients that attached before the start would wait for an agent that never comes."""
        where = "the platform's log" if container.host_config.get("AutoRemove") else "`docker logs`"
        message = (
            f"container {container.id[:12]} runs without an agent: nothing can be attached, its output is in {where}"
        )
        await self._agents.call(container, "end", {"message": message, "status": NotServed.status})

    async def consider(self, container: Container) -> None:
        """Falls back when the execution of a start is over, or old, and its agent has not said hello."""
        execution = container.execution
        if container.state.status != "starting" or execution is None or execution.agentless:
            return
        if container.agent is not None:
            await self._after_hello(container, execution)
            return
        age = _age(execution)
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


def _age(execution: Execution) -> float:
    """Seconds since the cloud accepted it."""
    return clock() - nanoseconds(execution.created_at) / 1e9
