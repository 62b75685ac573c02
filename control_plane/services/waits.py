"""`docker wait`: the three conditions, seen through the store so that any control plane may answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from control_plane.errors import InvalidParameter
from control_plane.model import ZERO_TIME, Container
from control_plane.services.containers import Containers
from control_plane.services.events import Events
from control_plane.services.watching import changes

CONDITIONS = ("not-running", "next-exit", "removed")
_ALIVE = {"starting", "running", "paused", "restarting"}
UNKNOWN = -1
"""No exit code: the answer has an error."""
_UNSEEN = "the container was removed before its exit code was seen"
_EVENT_SECONDS = 2.0
"""How long the event of a removed container's exit may take to reach us from another control plane."""


@dataclass(frozen=True, slots=True)
class Exit:
    """What `wait` answers: the exit code, and the error that kept the container from running (or "")."""

    code: int
    error: str = ""


class Wait:
    """One wait under way: `start` is how it found the container, `last` how the watch `seen` began."""

    def __init__(
        self,
        waits: Waits,
        condition: str,
        start: Container,
        last: Container,
        seen: AsyncIterator[Container | None],
    ) -> None:
        self._waits = waits
        self._condition = condition
        self._start = start
        self._last = last
        self._seen = seen

    async def result(self) -> Exit:
        """Waits, for ever if need be; cancel it to give up."""
        last = self._last
        async with aclosing(self._seen) as seen:  # type: ignore[type-var]
            while not satisfied(self._condition, last, self._start):
                current = await anext(seen, None)
                if current is None:
                    return await self._waits.exit_of_removed(last)
                last = current
        return Exit(last.state.exit_code, last.state.error if last.state.start_failed else "")


def satisfied(condition: str, container: Container, start: Container) -> bool:
    """Whether the wait is over with the container as it is; `start` is how the wait found it."""
    state = container.state
    if condition == "not-running":
        return state.status not in _ALIVE
    if condition == "next-exit":
        return state.finished_at not in (ZERO_TIME, start.state.finished_at)
    return False


class Waits:
    """Starts waits."""

    def __init__(self, containers: Containers, events: Events) -> None:
        self.containers = containers
        self._events = events

    async def begin(self, tenant: str, reference: str, condition: str = "not-running") -> Wait:
        """Finds the container, so that a wrong name is told before headers are sent, and watches it from now on, so
        that nothing the client does after it has the headers is missed.

        Raises NotFound, and InvalidParameter for an unknown condition.
        """
        if condition not in CONDITIONS:
            raise InvalidParameter(f'invalid condition: "{condition}"')
        container = await self.containers.resolve(tenant, reference)
        seen = changes(self.containers.records, tenant, container.id)
        current = await anext(seen)
        return Wait(self, condition, container, current or container, seen)

    async def exit_of_removed(self, last: Container) -> Exit:
        """The exit code of a container that is gone.

        The record as last seen has it, unless the exit and the removal came between two looks at the store: then its
        `die` event has it.
        """
        if last.state.status not in _ALIVE:
            return Exit(last.state.exit_code)  # moby's error here would be that of the removal
        code = await self._events.last_exit(last.tenant, last.id, _EVENT_SECONDS)
        return Exit(UNKNOWN, _UNSEEN) if code is None else Exit(code)
