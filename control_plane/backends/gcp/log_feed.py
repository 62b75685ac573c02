"""Following: one feed per project shared by all followers, so that their number does not cost list calls.

Two sources fill it. A tail session (`TailLogEntries`) brings entries as they are ingested; it is limited to ten a
project and may leave entries out. Listing fills what a tail missed and does the whole work where there is no tail.
Both go through the same set of insert ids, so a line comes once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

from control_plane.backends.base import LogLine
from control_plane.backends.calls import CloudError
from control_plane.backends.gcp import log_entries
from control_plane.backends.gcp.log_entries import Source
from control_plane.backends.gcp.log_tail import LogTail
from control_plane.backends.gcp.logs import PAGE, LogReader
from control_plane.errors import DockerError

OVERLAP = 3_000_000_000
"""Nanoseconds by which each reading begins before the last one's end: entries are not ingested in order of time."""
_SOURCES_A_FILTER = 100
"""A filter may have 20,000 characters."""
_QUEUE = 10_000


class Follower:
    """One reader of one source's output from `begin` on, without the lines already `given`."""

    def __init__(self, source: Source, begin: int, given: Iterable[LogLine]) -> None:
        self.source = source
        self._begin = begin
        self.read_to = begin
        """Listing has seen everything up to here."""
        self.quiet_since = asyncio.get_running_loop().time()
        """Loop time of the last new line, or of the first completed reading."""
        self.readings = 0
        self.failure: DockerError | CloudError | None = None
        self._seen = {line.insert_id: line.at for line in given}
        self._left: int | None = None
        self._lines: asyncio.Queue[LogLine | None] = asyncio.Queue(_QUEUE)

    def offer(self, entry: Any) -> None:
        """Takes an entry once. A slow reader's are left for a later reading: it must not hold up the others."""
        at = log_entries.time_of(entry)
        if at < self._begin or entry.insert_id in self._seen:
            return
        try:
            self._lines.put_nowait(log_entries.line_of(entry))
        except asyncio.QueueFull:
            self._left = at if self._left is None else min(self._left, at)
            return
        self._seen[entry.insert_id] = at
        self.quiet_since = asyncio.get_running_loop().time()

    @property
    def full(self) -> bool:
        """The reader has enough for now."""
        return self._lines.qsize() > _QUEUE // 2

    @property
    def start_of_reading(self) -> int:
        """Where the next list call begins."""
        return max(self.read_to - OVERLAP, self._begin)

    def advance(self, read_to: int) -> None:
        """Listing has got to `read_to`: ids older than the overlap cannot come again."""
        reached = read_to if self._left is None else min(read_to, self._left)
        self._left = None
        self.read_to = max(self.read_to, reached)
        horizon = self.read_to - OVERLAP
        if len(self._seen) > PAGE:
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

    def __init__(self, reader: LogReader, *, interval: float = 2.0, tailed_interval: float = 15.0) -> None:
        self._reader = reader
        self._interval = interval
        self._tailed_interval = tailed_interval
        self._followers: set[Follower] = set()
        self._tail = LogTail(reader, self._dispatch)
        self._task: asyncio.Task[None] | None = None
        self._nudge = asyncio.Event()

    @contextlib.asynccontextmanager
    async def follow(self, source: Source, begin: int, given: Iterable[LogLine] = ()) -> AsyncIterator[Follower]:
        """Lines of `source` from `begin` (inclusive) on except those `given`, for as long as the block lasts."""
        follower = Follower(source, begin, given)
        self._followers.add(follower)
        self._tail.want(self._sources())
        self._nudge.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            yield follower
        finally:
            self._followers.discard(follower)
            self._tail.want(self._sources())
            self._nudge.set()

    async def close(self) -> None:
        """Stops reading; followers get no more lines."""
        await self._tail.close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _sources(self) -> list[Source]:
        return sorted({follower.source for follower in self._followers})

    async def _run(self) -> None:
        while self._followers:
            self._nudge.clear()
            try:
                await self._read_all()
            except (DockerError, CloudError) as error:
                for follower in list(self._followers):
                    follower.stop(error)
                return
            pause = self._tailed_interval if self._tail.flowing else self._interval
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._nudge.wait()

    async def _read_all(self) -> None:
        followers = [follower for follower in self._followers if not follower.full]
        for start in range(0, len(followers), _SOURCES_A_FILTER):
            await self._read(followers[start : start + _SOURCES_A_FILTER])
        now = asyncio.get_running_loop().time()
        for follower in followers:
            if not follower.readings:
                follower.quiet_since = now
            follower.readings += 1

    async def _read(self, followers: list[Follower]) -> None:
        """Lists all that is new for these followers: one filter, as many pages as there are."""
        begin = min(follower.start_of_reading for follower in followers)
        sources = [follower.source for follower in followers]
        token = ""
        newest: int | None = None
        while True:
            page = await self._reader.page(sources, since=begin, token=token)
            for entry in page.entries:
                await self._dispatch(entry)
            if page.entries:
                newest = log_entries.time_of(page.entries[-1])
            token = page.next_token
            if not token:
                break
        if newest is not None:
            # A clock ahead of ours must not carry the cursor past what is still to come.
            reached = min(newest, time.time_ns())
            for follower in followers:
                follower.advance(reached)

    async def _dispatch(self, entry: Any) -> None:
        key = log_entries.key_of(entry)
        for follower in list(self._followers):
            if follower.source.key == key:
                follower.offer(entry)
