"""What the stores in a cloud share: retries, writes whose answer was lost, and watches.

A `Documents` speaks to the cloud and knows nothing of either. Every failure that says nothing about whether the
write was carried out is followed by the same write again; the write's token (see `revisions`) tells a document that
we changed from one that others changed.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

from control_plane.backends.calls import AMBIGUOUS, TRANSIENT, CloudError, call
from control_plane.errors import DockerError, InvalidParameter, Unavailable
from control_plane.store.base import AlreadyExists, Collection, Document, RevisionConflict, StoreFull
from control_plane.store.feeds import Feed, Feeds, Place
from control_plane.store.keys import escape
from control_plane.store.revisions import new_token, revision_of

T = TypeVar("T")

_AGAIN = TRANSIENT | AMBIGUOUS
_TOTAL = 30.0
"""Seconds an operation is tried for."""
_EACH = 10.0


class Documents(Protocol):
    """One cloud's documents: each method one attempt, with `timeout` in seconds. Raises what its SDK raises."""

    longest_id: int
    """Most characters of an escaped key."""
    repeats_writes: bool
    """Its SDK may send a write again on its own account: any conflict may be with our own write."""

    async def read(self, collection: Collection, tenant: str, key: str, timeout: float) -> Document | None:
        """One document, or None."""
        ...

    async def find(
        self, collection: Collection, tenant: str, prefix: str, limit: int, timeout: float
    ) -> list[Document]:
        """The first `limit` documents, in key order, whose key starts with `prefix`."""
        ...

    async def list(
        self, collection: Collection, tenant: str | None, start: str, timeout: float
    ) -> builtins.list[Document]:
        """All documents of a tenant, from the key `start` on, or of all tenants; in any order."""
        ...

    async def due(self, collection: Collection, at: float, timeout: float) -> builtins.list[Document]:
        """Those of all tenants that are due by `at`, in any order."""
        ...

    async def insert(
        self, collection: Collection, tenant: str, key: str, body: Mapping[str, Any], token: str, timeout: float
    ) -> Document:
        """Writes a document that is not there. Raises AlreadyExists, StoreFull."""
        ...

    async def swap(self, document: Document, body: Mapping[str, Any], token: str, timeout: float) -> Document:
        """Writes if the revision is still current. Raises RevisionConflict, StoreFull."""
        ...

    async def remove(self, document: Document, token: str, timeout: float) -> int:
        """Deletes if the revision is still current; the deletion's order. Raises RevisionConflict."""
        ...

    async def removed(self, document: Document, token: str, timeout: float) -> bool:
        """Whether this state of the document was deleted, after a deletion whose answer was lost."""
        ...

    def opened(self, feed: Feed) -> None:
        """From now on the feed is told of every change, until `closed`."""
        ...

    def closed(self, feed: Feed) -> None:
        """Nobody watches the feed any more."""
        ...

    async def warm(self) -> None:
        """Loads the SDK and connects."""
        ...

    async def close(self) -> None:
        """Lets go of connections."""
        ...


_CLOSED = "the endpoint is shutting down"


