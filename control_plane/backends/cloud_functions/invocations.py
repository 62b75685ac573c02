"""The invocations that this process holds, by function, and how those ended that it held."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from control_plane.backends.base import Ended, RunOutcome
from control_plane.backends.cloud_functions.invocation import Holding, Invocation

_log = logging.getLogger(__name__)

_REMEMBERED = 10_000
_NOTICE = 2.0
"""Seconds in which a request that the agent has let go of is answered; else its connection is dead, unnoticed."""


class Invocations:
    """At most one a function."""

    def __init__(self, holding: Holding) -> None:
        self._holding = holding
        self._known: OrderedDict[str, Invocation] = OrderedDict()
        self._ended: Ended | None = None
        self._watches: set[asyncio.Task[None]] = set()

    def follow(self, ended: Ended) -> None:
        """Who is told when one has ended."""
        self._ended = ended

    def get(self, name: str) -> Invocation | None:
        """The newest one of a function."""
        return self._known.get(name)

    def of(self, container: str) -> Invocation | None:
        """The newest one of a container, while it is held."""
        return next((found for found in self._known.values() if found.container == container and found.held), None)

    def start(self, invocation: Invocation) -> None:
        """Begins to hold; one of an earlier run is given up."""
        name = invocation.function.name
        earlier = self._known.pop(name, None)
        if earlier is not None and earlier.task is not None:
            earlier.task.cancel()
        self._known[name] = invocation
        self._begin(invocation)
        while len(self._known) > _REMEMBERED:
            oldest = next((key for key, found in self._known.items() if not found.held), None)
            if oldest is None:
                return
            del self._known[oldest]

    def _begin(self, invocation: Invocation) -> None:
        invocation.task = asyncio.create_task(self._hold(invocation), name=f"hold {invocation.container[:12]}")

    async def _hold(self, invocation: Invocation) -> None:
        try:
            await self._holding.hold(invocation)
        except Exception:
            _log.exception("the invocation of %s failed", invocation.container[:12])
            invocation.outcome = RunOutcome(finished=True, error="the container could not be invoked")
        if invocation.outcome is not None and self._ended is not None:
            self._ended(invocation.tenant, invocation.container)

    def doubt(self, invocation: Invocation) -> None:
        """The agent says that no request holds it: unless the one held here is answered soon, it is sent again."""
        watch = asyncio.create_task(self._ask_again(invocation, invocation.attempts))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _ask_again(self, invocation: Invocation, attempts: int) -> None:
        await asyncio.sleep(_NOTICE)
        if (
            invocation.held
            and invocation.attempts == attempts
            and self._known.get(invocation.function.name) is invocation
        ):
            assert invocation.task is not None
            invocation.task.cancel()
            self._begin(invocation)

    async def end(self, invocation: Invocation, outcome: RunOutcome) -> None:
        """The function is gone: nothing is held any more, and this is how it ended unless it had ended before."""
        task = invocation.task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait({task})
        if invocation.outcome is None:
            invocation.outcome = outcome

    def forget(self, name: str) -> None:
        """Its container is removed."""
        found = self._known.pop(name, None)
        if found is not None and found.task is not None:
            found.task.cancel()

    async def close(self) -> None:
        """Lets go of every request; containers go on, and whoever is told so by their agents holds them."""
        tasks = [found.task for found in self._known.values() if found.task is not None and not found.task.done()]
        tasks += list(self._watches)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
