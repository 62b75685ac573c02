"""Reads containers' output from Log Analytics: the archive, when no agent is there to ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from control_plane.backends.azure import kql
from control_plane.backends.azure.arm import arm_call
from control_plane.backends.azure.clients import Clients
from control_plane.backends.azure.log_rows import MICROSECOND, ReadLine, Row, line_of, numbered, row_of
from control_plane.backends.calls import CloudError
from control_plane.backends.minute_quota import MinuteQuota

PAGE = 1000
_LARGEST_PAGE = 256_000
"""Rows; the service answers with 500,000 at most."""
LATE = 600 * 1_000_000_000
"""Nanoseconds by which a row's TimeGenerated may be after the agent's own time of its line."""
EARLY = 120 * 1_000_000_000
"""Nanoseconds by which it may be before: the platform's clock is not the container's."""
_DOING = "reading the log archive"


class LogReader:
    """Queries one workspace, within its quota for all readers together."""

    def __init__(self, clients: Clients, workspace: str, *, reads_per_minute: int = 200) -> None:
        self._clients = clients
        self._workspace = workspace
        self._quota = MinuteQuota("Log Analytics queries per minute", reads_per_minute)

    async def rows(self, resources: Iterable[str], since: int) -> AsyncIterator[list[Row]]:
        """All rows of these sites from `since` on, in order of TimeGenerated, each instant whole in one part.

        Raises CloudError, Unavailable.
        """
        wanted, size = list(resources), PAGE
        while True:
            page = await self._page(wanted, since=since, before=None, newest_first=False, size=size)
            if len(page) < size:
                yield numbered(page)
                return
            # Of the last instant there may be more: it is read again.
            last = page[-1].generated
            whole = [row for row in page if row.generated < last]
            if whole:
                yield numbered(whole)
                since, size = last, PAGE
            else:
                size = _larger(size)

    async def lines(
        self, resource: str, container: str, *, since: int, until: int | None, tail: int | None
    ) -> AsyncIterator[ReadLine]:
        """A container's lines in time order. With `tail` the last so many, of which times then choose (moby).

        `since` and `until` are Unix nanoseconds of the agent's own time.
        """
        if tail is not None and tail >= 0:
            for line in await self._last(resource, container, tail):
                if line.line.at >= since and (until is None or line.line.at <= until):
                    yield line
            return
        async for part in self.rows([resource], max(since - EARLY, 0)):
            for line in in_order(part, container):
                if line.line.at >= since and (until is None or line.line.at <= until):
                    yield line
            if until is not None and part and part[-1].generated > until + LATE:
                return

    async def _last(self, resource: str, container: str, count: int) -> list[ReadLine]:
        """The last `count` lines in time order."""
        found: list[ReadLine] = []
        before: int | None = None
        size = min(max(count * 2, 100), PAGE)
        while len(found) < count:
            page = await self._page([resource], since=None, before=before, newest_first=True, size=size)
            full = len(page) >= size
            page.reverse()
            if full:
                first = page[0].generated
                page = [row for row in page if row.generated > first]
                if not page:
                    size = _larger(size)
                    continue
                before = first + MICROSECOND
            found = in_order(numbered(page), container) + found
            if not full:
                break
            size = PAGE
        found.sort(key=lambda line: line.order)
        return found[-count:] if count else []

    async def _page(
        self, resources: list[str], *, since: int | None, before: int | None, newest_first: bool, size: int
    ) -> list[Row]:
        query = kql.console_lines(resources, since=since, before=before, newest_first=newest_first, limit=size)

        async def attempt() -> Any:
            client = await self._clients.logs()
            await self._quota.turn()
            return await client.query_workspace(self._workspace, query, timespan=None)

        answer = await arm_call(_DOING, attempt, total=90.0)
        error = getattr(answer, "partial_error", None)
        if error is not None:
            raise CloudError("UNAVAILABLE", str(getattr(error, "message", "") or error), _DOING)
        tables = answer.tables
        if not tables:
            return []
        await asyncio.sleep(0)  # a page of many rows was parsed just now
        columns = ("TimeGenerated", "Level", "ResultDescription", "_ResourceId")
        return [row_of(*(row[column] for column in columns)) for row in tables[0].rows]


def in_order(rows: Iterable[Row], container: str) -> list[ReadLine]:
    """The container's lines among the rows, by the agent's own time and number."""
    found = [line for line in (line_of(row, container) for row in rows) if line is not None]
    found.sort(key=lambda line: line.order)
    return found


def _larger(size: int) -> int:
    if size >= _LARGEST_PAGE:
        raise CloudError("OUT_OF_RANGE", f"more than {size} lines carry one time", _DOING)
    return min(size * 4, _LARGEST_PAGE)