class HostedStore:
    """`Store` on a cloud's documents."""

    def __init__(self, documents: Documents, lag: float) -> None:
        self.lag = lag
        self._documents = documents
        self._feeds = Feeds(documents.opened, documents.closed)
        self._closed = False

    async def warm(self) -> None:
        """Loads the cloud's SDK and connects, so that the first operation does not wait for it."""
        await self._documents.warm()

    async def get(self, collection: Collection, tenant: str, key: str) -> Document | None:
        """One document as it is now, or None."""
        if len(escape(key)) > self._documents.longest_id:
            return None
        return await _read(lambda timeout: self._documents.read(collection, tenant, key, timeout))

    async def find(self, collection: Collection, tenant: str, prefix: str, limit: int = 2) -> builtins.list[Document]:
        """Documents whose key starts with `prefix`, in key order."""
        if len(escape(prefix)) > self._documents.longest_id:
            return []
        return await _read(lambda timeout: self._documents.find(collection, tenant, prefix, limit, timeout))

    async def list(self, collection: Collection, tenant: str | None = None, start: str = "") -> builtins.list[Document]:
        """All documents of a tenant, from the key `start` on, or of all tenants; in key order."""
        found = await _read(lambda timeout: self._documents.list(collection, tenant, start, timeout), each=_TOTAL)
        found.sort(key=lambda document: (document.key, document.tenant))
        return found

    async def due(self, collection: Collection, at: float) -> builtins.list[Document]:
        """Those of all tenants that are due by `at`, in key order."""
        found = await _read(lambda timeout: self._documents.due(collection, at, timeout), each=_TOTAL)
        found.sort(key=lambda document: (document.key, document.tenant))
        return found

    async def create(self, collection: Collection, tenant: str, key: str, body: Mapping[str, Any]) -> Document:
        """Writes a new document. Raises AlreadyExists, StoreFull; InvalidParameter for a key that is too long."""
        if len(escape(key)) > self._documents.longest_id:
            raise InvalidParameter(f"the name is too long: {key[:32]}… has {len(key)} characters")
        token = new_token()

        async def insert(timeout: float) -> Document:
            return await self._documents.insert(collection, tenant, key, body, token, timeout)

        async def inserted(timeout: float) -> Document | None:
            return _if_written(await self._documents.read(collection, tenant, key, timeout), token)

        return self._written(await self._write(insert, inserted, AlreadyExists))

    async def replace(self, document: Document, body: Mapping[str, Any]) -> Document:
        """Writes if the revision is still current. Raises RevisionConflict, StoreFull.

        When the answer was lost and others have written since, the result is the document as they left it.
        """
        token = new_token()

        async def swap(timeout: float) -> Document:
            return await self._documents.swap(document, body, token, timeout)

        async def swapped(timeout: float) -> Document | None:
            place = (document.collection, document.tenant, document.key)
            return _if_written(await self._documents.read(*place, timeout), token)

        return self._written(await self._write(swap, swapped, RevisionConflict))

    async def delete(self, document: Document) -> None:
        """Deletes if the revision is still current. Raises RevisionConflict."""
        token = new_token()

        async def remove(timeout: float) -> int | None:
            return await self._documents.remove(document, token, timeout)

        async def removed(timeout: float) -> int | None:
            return -1 if await self._documents.removed(document, token, timeout) else None

        order = await self._write(remove, removed, RevisionConflict)
        if order is not None and order > 0:  # else the cloud's feed will tell
            self._feeds.tell(document.collection, document.tenant, document.key, order, None)

    async def watch(
        self, collection: Collection, tenant: str, key: str | None = None, start: str = ""
    ) -> AsyncIterator[Document | None]:
        """Changes of a document, or the documents written in a collection; see `Store.watch`.

        Changes made in this process arrive at once and in order, those of others when the cloud tells of them.
        Raises DockerError when the cloud refuses to tell.
        """
        with self._feeds.subscribe(Place(collection, tenant, key, start)) as (feed, watcher):
            last = None if key is None else await self._look(feed, key)
            order = 0 if last is None else revision_of(last).order
            yield last
            while True:
                change = await watcher.next()
                if key is None:
                    yield change.document
                    continue
                if change.stale:
                    current = await self._look(feed, key)
                elif change.order <= order:
                    continue  # queued while a newer state was read
                else:
                    current, order = change.document, change.order
                if (current and current.revision) != (last and last.revision):
                    last = current
                    order = order if last is None else revision_of(last).order
                    yield last

    async def _look(self, feed: Feed, key: str) -> Document | None:
        """Reads the document, so that the feed tells nothing older any more."""
        place = feed.place
        try:
            document = await self.get(place.collection, place.tenant, key)
        except Exception as error:
            # A client that is closed in the middle of a call fails in ways of its own.
            if self._closed and not isinstance(error, DockerError):
                raise Unavailable(_CLOSED) from error
            raise
        if document is not None:
            feed.tell(key, revision_of(document).order, document)
        return document

    def _written(self, document: Document) -> Document:
        order = revision_of(document).order
        self._feeds.tell(document.collection, document.tenant, document.key, order, document)
        return document

    async def _write(
        self,
        attempt: Callable[[float], Awaitable[T]],
        landed: Callable[[float], Awaitable[T | None]],
        conflict: type[Exception],
    ) -> T:
        """Writes, again while the answer is lost. A conflict after that is ours when `landed` finds our write."""
        doubtful = self._documents.repeats_writes

        async def once(timeout: float) -> T:
            nonlocal doubtful
            try:
                return await attempt(timeout)
            except conflict:
                if doubtful and (found := await landed(timeout)) is not None:
                    return found
                raise
            except StoreFull:
                raise
            except Exception:
                doubtful = True
                raise

        try:
            return await call("writing the state", once, total=_TOTAL, each=_EACH, repeat=_AGAIN)
        except CloudError as error:
            if error.code == "RESOURCE_EXHAUSTED":
                raise StoreFull(f"the store's quota is used up: {error.quota or error.text}") from error
            raise error.docker() from error

    async def close(self) -> None:
        """Ends the watches and lets go of the connections."""
        self._closed = True
        self._feeds.fail(Unavailable(_CLOSED))
        await self._documents.close()


def _if_written(document: Document | None, token: str) -> Document | None:
    return document if document is not None and revision_of(document).written_by(token) else None


async def _read(attempt: Callable[[float], Awaitable[T]], each: float = _EACH) -> T:
    try:
        return await call("reading the state", attempt, total=_TOTAL, each=each, repeat=_AGAIN)
    except CloudError as error:
        raise error.docker() from error
