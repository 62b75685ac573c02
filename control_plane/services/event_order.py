"""Events in the order in which they happened, whichever control plane tells them and however late."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time

from control_plane.model import Event


class InOrder:
    """Reads a queue of events. Each is held until `settle` seconds after it happened: an earlier one may still come."""

    def __init__(self, queue: asyncio.Queue[Event], settle: float) -> None:
        self._queue = queue
        self._settle = settle
        self._held: list[tuple[int, int, float, Event]] = []
        """A heap: when it happened, a tie-breaker, when it may go, and the event."""
        self._numbers = itertools.count()

    async def next(self, timeout: float | None) -> Event:
        """The next event. Raises TimeoutError."""
        if not self._settle:
            return await asyncio.wait_for(self._queue.get(), timeout)
        end = None if timeout is None else time.time() + timeout
        while True:
            present = time.time()
            if self._held and self._held[0][2] <= present:
                return heapq.heappop(self._held)[3]
            if end is not None and present >= end:
                raise TimeoutError
            waits = [moment - present for moment in (end, self._held[0][2] if self._held else None) if moment]
            try:
                self._hold(await asyncio.wait_for(self._queue.get(), min(waits, default=None)))
            except TimeoutError:
                continue

    def _hold(self, event: Event) -> None:
        # The clock of who tells it may be ahead.
        happened = min(event.time_nano / 1e9, time.time())
        heapq.heappush(self._held, (event.time_nano, next(self._numbers), happened + self._settle, event))
