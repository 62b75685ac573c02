"""Tells the watchers of one process about changed documents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from control_plane.store.base import Document

_POLL_SECONDS = 0.025
_KEPT = 1024
"""Changes kept for a watcher that does not read; beyond that the oldest are dropped (they may be coalesced)."""

_Place = tuple[str, str, str | None]


@dataclass(frozen=True, slots=True)
class Change:
    """A document as written, None when deleted. `foreign`: something changed in another process, read again."""

    document: Document | None
    foreign: bool = False


_FOREIGN = Change(None, foreign=True)


class Subscription:
    """One watcher's queue; leave the `with` block to stop it."""

    def __init__(self, changes: Changes, place: _Place) -> None:
        self._changes = changes
        self._place = place
        self._queue: asyncio.Queue[Change] = asyncio.Queue(_KEPT)

    def put(self, change: Change) -> None:
        """Called for each change; never blocks. Of a collection no document may be left out without a word."""
        if self._place[2] is None and (change.foreign or self._queue.full()):
            while not self._queue.empty():
                self._queue.get_nowait()
            change = _FOREIGN
        elif self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(change)

    async def next(self) -> Change:
        """The next change."""
        return await self._queue.get()

    def __enter__(self) -> Subscription:
        self._changes.add(self._place, self)
        return self

    def __exit__(self, *_: object) -> None:
        self._changes.remove(self._place, self)


class Changes:
    """Subscriptions by place. While there is one, `poll` runs regularly to notice other processes' writes."""

    def __init__(self, poll: Callable[[], None]) -> None:
        self._poll = poll
        self._subscriptions: dict[_Place, set[Subscription]] = {}
        self._poller: asyncio.Task[None] | None = None
        self._closed = False

    def subscribe(self, collection: str, tenant: str, key: str | None) -> Subscription:
        """A watcher of one document, or with None of all of a tenant's collection."""
        return Subscription(self, (collection, tenant, key))

    def publish(self, collection: str, tenant: str, key: str, document: Document | None) -> None:
        """A document was written (or, with None, deleted) in this process."""
        if not self._subscriptions:
            return
        watchers = self._subscriptions.get((collection, tenant, key))
        if watchers:
            change = Change(document)
            for watcher in watchers:
                watcher.put(change)
        if document is not None:
            for watcher in self._subscriptions.get((collection, tenant, None), ()):
                watcher.put(Change(document))

    def publish_foreign(self) -> None:
        """Another process wrote something: all read again."""
        for watchers in self._subscriptions.values():
            for watcher in watchers:
                watcher.put(_FOREIGN)

    def add(self, place: _Place, subscription: Subscription) -> None:
        """Starts telling the subscription."""
        self._subscriptions.setdefault(place, set()).add(subscription)
        if self._poller is None and not self._closed:
            self._poller = asyncio.get_running_loop().create_task(self._poll_while_watched())

    def remove(self, place: _Place, subscription: Subscription) -> None:
        """Stops telling it."""
        watchers = self._subscriptions.get(place)
        if watchers is not None:
            watchers.discard(subscription)
            if not watchers:
                del self._subscriptions[place]

    async def _poll_while_watched(self) -> None:
        while self._subscriptions:
            await asyncio.sleep(_POLL_SECONDS)
            self._poll()
        self._poller = None

    async def close(self) -> None:
        """Stops polling."""
        self._closed = True
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
            self._poller = None
