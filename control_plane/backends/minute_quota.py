"""Keeps us under a per-minute quota of a project: a queue that hands out turns in order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from control_plane.errors import Unavailable

_WINDOW = 60.0


class MinuteQuota:
    """At most `per_minute` turns in any 60 seconds; who finds the queue too long is refused, not kept waiting.

    `per_minute` 0 means no limit. The bound of the queue is two minutes' worth of turns.
    """

    def __init__(
        self,
        name: str,
        per_minute: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self.per_minute = per_minute
        self._clock = clock
        self._sleep = sleep
        self._taken: deque[float] = deque()
        self._waiting = 0
        self._order = asyncio.Lock()

    async def turn(self) -> None:
        """Waits for a turn. Raises Unavailable when the queue is full."""
        if self.per_minute <= 0:
            return
        if not self._order.locked() and self._free():
            self._taken.append(self._clock())
            return
        if self._waiting >= 2 * self.per_minute:
            raise Unavailable(
                f"too many requests wait for the quota {self.name!r} ({self.per_minute} a minute); try again later"
            )
        self._waiting += 1
        try:
            async with self._order:
                while not self._free():
                    await self._sleep(max(self._taken[0] + _WINDOW - self._clock(), 0.01))
                self._taken.append(self._clock())
        finally:
            self._waiting -= 1

    def free_turns(self) -> int:
        """How many turns could be had at once."""
        if self.per_minute <= 0:
            return 1_000_000
        self._free()
        return self.per_minute - len(self._taken)

    def _free(self) -> bool:
        oldest = self._clock() - _WINDOW
        while self._taken and self._taken[0] <= oldest:
            self._taken.popleft()
        return len(self._taken) < self.per_minute
