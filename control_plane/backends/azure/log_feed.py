"""Following: one feed per workspace shared by all followers, so that their number does not cost queries.

Each query begins a while before the last one's end, because rows are not taken in in order of time; what came already
is known by its key.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable

from control_plane.backends.azure.log_rows import ReadLine, Row
from control_plane.backends.azure.logs import EARLY, LogReader, in_order
from control_plane.backends.base import LogLine
from control_plane.backends.calls import CloudError
from control_plane.errors import DockerError

OVERLAP = 60 * 1_000_000_000
"""Nanoseconds by which each reading begins before the last one's end."""
_SITES_A_QUERY = 50
_QUEUE = 10_000


class Follower:
    """One reader of one container's output from `begin` on, without the lines already `given`."""

    def __init__(self, resource: str, container: str, begin: int, given: Iterable[ReadLine]) -> None:
        self.resource = resource.lower()
        self._container = container
        self._begin = begin
        self._seen = {line.line.insert_id: line.generated for line in given}
        self.read_to = max([begin - EARLY, *self._seen.values()])
        """Readings have seen everything up to here (TimeGenerated)."""
        self._lines: asyncio.Queue[LogLine | None] = asyncio.Queue(_QUEUE)
        self._left: int | None = None
        self.quiet_since = asyncio.get_running_loop().time()
        """Loop time of the last new line, or of the first completed reading."""
        self.readings = 0
        self.failure: DockerError | CloudError | None = None

    @property
    def full(self) -> bool:
        """The reader has enough for now."""
        return self._lines.qsize() > _QUEUE // 2

    @property
    def start_of_reading(self) -> int:
        """Where the next query begins."""
        return max(self.read_to - OVERLAP, self._begin - EARLY, 0)

    def offer(self, rows: list[Row]) -> None:
        """Takes what is new. A slow reader's lines are left for a later reading: it must not hold up the others."""
        for found in in_order((row for row in rows if row.resource == self.resource), self._container):
            line = found.line
            if line.at < self._begin or line.insert_id in self._seen:
                continue
            if self._left is not None or self._lines.full():
                self._left = min(self._left or found.generated, found.generated)
                continue
            self._lines.put_nowait(line)
            self._seen[line.insert_id] = found.generated
            self.quiet_since = asyncio.get_running_loop().time()

    def advance(self, read_to: int) -> None:
        """A reading has got to `read_to`: keys older than the overlap cannot come again."""
        reached = read_to if self._left is None else min(read_to, self._left)
        self._left = None
        self.read_to = max(self.read_to, reached)
        if len(self._seen) > _QUEUE:
            horizon = self.start_of_reading
            self._seen = {key: at for key, at in self._seen.items() if at >= horizon}

    async def next_line(self, timeout: float) -> LogLine | None:
        """The next line, or None when none came in time. Raises what stopped the feed."""
        if self.failure is not None and self._lines.empty():
            raise self.failure
        try:
            async with asyncio.timeout(timeout):
                return await self._lines.get()
        except TimeoutError:
            return None

    def stop(self, failure: DockerError | CloudError) -> None:
        """Ends the follower with an error, after the lines it already has."""
        self.failure = failure
        with contextlib.suppress(asyncio.QueueFull):
            self._lines.put_nowait(None)


class LogFeed:
    """Runs while there are followers."""

    def __init__(self, reader: LogReader, *, interval: float) -> None:
        self._reader = reader
        self._interval = interval
        self._followers: set[Follower] = set()
        self._task: asyncio.Task[None] | None = None
        self._nudge = asyncio.Event()

    @contextlib.asynccontextmanager
    async def follow(
        self, resource: str, container: str, begin: int, given: Iterable[ReadLine] = ()
    ) -> AsyncIterator[Follower]:
        """A container's lines from `begin` (inclusive) on except those `given`, for as long as the block lasts."""
        follower = Follower(resource, container, begin, given)
        self._followers.add(follower)
        self._nudge.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            yield follower
        finally:
            self._followers.discard(follower)
            self._nudge.set()

    async def close(self) -> None:
        """Stops reading; followers get no more lines."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while self._followers:
            self._nudge.clear()
            try:
                await self._read_all()
            except (DockerError, CloudError) as error:
                for follower in list(self._followers):
                    follower.stop(error)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._nudge.wait()

    async def _read_all(self) -> None:
        followers = [follower for follower in self._followers if not follower.full]
        for start in range(0, len(followers), _SITES_A_QUERY):
            await self._read(followers[start : start + _SITES_A_QUERY])
        now = asyncio.get_running_loop().time()
        for follower in followers:
            if not follower.readings:
                follower.quiet_since = now
            follower.readings += 1

    async def _read(self, followers: list[Follower]) -> None:
        begin = min(follower.start_of_reading for follower in followers)
        newest: int | None = None
        async for part in self._reader.rows({follower.resource for follower in followers}, begin):
            for follower in followers:
                follower.offer(part)
            if part:
                newest = part[-1].generated
        if newest is not None:
            # A clock ahead of ours must not carry the cursor past what is still to come.
            reached = min(newest, time.time_ns())
            for follower in followers:
                follower.advance(reached)
