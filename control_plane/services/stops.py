"""Ending a run: stop with grace, kill, and the cloud's cancel when the agent cannot be reached."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from control_plane.backends.base import Backend, RunOutcome
from control_plane.errors import Conflict, DockerError, NotFound, ServerError
from control_plane.model import Container
from control_plane.services import signals
from control_plane.services.background import Background
from control_plane.services.container_events import ContainerEvents
from control_plane.services.lifecycle import KillRequested, StopRequested, UnpauseRequested, not_running
from control_plane.services.outcomes import Outcomes, clock
from control_plane.services.ports import Agents, AgentUnreachable
from control_plane.services.reports import Exited, Failed
from control_plane.services.run_settings import RunSettings
from control_plane.services.watching import reach
from control_plane.timestamps import now, rfc3339

_DEFAULT_GRACE = 10
_KILLED = 128 + signals.KILL


class Stops:
    """Every wait here is a watch on the store: the exit may be reported to any instance."""

    def __init__(
        self,
        outcomes: Outcomes,
        events: ContainerEvents,
        backends: Mapping[str, Backend],
        agents: Agents,
        background: Background,
        settings: RunSettings,
    ) -> None:
        self._outcomes = outcomes
        self._containers = outcomes.containers
        self._events = events
        self._backends = backends
        self._agents = agents
        self._background = background
        self._settings = settings

    async def stop(self, container: Container, signal: int | None = None, grace: int | None = None) -> None:
        """`docker stop`: signal, grace (negative: for ever), KILL. Raises NotModified when it does not run."""
        if grace is None:
            configured = container.config.get("StopTimeout")
            grace = _DEFAULT_GRACE if configured is None else int(configured)
        stopping = await self._request(container, StopRequested(now()))
        timeout = None if grace < 0 else float(grace)
        if stopping.state.status == "starting":
            stopping = await self._let_start(stopping, timeout)
        if _runs(stopping) and not await self._signal_and_wait(
            stopping, signals.stop_signal(stopping) if signal is None else signal, timeout
        ):
            await self._kill_and_wait(stopping)
        await self._events.publish(stopping, "stop")

    async def kill(self, container: Container, signal: int) -> None:
        """`docker kill`: KILL waits for the end, others are only delivered. Raises Conflict when nothing runs."""
        killing = await self._request(container, KillRequested(signal, now()))
        if killing.state.status == "starting":
            killing = await self._let_start(killing, float(_DEFAULT_GRACE))
            if not _runs(killing) and signal != signals.KILL:
                raise not_running(container)
        if not _runs(killing):
            await self._tell_kill(killing, signal)
            return
        if signal == signals.KILL:
            await self._kill_and_wait(killing)
            return
        try:
            await self._deliver(killing, signal)
        except AgentUnreachable as error:
            if signals.ends(killing, signal):
                await self._cancel_and_wait(killing)
                return
            raise Conflict(f"signal {signal} cannot be delivered: {error.message}") from error

    async def _request(self, container: Container, event: StopRequested | KillRequested) -> Container:
        after = await self._outcomes.apply(container.tenant, container.id, event)
        if after is None:
            raise NotFound(f"No such container: {container.id}")
        return after

    async def _let_start(self, container: Container, timeout: float | None) -> Container:
        """A stop that comes during the start waits for its end as moby's lock makes it do, but not beyond the grace."""
        try:
            found = await reach(self._containers, container, lambda c: c.state.status != "starting", timeout)
        except TimeoutError:
            failed = Failed(
                container.state.run, _KILLED, "the container was stopped before its process started", clock()
            )
            found = await self._outcomes.apply(container.tenant, container.id, failed)
            if found is not None and found.execution is not None:
                cancel = self._backends[found.backend].cancel(found.execution)
                self._background.spawn(cancel, f"cancel start of {found.id[:12]}")
        if found is None:
            raise NotFound(f"No such container: {container.id}") from None
        return found

    async def _deliver(self, container: Container, signal: int) -> None:
        """One signal to the process, thawing it when it is to end. Raises AgentUnreachable."""
        if container.execution is not None and container.execution.agentless:
            raise AgentUnreachable(f"container {container.id} runs without an agent")
        try:
            await self._agents.call(container, "signal", {"signal": signal})
        except AgentUnreachable:
            raise
        except Conflict:
            return  # the agent says that it has ended: the report is on its way
        await self._tell_kill(container, signal)
        # KILL ends stopped processes too.
        if container.state.status == "paused" and signal != signals.KILL and signals.asks_to_end(container, signal):
            try:
                await self._agents.call(container, "unpause", {})
            except Conflict:
                return  # it has ended
            thawed = await self._outcomes.apply(container.tenant, container.id, UnpauseRequested(done=True))
            if thawed is not None:
                await self._events.publish(thawed, "unpause")

    async def _tell_kill(self, container: Container, signal: int) -> None:
        await self._events.publish(container, "kill", signal=str(signal))

    async def _signal_and_wait(self, container: Container, signal: int, timeout: float | None) -> bool:
        """Whether the run ended within the timeout after the signal."""
        try:
            await self._deliver(container, signal)
        except AgentUnreachable:
            await self._cancel_and_wait(container)
            return True
        except DockerError as error:
            raise ServerError(f"cannot stop container: {container.name}: {error.message}") from error
        return await self.ended(container, timeout)

    async def _kill_and_wait(self, container: Container) -> None:
        try:
            await self._deliver(container, signals.KILL)
            if await self.ended(container, self._settings.kill_wait):
                return
        except AgentUnreachable:
            pass
        await self._cancel_and_wait(container)

    async def ended(self, container: Container, timeout: float | None) -> bool:
        """Whether the container's present run ends within the timeout."""
        run = container.state.run
        try:
            await reach(self._containers, container, lambda c: c.state.run != run or not _runs(c), timeout)
        except TimeoutError:
            return False
        return True

    async def _cancel_and_wait(self, container: Container) -> None:
        """No agent to ask: the cloud ends the execution and says with which code."""
        backend, execution = self._backends[container.backend], container.execution
        outcome = RunOutcome(finished=True)
        if execution is not None and execution.name:
            await backend.cancel(execution)
            loop = asyncio.get_running_loop()
            deadline = loop.time() + self._settings.cancel_wait
            while not (outcome := await backend.outcome(execution)).finished and loop.time() < deadline:
                if await self.ended(container, self._settings.outcome_poll):
                    return
        await self.record_outcome(container, outcome)

    async def record_outcome(self, container: Container, outcome: RunOutcome) -> Container | None:
        """The cloud's word on how the container's present run ended; 137 where it has no code."""
        at = now() if outcome.finished_at is None else rfc3339(int(outcome.finished_at.timestamp() * 1e9))
        code = _KILLED if outcome.exit_code is None else outcome.exit_code
        report = Exited(container.state.run, code, at, clock(), error=outcome.error)
        return await self._outcomes.apply(container.tenant, container.id, report)


def _runs(container: Container) -> bool:
    return container.state.status in {"running", "paused"}
