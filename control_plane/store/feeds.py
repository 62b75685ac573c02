"""Tells the watchers of one process what changed, once each, whichever way the news comes.

A change made here is told at once; the cloud's own feed brings it again a little later, and those of other processes
for the first time. A document's changes are ordered by a number that grows with each write, so an echo is known from
news and nothing goes back in time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from control_plane.store.base import Collection as CollectionName
from control_plane.store.base import Document

_KEPT = 1024
"""Changes kept for a watcher that does not read; beyond that the oldest are dropped (they may be coalesced)."""
_DELETED = 4096
"""Deleted documents remembered per feed, so that the echo of a deletion is known."""


@dataclass(frozen=True, slots=True)
class Place:
    """What is watched: one document, or with None all of a tenant's collection from the key `start` on."""

    collection: CollectionName
    tenant: str
    key: str | None
    start: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A document as written, None when deleted, and when that was. `stale`: something was missed, read again."""

    document: Document | None
    order: int = 0
    stale: bool = False


class Watcher:
    """One watcher's queue of changes."""

    def __init__(self, place: Place) -> None:
        self._wide = place.key is None
        self._changes: deque[Change] = deque(maxlen=_KEPT)
        self._some = asyncio.Event()
        self._failure: Exception | None = None

    def put(self, change: Change) -> None:
        """Called for each change; never blocks. Of a collection no document may be left out without a word."""
        if self._wide:
            if change.document is None and not change.stale:
                return  # deletions are not told
            if change.stale or len(self._changes) == _KEPT:
                self._changes.clear()
                change = Change(None, stale=True)
        self._changes.append(change)
        self._some.set()

    def fail(self, error: Exception) -> None:
        """Nothing can be told any more; `next` raises `error` once what is queued is read."""
        self._failure = error
        self._some.set()

    async def next(self) -> Change:
        """The next change."""
        while not self._changes:
            if self._failure is not None:
                raise self._failure
            self._some.clear()
            await self._some.wait()
        return self._changes.popleft()


class Feed:
    """What was told of one place, and to whom."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._watchers: set[Watcher] = set()
        self._told: dict[str, tuple[int, bool]] = {}
        """By key, the order of the last change, and whether the document exists since."""
        self._pruned_at = _DELETED
        self._failure: Exception | None = None

    @property
    def watched(self) -> bool:
        """Whether anybody still listens."""
        return bool(self._watchers)

    def add(self) -> Watcher:
        """Another watcher."""
        watcher = Watcher(self.place)
        self._watchers.add(watcher)
        if self._failure is not None:
            watcher.fail(self._failure)
        return watcher

    def remove(self, watcher: Watcher) -> None:
        """The watcher listens no more."""
        self._watchers.discard(watcher)

    def tell(self, key: str, order: int, document: Document | None) -> None:
        """A document was written or (with None) deleted; told unless it is known or has been overtaken."""
        last = self._told.get(key)
        if last is not None and order <= last[0]:
            return
        self._told[key] = (order, document is not None)
        if len(self._told) > self._pruned_at:
            self._told = {key: told for key, told in self._told.items() if told[1]}
            self._pruned_at = len(self._told) + _DELETED
        if document is None and last is not None and not last[1]:
            return  # the echo of a deletion: of the same one, seen later
        for watcher in self._watchers:
            watcher.put(Change(document, order))

    def tell_only(self, present: Collection[str], order: int) -> None:
        """As of `order` there are no other documents than those present: the rest was deleted unnoticed."""
        for key, (last, exists) in list(self._told.items()):
            if exists and key not in present and last < order:
                self.tell(key, order, None)

    def tell_stale(self) -> None:
        """Something may have been missed: watchers read again."""
        for watcher in self._watchers:
            watcher.put(Change(None, stale=True))

    def fail(self, error: Exception) -> None:
        """Ends all watches with an error, those to come as well."""
        self._failure = error
        for watcher in self._watchers:
            watcher.fail(error)


class Feeds:
    """The feeds by place. `opened` is called with a feed's first watcher, `closed` after its last."""

    def __init__(self, opened: Callable[[Feed], None], closed: Callable[[Feed], None]) -> None:
        self._opened = opened
        self._closed = closed
        self._feeds: dict[Place, Feed] = {}
        self._wide: dict[tuple[CollectionName, str], list[Feed]] = {}
        """The feeds of whole collections: one, unless a later watcher wants what lies before its start."""

    @contextmanager
    def subscribe(self, place: Place) -> Iterator[tuple[Feed, Watcher]]:
        """A watcher of the place, for the length of the block."""
        feed = self._feed(place)
        watcher = feed.add()
        try:
            yield feed, watcher
        finally:
            feed.remove(watcher)
            if not feed.watched and self._feeds.get(feed.place) is feed:
                self._drop(feed)

    def _feed(self, place: Place) -> Feed:
        wide = self._wide.get((place.collection, place.tenant), []) if place.key is None else []
        feed = next((one for one in wide if one.place.start <= place.start), None) or self._feeds.get(place)
        if feed is None:
            feed = self._feeds[place] = Feed(place)
            if place.key is None:
                self._wide.setdefault((place.collection, place.tenant), []).append(feed)
            self._opened(feed)
        return feed

    def _drop(self, feed: Feed) -> None:
        place = feed.place
        del self._feeds[place]
        if place.key is None:
            self._wide[place.collection, place.tenant].remove(feed)
            if not self._wide[place.collection, place.tenant]:
                del self._wide[place.collection, place.tenant]
        self._closed(feed)

    def tell(self, collection: CollectionName, tenant: str, key: str, order: int, document: Document | None) -> None:
        """A change made in this process."""
        feed = self._feeds.get(Place(collection, tenant, key))
        for told in (*((feed,) if feed is not None else ()), *self._wide.get((collection, tenant), ())):
            told.tell(key, order, document)

    def fail(self, error: Exception) -> None:
        """The store is closed: nothing more is told."""
        for feed in self._feeds.values():
            feed.fail(error)
