"""The way out when no agent ever connects: the user's own command, run by the platform; the cloud has its exit code."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress

from control_plane.backends.base import Backend, RunOutcome
from control_plane.errors import DockerError, NotServed
from control_plane.model import Container, Execution
from control_plane.services.background import Background
from control_plane.services.outcomes import Outcomes, clock
from control_plane.services.ports import Agents
from control_plane.services.run_settings import RunSettings
from control_plane.services.starts import Starts
from control_plane.services.stops import Stops
from control_plane.services.watching import reach
from control_plane.timestamps import nanoseconds

_log = logging.getLogger(__name__)

_FIRST_LOOK = 15.0
"""Seconds a start is given before the cloud is asked about it."""
_NEXT_LOOK = 5.0
_RUNS = frozenset({"starting", "running", "paused"})
_RECORDED = 5.0
"""Seconds from the cloud's acceptance of an execution to its record, at most."""
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
        self._watched: set[str] = set()
        """Names of executions that are looked after."""

    def accepted(self, container: Container, execution: Execution) -> None:
        """The cloud has accepted an execution: who waits to be attached is told when no agent is to come."""
        if execution.agentless:
            self._background.spawn(self._end_attachments(container), f"end attachments of {container.id[:12]}")
        self.watch(container)

    def watch(self, container: Container) -> None:
        """Looks from now on whether the agent of a start comes, or how a run without one ends. Repeatable.

        What is lost of it with the process, the reconciler's first pass sets going again.
        """
        execution = container.execution
        if execution is None or not execution.name or execution.name in self._watched:
            return
        self._watched.add(execution.name)
        self._look_later(container, execution, _POLLS[0] if execution.agentless else self._patience(execution))

    def _patience(self, execution: Execution) -> float:
        """Seconds until the agent of a start has to be asked after."""
        age, timeout = _age(execution), self._settings.agent_connect_timeout
        first = min(_FIRST_LOOK, timeout)
        return first - age if age < first else max(min(_NEXT_LOOK, timeout - age), _POLLS[0])

    def _look_later(self, container: Container, execution: Execution, delay: float) -> None:
        async def look() -> None:
            next_delay = None
            try:
                next_delay = await self._look(container, execution, delay)
            finally:
                if next_delay is None:
                    self._watched.discard(execution.name)
            if next_delay is not None:
                self._look_later(container, execution, next_delay)

        self._background.later(delay, look, f"look after {container.id[:12]}")

    async def _look(self, container: Container, execution: Execution, delay: float) -> float | None:
        """Seconds until the next look, None when there is nothing more to wait for."""
        current = await self._containers.get(container.tenant, container.id)
        if current is None or current.execution != execution or current.state.status not in _RUNS:
            return None
        if not execution.agentless:
            if current.state.status != "starting" or current.agent is not None:
                return None
            await self.consider(current)
            return self._patience(execution)
        outcome = await self._backends[current.backend].outcome(execution)
        if not outcome.finished:
            return min(delay * 1.5, _POLLS[1])
        await self._stops.record_outcome(current, outcome)
        return None

    async def _end_attachments(self, container: Container) -> None:
        """Clients that attached before the start would wait for an agent that never comes."""
        where = "the platform's log" if container.host_config.get("AutoRemove") else "`docker logs`"
        message = (
            f"container {container.id[:12]} runs without an agent: nothing can be attached, its output is in {where}"
        )
        await self._agents.call(container, "end", {"message": message, "status": NotServed.status})

    async def refused(self, container: Container) -> None:
        """The platform turned the execution of a start away, or ended it before its agent said hello."""
        with suppress(TimeoutError):
            # The refusal may be quicker than the record of what was refused.
            accepted = await reach(self._containers, container, lambda c: c.execution is not None, _RECORDED)
            container = accepted or container
        execution = container.execution
        if container.state.status != "starting" or container.agent is not None or execution is None:
            return
        backend = self._backends[container.backend]
        outcome = await backend.outcome(execution)
        if outcome.finished and not backend.capabilities.agentless:
            await self._give_up(container, execution, outcome)

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
        outcome = RunOutcome(finished=False)
        if age < self._settings.agent_connect_timeout:
            outcome = await backend.outcome(execution)
            if not outcome.finished:
                return
        if backend.capabilities.agentless:
            await self._fall_back(container, execution)
        else:
            await self._give_up(container, execution, outcome)

    async def _give_up(self, container: Container, execution: Execution, outcome: RunOutcome) -> None:
        """On a platform where nothing runs without the agent."""
        text = outcome.error or (
            f"no agent connected within {self._settings.agent_connect_timeout:.0f} seconds: "
            "the container must be able to reach the endpoint's gateway"
        )
        failed = await self._starts.fail(container, 128 if outcome.exit_code is None else outcome.exit_code, text)
        if failed is not None and failed.state.error == text:
            await self._backends[container.backend].cancel(execution)

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
