"""Cosmos pushes nothing: the change feed of a partition is polled while somebody watches something in it.

One poller serves all watchers of a tenant's collection in this process. It asks often while things change and seldom
while they do not, so the request units spent are bounded: about one per poll, at most `1 / fastest` polls a second
for each watched partition, and `1 / slowest` when nothing happens.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Any

from control_plane.backends.calls import AMBIGUOUS, TRANSIENT, CloudError, failure_of, pause_before
from control_plane.errors import ServerError
from control_plane.store.cosmos.connection import Connection
from control_plane.store.cosmos.items import is_gone, partition_of, read_document, revision
from control_plane.store.feeds import Feed
from control_plane.store.keys import unescape

_log = logging.getLogger(__name__)

_DOING = "watching the state"
_SLOWER = 1.3
_PAGE = 200
_POLL_SECONDS = 20.0


class Polling:
    """The pollers of one store, by partition. `fastest` and `slowest` are seconds between two polls."""

    def __init__(self, connection: Connection, fastest: float, slowest: float) -> None:
        self._connection = connection
        self._fastest = fastest
        self._slowest = slowest
        self._pollers: dict[str, Poller] = {}
        self._stopping: set[asyncio.Task[None]] = set()

    def opened(self, feed: Feed) -> None:
        """Polls for the feed."""
        partition = partition_of(feed.place.collection, feed.place.tenant)
        poller = self._pollers.get(partition)
        if poller is None:
            poller = self._pollers[partition] = Poller(self._connection, partition, self._fastest, self._slowest)
        poller.add(feed)

    def closed(self, feed: Feed) -> None:
        """Polls no more for it; a poller without feeds stops."""
        partition = partition_of(feed.place.collection, feed.place.tenant)
        poller = self._pollers.get(partition)
        if poller is not None and not poller.remove(feed):
            self._stop(self._pollers.pop(partition))

    def _stop(self, poller: Poller) -> None:
        task = poller.stop()
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def close(self) -> None:
        """Stops all pollers."""
        while self._pollers:
            self._stop(self._pollers.popitem()[1])
        await asyncio.gather(*self._stopping, return_exceptions=True)


class Poller:
    """Polls one partition's change feed from its first feed on."""

    def __init__(self, connection: Connection, partition: str, fastest: float, slowest: float) -> None:
        self._connection = connection
        self._partition = partition
        self._fastest = fastest
        self._slowest = slowest
        self._feeds: dict[str | None, list[Feed]] = {}
        """By key; with None those of the whole collection."""
        self._continuation = ""
        self._failure: CloudError | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(), name="cosmos change feed")

    def add(self, feed: Feed) -> None:
        """Tells another feed."""
        self._feeds.setdefault(feed.place.key, []).append(feed)
        if self._failure is not None:
            feed.fail(self._failure.docker())

    def remove(self, feed: Feed) -> bool:
        """Tells the feed no more; whether there are others."""
        left = self._feeds.get(feed.place.key, [])
        if feed in left:
            left.remove(feed)
        if not left:
            self._feeds.pop(feed.place.key, None)
        return bool(self._feeds)

    def stop(self) -> asyncio.Task[None]:
        """Ends it; the task is done when it has ended."""
        self._task.cancel()
        return self._task

    async def _run(self) -> None:
        pause, tries = self._fastest, 0
        while True:
            try:
                changed = await self._poll()
            except Exception as error:
                failure = failure_of(error, _DOING) or CloudError("INTERNAL", repr(error), _DOING)
                if failure.code not in TRANSIENT | AMBIGUOUS and not self._continuation:
                    self._fail(failure)
                    return
                if failure.code not in TRANSIENT | AMBIGUOUS:
                    self._continuation = ""  # it may be what was refused: begin anew
                pause = max(pause_before(tries, failure.code), self._fastest)
                tries += 1
                _log.info("watching again in %.2f s: %s", pause, failure)
            else:
                if tries:
                    self._tell_stale()  # deletions are told for an hour only
                pause = self._fastest if changed or tries else min(pause * _SLOWER, self._slowest)
                tries = 0
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))

    async def _poll(self) -> bool:
        """Tells what has changed since the last poll; whether anything has."""
        container = await self._connection.container()
        changed = False
        while True:
            headers: Mapping[str, Any] = {}

            def keep(answer: Mapping[str, Any], _: Any) -> None:
                nonlocal headers
                headers = answer

            began = self._continuation
            # Going on, the SDK takes the partition from its continuation.
            where: dict[str, Any] = (
                {"continuation": began} if began else {"start_time": "Now", "partition_key": self._partition}
            )
            pages = container.query_items_change_feed(max_item_count=_PAGE, response_hook=keep, **where).by_page()
            items: list[Mapping[str, Any]] = []
            async with asyncio.timeout(_POLL_SECONDS):
                async for page in pages:
                    items = [item async for item in page]
                    break
            # The SDK puts its own continuation in place of the server's, in the same headers.
            self._continuation = str(headers.get("etag") or began)
            if not began:
                # What happened before the feed's beginning is not told: all read again, once.
                self._tell_stale()
            for item in items:
                self._tell(item)
            changed = changed or bool(items)
            if not items:
                return changed

    def _tell(self, item: Mapping[str, Any]) -> None:
        if item["partition"] != self._partition:
            return
        key, order = unescape(item["id"]), revision(item).order
        told = [*self._feeds.get(key, ()), *self._feeds.get(None, ())]
        if not told:
            return
        try:
            document = None if is_gone(item) else read_document(item)
        except Exception:
            _log.exception("%s cannot be read", item["id"])
            for feed in told:
                feed.fail(ServerError("the stored object cannot be read; tell the operator of this endpoint"))
        else:
            for feed in told:
                feed.tell(key, order, document)

    def _tell_stale(self) -> None:
        for feed in self._all():
            feed.tell_stale()

    def _fail(self, failure: CloudError) -> None:
        self._failure = failure
        _log.error("watching failed: %s", failure)
        for feed in self._all():
            feed.fail(failure.docker())

    def _all(self) -> list[Feed]:
        return [feed for feeds in self._feeds.values() for feed in feeds]
