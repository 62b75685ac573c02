"""`docker wait`: the three conditions, seen through the store so that any control plane may answer."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

from control_plane.errors import InvalidParameter
from control_plane.model import ZERO_TIME, Container
from control_plane.services.containers import Containers
from control_plane.services.events import Events
from control_plane.services.watching import changes

CONDITIONS = ("not-running", "next-exit", "removed")
_ALIVE = {"starting", "running", "paused", "restarting"}
_EVENT_SECONDS = 2.0
"""How long the event of a removed container's exit may take to reach us from another control plane."""


@dataclass(frozen=True, slots=True)
class Exit:
    """What `wait` answers: the exit code, and the error that kept the container from running (or "")."""

    code: int
    error: str = ""


class Wait:
    """One wait under way: `Waits.begin` has seen the container, `result` waits for it."""

    def __init__(self, waits: Waits, container: Container, condition: str) -> None:
        self._waits = waits
        self._start = container
        self._condition = condition

    async def result(self) -> Exit:
        """Waits, for ever if need be; cancel it to give up."""
        last = self._start
        if self._satisfied(last):
            return Exit(last.state.exit_code, last.state.error)
        records = self._waits.containers.records
        async with aclosing(changes(records, last.tenant, last.id)) as seen:  # type: ignore[type-var]
            async for current in seen:
                if current is None:
                    break
                last = current
                if self._satisfied(last):
                    return Exit(last.state.exit_code, last.state.error)
        return await self._waits.exit_of_removed(last)

    def _satisfied(self, container: Container) -> bool:
        state = container.state
        if self._condition == "not-running":
            return state.status not in _ALIVE
        if self._condition == "next-exit":
            return state.finished_at not in (ZERO_TIME, self._start.state.finished_at)
        return False


class Waits:
    """Starts waits."""

    def __init__(self, containers: Containers, events: Events) -> None:
        self.containers = containers
        self._events = events

    async def begin(self, tenant: str, reference: str, condition: str = "not-running") -> Wait:
        """Finds the container, so that a wrong name is told before headers are sent.

        Raises NotFound, and InvalidParameter for an unknown condition.
        """
        if condition not in CONDITIONS:
            raise InvalidParameter(f'invalid condition: "{condition}"')
        return Wait(self, await self.containers.resolve(tenant, reference), condition)

    async def exit_of_removed(self, last: Container) -> Exit:
        """The exit code of a container that is gone.

        The record as last seen has it, unless the exit and the removal came between two looks at the store: then its
        `die` event has it.
        """
        if last.state.status not in _ALIVE:
            return Exit(last.state.exit_code, last.state.error)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _EVENT_SECONDS
        while True:
            code = await self._events.last_exit(last.tenant, last.id)
            if code is not None:
                return Exit(code)
            if loop.time() >= deadline:
                return Exit(last.state.exit_code, last.state.error)
            await asyncio.sleep(0.05)
