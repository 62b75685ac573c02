"""Following in Cloud Logging: one feed per project.

Two sources fill it. A tail session (`TailLogEntries`) brings entries as they are ingested; it is limited to ten a
project and may leave entries out. Listing fills what a tail missed and does the whole work where there is no tail.
Both go through the same set of insert ids, so a line comes once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any

from control_plane.backends.base import LogLine
from control_plane.backends.gcp import log_entries
from control_plane.backends.gcp.log_entries import Source
from control_plane.backends.gcp.log_tail import LogTail
from control_plane.backends.gcp.logs import LogReader
from control_plane.backends.log_following import Follower, SharedFeed

OVERLAP = 3_000_000_000
"""Nanoseconds by which each reading begins before the last one's end: entries are not ingested in order of time."""
_SOURCES_A_FILTER = 100
"""A filter may have 20,000 characters."""


class SourceFollower(Follower):
    """One reader of one source's output from `begin` on, without the lines already `given`."""

    def __init__(self, source: Source, begin: int, given: Iterable[LogLine]) -> None:
        super().__init__(begin, OVERLAP, {line.insert_id: line.at for line in given})
        self.source = source
        self._begin = begin

    def offer(self, entry: Any) -> None:
        """Takes an entry."""
        at = log_entries.time_of(entry)
        if at >= self._begin:
            self.take(log_entries.line_of(entry), at)


class LogFeed(SharedFeed[SourceFollower]):
    """The followers of one project."""

    def __init__(self, reader: LogReader, *, interval: float = 2.0, tailed_interval: float = 15.0) -> None:
        super().__init__(_SOURCES_A_FILTER)
        self._reader = reader
        self._interval = interval
        self._tailed_interval = tailed_interval
        self._tail = LogTail(reader, self._dispatch)

    def follow(
        self, source: Source, begin: int, given: Iterable[LogLine] = ()
    ) -> AbstractAsyncContextManager[SourceFollower]:
        """Lines of `source` from `begin` (inclusive) on except those `given`, for as long as the block lasts."""
        return self._following(SourceFollower(source, begin, given))

    async def close(self) -> None:
        """Stops reading; followers get no more lines."""
        await self._tail.close()
        await super().close()

    def _changed(self) -> None:
        self._tail.want(sorted({follower.source for follower in self._followers}))

    def _pause(self) -> float:
        return self._tailed_interval if self._tail.flowing else self._interval

    async def _read(self, followers: list[SourceFollower]) -> None:
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
