"""`docker logs` of a container whose agent is gone: the lines of its app in Log Analytics."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from control_plane.backends.azure.log_feed import OVERLAP, LogFeed
from control_plane.backends.azure.log_rows import ReadLine
from control_plane.backends.azure.logs import LogReader
from control_plane.backends.base import LogLine, RunOutcome
from control_plane.backends.log_following import Follower
from control_plane.model import Container, Execution
from control_plane.timestamps import nanoseconds

_ASK_AGAIN = 5.0
"""Longest pause in seconds between two looks at whether the app has stopped."""

Outcome = Callable[[Execution], Awaitable[RunOutcome]]


class Archive:
    """Reads and follows. After `drain` seconds without a new line a finished container's output counts as whole."""

    def __init__(self, reader: LogReader, outcome: Outcome, drain: float) -> None:
        self._reader = reader
        self._outcome = outcome
        self._drain = drain
        self._feed = LogFeed(reader, interval=min(5.0, max(drain / 4, 0.1)))

    async def close(self) -> None:
        """Ends all followers."""
        await self._feed.close()

    async def lines(
        self,
        container: Container,
        resource: str,
        *,
        since: int | None,
        until: int | None,
        tail: int | None,
        follow: bool,
    ) -> AsyncIterator[LogLine]:
        """In time order, of all the container's runs. One that never ran has none. Raises CloudError, Unavailable."""
        if container.execution is None and not container.state.run:
            return
        begin = since or nanoseconds(container.created_at)
        given: deque[ReadLine] = deque()
        called_at = time.time_ns()
        async for found in self._reader.lines(resource, container.id, since=begin, until=until, tail=tail):
            yield found.line
            given.append(found)
            while given[-1].generated - given[0].generated > OVERLAP:
                given.popleft()
        if not follow:
            return
        if given and tail is not None:
            # What a tail left out must not come with the following.
            begin = given[0].line.at
        elif tail == 0:
            begin = called_at
        async with self._feed.follow(resource, container.id, begin, given) as follower:
            async for line in self._follow(follower, container, until):
                if until is not None and line.at > until:
                    return
                yield line

    async def _follow(self, follower: Follower, container: Container, until: int | None) -> AsyncIterator[LogLine]:
        """Until the app has stopped, or `until` has passed, and nothing new has come for `drain` seconds."""
        loop = asyncio.get_running_loop()
        finished = container.state.status in ("exited", "dead") or container.execution is None
        ask_at = loop.time()
        pause = min(_ASK_AGAIN, max(self._drain, 0.2))
        while True:
            line = await follower.next_line(pause)
            if line is not None:
                yield line
                continue
            if not finished and container.execution is not None and loop.time() >= ask_at:
                finished = (await self._outcome(container.execution)).finished
                ask_at = loop.time() + pause
                if finished:
                    follower.quiet_since = loop.time()
            if until is not None and time.time_ns() > until + int(self._drain * 1e9):
                return
            if finished and follower.readings and loop.time() - follower.quiet_since >= self._drain:
                return
