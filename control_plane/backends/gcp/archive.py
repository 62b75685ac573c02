"""`docker logs` of a container whose agent is gone: its lines in Cloud Logging."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from control_plane.backends.base import LogLine
from control_plane.backends.gcp.log_entries import Source
from control_plane.backends.gcp.log_feed import OVERLAP, LogFeed
from control_plane.backends.gcp.logs import LogReader
from control_plane.backends.log_following import Follower
from control_plane.model import Container
from control_plane.timestamps import nanoseconds

_CLOCK_SLACK = 120 * 1_000_000_000
"""Nanoseconds by which the service's clock may be behind ours."""
_ASK_AGAIN = 5.0
"""Longest pause in seconds between two looks at whether the execution has finished."""

Origin = Callable[[Container], tuple[Source, str] | None]
"""Whose output a container's is, and since when (RFC 3339); None for a container that never ran. Pure."""
Finished = Callable[[Container], Awaitable[bool]]
"""Whether a container's execution has ended, by the cloud. Raises CloudError."""


class Archive:
    """Reads and follows. After `drain` seconds without a new line a finished execution's output counts as whole."""

    def __init__(self, reader: LogReader, origin: Origin, finished: Finished, drain: float) -> None:
        self._reader = reader
        self._origin = origin
        self._finished = finished
        self._drain = drain
        self._feed = LogFeed(reader, interval=min(2.0, max(drain / 4, 0.1)))

    async def close(self) -> None:
        """Ends all followers."""
        await self._feed.close()

    async def lines(
        self, container: Container, *, since: int | None, until: int | None, tail: int | None, follow: bool
    ) -> AsyncIterator[LogLine]:
        """In time order. A container that never ran has none. Raises CloudError, Unavailable."""
        origin = self._origin(container)
        if origin is None:
            return
        source, created_at = origin
        begin = since or nanoseconds(created_at) - _CLOCK_SLACK
        given: deque[LogLine] = deque()
        called_at = time.time_ns()
        async for line in self._reader.lines(source, since=begin, until=until, tail=tail):
            yield line
            given.append(line)
            while given[-1].at - given[0].at > OVERLAP:
                given.popleft()
        if not follow:
            return
        if given:
            # What a tail left out must not come with the following; else what was late is still wanted.
            begin = given[0].at if tail is None else given[-1].at
        elif tail == 0:
            begin = called_at
        async with self._feed.follow(source, begin, given) as follower:
            async for line in self._follow(follower, container, until):
                if until is not None and line.at > until:
                    return
                yield line

    async def _follow(self, follower: Follower, container: Container, until: int | None) -> AsyncIterator[LogLine]:
        """Until the execution has finished, or `until` has passed, and nothing new has come for `drain` seconds."""
        loop = asyncio.get_running_loop()
        finished = container.state.status in ("exited", "dead")
        ask_at = loop.time()
        pause = min(_ASK_AGAIN, max(self._drain, 0.2))
        while True:
            line = await follower.next_line(pause)
            if line is not None:
                yield line
                continue
            if not finished and loop.time() >= ask_at:
                finished = await self._finished(container)
                ask_at = loop.time() + pause
                if finished:
                    follower.quiet_since = loop.time()
            if until is not None and time.time_ns() > until + int(self._drain * 1e9):
                return
            if finished and follower.readings and loop.time() - follower.quiet_since >= self._drain:
                return
