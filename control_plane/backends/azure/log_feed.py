"""Following in Log Analytics: one feed per workspace; a query names many sites."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

from control_plane.backends.azure.log_rows import ReadLine, Row
from control_plane.backends.azure.logs import EARLY, LogReader, in_order
from control_plane.backends.log_following import Follower, SharedFeed

OVERLAP = 60 * 1_000_000_000
"""Nanoseconds by which each reading begins before the last one's end."""
_SITES_A_QUERY = 50


class SiteFollower(Follower):
    """One reader of one container's output from `begin` on, without the lines already `given`."""

    def __init__(self, resource: str, container: str, begin: int, given: Iterable[ReadLine]) -> None:
        super().__init__(begin - EARLY, OVERLAP, {line.line.insert_id: line.generated for line in given})
        self.read_to = max([self.read_to, *self._seen.values()])
        self.resource = resource.lower()
        self._container = container
        self._begin = begin

    def offer(self, rows: list[Row]) -> None:
        """Takes what is new and its own."""
        for found in in_order((row for row in rows if row.resource == self.resource), self._container):
            if found.line.at >= self._begin:
                self.take(found.line, found.generated)


class LogFeed(SharedFeed[SiteFollower]):
    """The followers of one workspace."""

    def __init__(self, reader: LogReader, *, interval: float) -> None:
        super().__init__(_SITES_A_QUERY)
        self._reader = reader
        self._interval = interval

    def follow(
        self, resource: str, container: str, begin: int, given: Iterable[ReadLine] = ()
    ) -> AbstractAsyncContextManager[SiteFollower]:
        """A container's lines from `begin` (inclusive) on except those `given`, for as long as the block lasts."""
        return self._following(SiteFollower(resource, container, begin, given))

    def _pause(self) -> float:
        return self._interval

    async def _read(self, followers: list[SiteFollower]) -> None:
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
