"""A tail session of Cloud Logging: entries as they are ingested, for one project's followers together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from control_plane.backends.calls import failure_of
from control_plane.backends.gcp import log_entries
from control_plane.backends.gcp.log_entries import Source
from control_plane.backends.gcp.logs import LogReader

_SETTLE = 0.2
"""Followers come and go in bursts: the session is opened for the set that stands for this long."""
_PAUSE = 30.0
_MOST_SOURCES = 100
_NEVER = frozenset({"UNIMPLEMENTED", "PERMISSION_DENIED", "UNAUTHENTICATED", "NOT_FOUND"})


class LogTail:
    """Keeps one session open for the wanted sources; where tailing is not to be had, listing goes on alone."""

    def __init__(self, reader: LogReader, deliver: Callable[[Any], Awaitable[None]]) -> None:
        self._reader = reader
        self._deliver = deliver
        self._sources: list[Source] = []
        self._task: asyncio.Task[None] | None = None
        self._refused = False
        self.flowing = False
        """A session is open and has left nothing out: listing may rest longer."""

    def want(self, sources: list[Source]) -> None:
        """Changes what is tailed. A session's filter cannot be changed: another session takes over."""
        if sources == self._sources or self._refused:
            return
        self._sources = sources
        self.flowing = False
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if sources and len(sources) <= _MOST_SOURCES:
            self._task = asyncio.create_task(self._run(sources))

    async def close(self) -> None:
        """Ends the session."""
        self._refused = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, sources: list[Source]) -> None:
        await asyncio.sleep(_SETTLE)
        while True:
            try:
                await self._session(sources)
            except Exception as error:
                failure = failure_of(error, "tailing the log")
                if failure is None:
                    raise
                if failure.code in _NEVER:
                    self._refused = True
                    return
            finally:
                self.flowing = False
            await asyncio.sleep(_PAUSE)

    async def _session(self, sources: list[Source]) -> None:
        from google.cloud.logging_v2.types import TailLogEntriesRequest, TailLogEntriesResponse

        request = TailLogEntriesRequest(
            resource_names=[f"projects/{self._reader.project}"],
            filter=log_entries.entries_filter(self._reader.project, self._reader.log_id, sources, None, None),
        )
        over = asyncio.Event()

        async def requests() -> AsyncIterator[TailLogEntriesRequest]:
            yield request
            await over.wait()  # a half-closed request stream ends the session

        client = await self._reader.clients.logging()
        try:
            answers = await client.tail_log_entries(requests=requests(), timeout=3600.0, retry=None)
            async for answer in answers:
                raw = TailLogEntriesResponse.pb(answer)
                self.flowing = not raw.suppression_info
                for entry in raw.entries:
                    await self._deliver(entry)
        finally:
            over.set()
