"""Reads a container's output from Cloud Logging: the archive, when no agent is there to ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from control_plane.backends.base import LogLine
from control_plane.backends.calls import call
from control_plane.backends.gcp import log_entries
from control_plane.backends.gcp.clients import Clients
from control_plane.backends.gcp.log_entries import Source
from control_plane.backends.minute_quota import MinuteQuota

PAGE = 1000
"""Entries a page; the service's own upper bound."""


@dataclass(frozen=True, slots=True)
class Page:
    """Entries in the order asked for, and whether more are there."""

    entries: list[Any]
    next_token: str


class LogReader:
    """Lists entries, within the project's quota of list calls (60 a minute for all readers together)."""

    def __init__(
        self,
        clients: Clients,
        project: str,
        *,
        log_id: str = "",
        reads_per_minute: int = 60,
        quota: MinuteQuota | None = None,
    ) -> None:
        self._clients = clients
        self.project = project
        self.log_id = log_id
        self.quota = quota or MinuteQuota("Cloud Logging read requests per minute", reads_per_minute)

    @property
    def clients(self) -> Clients:
        """The SDK clients this reader uses."""
        return self._clients

    async def page(
        self,
        sources: list[Source],
        *,
        since: int | None,
        until: int | None = None,
        newest_first: bool = False,
        size: int = PAGE,
        token: str = "",
    ) -> Page:
        """One list call. Raises CloudError, or Unavailable when too many readers wait."""
        from google.cloud.logging_v2.types import ListLogEntriesRequest, ListLogEntriesResponse

        request = ListLogEntriesRequest(
            resource_names=[f"projects/{self.project}"],
            filter=log_entries.entries_filter(self.project, self.log_id, sources, since, until),
            order_by="timestamp desc" if newest_first else "timestamp asc",
            page_size=size,
            page_token=token,
        )

        async def attempt(timeout: float) -> Any:
            client = await self._clients.logging()
            await self.quota.turn()
            pager = await client.list_log_entries(request=request, timeout=timeout, retry=None)
            return await anext(aiter(pager.pages))

        answer = ListLogEntriesResponse.pb(await call("reading the log archive", attempt, total=90.0, each=20.0))
        return Page(list(answer.entries), answer.next_page_token)

    async def entries(self, source: Source, *, since: int | None, until: int | None) -> AsyncIterator[Any]:
        """All entries in time order, page by page."""
        token = ""
        while True:
            page = await self.page([source], since=since, until=until, token=token)
            for entry in page.entries:
                yield entry
            token = page.next_token
            if not token:
                return

    async def last_entries(self, source: Source, count: int) -> list[Any]:
        """The last `count` entries of one source in time order."""
        newest: list[Any] = []
        token = ""
        while len(newest) < count:
            size = min(PAGE, count - len(newest))
            page = await self.page([source], since=None, newest_first=True, size=size, token=token)
            newest += page.entries
            token = page.next_token
            if not token:
                break
        return newest[count - 1 :: -1] if count else []

    async def lines(
        self, source: Source, *, since: int | None, until: int | None, tail: int | None
    ) -> AsyncIterator[LogLine]:
        """The lines of one source in time order. With `tail` the last so many, of which times then choose (moby)."""
        if tail is None or tail < 0:
            async for entry in self.entries(source, since=since, until=until):
                yield log_entries.line_of(entry)
            return
        for entry in await self.last_entries(source, tail):
            at = log_entries.time_of(entry)
            if (since is None or at >= since) and (until is None or at <= until):
                yield log_entries.line_of(entry)
