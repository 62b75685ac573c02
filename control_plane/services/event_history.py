"""The events in the store: written in batches, read from a moment on, bounded in number as moby's.

A batch's key is the time it was first handed to the store, which is later than any event in it. No batch gets into the
store later than `LATENESS` after its key's time, so what is new at some moment has keys from `LATENESS` before it on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from dataclasses import dataclass, field, replace

from control_plane.errors import DockerError
from control_plane.model import Event
from control_plane.store.base import AlreadyExists, Document, RevisionConflict, Store, StoreFull

_log = logging.getLogger(__name__)

HISTORY = 256
"""Events kept per tenant, moby's number."""
LATENESS = 300.0
"""Seconds from a key's time to when nobody finds the batch new any more: the age at which a batch gets another key,
one attempt to write it, and what the clocks of two control planes may differ by."""
_BATCH_SECONDS = 0.05
_LONGEST_PAUSE = 10.0
"""Seconds between two attempts at most, while the store does not take what is pending."""
_MOST_PENDING = 4 * HISTORY
"""Events of a tenant that wait for a store that is away; beyond that the oldest are lost."""
_KEY_SECONDS = 60.0
"""Age at which a batch that the store has not taken gets another key."""
_LOOK_AFTER = 8 * HISTORY
"""Events written by this process before it looks again at what others have left: a look reads all that is there."""
_TENANTS = 500
"""Tenants whose batches this process remembers; what it forgets, a look finds."""


def key_at(nanoseconds: int) -> str:
    """The first key of a batch of that moment (Unix nanoseconds)."""
    return f"{max(nanoseconds, 0):020d}"


def time_of(key: str) -> int:
    """The moment of a batch's key, in Unix nanoseconds; 0 for a key that is none."""
    text = key.partition("-")[0]
    return int(text) if text.isdecimal() and text.isascii() else 0


def decode(document: Document) -> list[Event]:
    """A batch's events."""
    return [Event.model_validate(event) for event in document.body["events"]]


def identity(event: Event) -> tuple[int, str]:
    """What tells an event from all others of its tenant."""
    return (event.time_nano, event.actor)


@dataclass(slots=True)
class _Batch:
    """On its way into the store."""

    events: list[Event]
    key: str = ""


@dataclass(slots=True)
class _Written:
    """A tenant's batches that this process has written, oldest first, without their events."""

    since_look: int = _LOOK_AFTER
    """Events written since this process looked at what is there: its first batch is followed by a look."""
    events: int = 0
    batches: deque[tuple[Document, int]] = field(default_factory=deque)


class EventHistory:
    """All tenants' events in the store, and those that wait to get there."""

    def __init__(self, store: Store) -> None:
        self.origin = secrets.token_hex(6)
        """Marks the batches of this process."""
        self._store = store
        self._batches = 0
        self._last_key = 0
        self._pending: dict[str, list[Event]] = {}
        self._writing: dict[str, _Batch] = {}
        self._written: dict[str, _Written] = {}
        self._flusher: asyncio.Task[None] | None = None

    def add(self, event: Event) -> None:
        """Written soon. Never blocks and never fails."""
        waiting = self._pending.setdefault(event.tenant, [])
        waiting.append(event)
        if len(waiting) > _MOST_PENDING:
            del waiting[:HISTORY]
            _log.warning("%d events of the history are lost: the store takes none", HISTORY)
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().create_task(self._flush_soon())

    async def read(self, tenant: str, since: int) -> tuple[list[Document], list[Event]]:
        """The batches from a moment on (Unix nanoseconds), and the events in them or waiting here, oldest first."""
        documents = await self._store.list("events", tenant, key_at(since) if since > 0 else "")
        events = [event for document in documents for event in decode(document)]
        # A batch may be in the store already while it counts as being written.
        known = {identity(event) for event in events}
        writing = self._writing[tenant].events if tenant in self._writing else []
        waiting = [*writing, *self._pending.get(tenant, ())]
        events += [event for event in waiting if identity(event) not in known]
        events.sort(key=lambda event: event.time_nano)
        return documents, events[-HISTORY:]

    async def close(self) -> None:
        """Writes what is pending, once."""
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
        while await self.flush() and self._pending:
            pass
        for batch in self._writing.values():
            _log.warning("%d events of the history are lost: the store took none", len(batch.events))

    async def _flush_soon(self) -> None:
        """Until all is written. A store that fails is asked again, less and less often; events gather meanwhile."""
        pause = _BATCH_SECONDS
        try:
            while self._pending or self._writing:
                await asyncio.sleep(pause)
                pause = _BATCH_SECONDS if await self.flush() else min(pause * 2, _LONGEST_PAUSE)
        finally:
            self._flusher = None

    async def flush(self) -> bool:
        """Writes a batch for each tenant that has events; whether all were written.

        A batch that the store did not take stays as it is, with its key: the next attempt may find it written.
        """
        done = True
        for tenant in self._writing.keys() | self._pending.keys():
            if tenant not in self._writing:
                self._writing[tenant] = _Batch(self._pending.pop(tenant)[-HISTORY:])
            done = await self._write(tenant, self._writing[tenant]) and done
        return done

    async def _write(self, tenant: str, batch: _Batch) -> bool:
        body = {"origin": self.origin, "events": [event.model_dump(mode="json") for event in batch.events]}
        written = None
        try:
            if not await self._is_there(tenant, batch):
                written = await self._store.create("events", tenant, batch.key, body)
        except AlreadyExists:
            pass  # by an attempt whose answer was lost: nobody else makes such keys
        except StoreFull as error:
            _log.warning("%d events of the history are lost: %s", len(batch.events), error)
        except DockerError as error:
            _log.warning("%d events of the history wait for the store: %s", len(batch.events), error.message)
            return False
        del self._writing[tenant]
        await self._bound(tenant, written, len(batch.events))
        return True

    async def _is_there(self, tenant: str, batch: _Batch) -> bool:
        """Gives the batch a key, and another when that has become old; whether it was written under the old one."""
        if batch.key and time.time_ns() - time_of(batch.key) < _KEY_SECONDS * 1e9:
            return False
        if batch.key and await self._store.get("events", tenant, batch.key) is not None:
            return True
        self._last_key = max(time.time_ns(), self._last_key, batch.events[-1].time_nano)
        self._batches += 1
        batch.key = f"{key_at(self._last_key)}-{self.origin}-{self._batches}"
        return False

    async def _bound(self, tenant: str, document: Document | None, count: int) -> None:
        """Drops what this process has written before the last `HISTORY` events of its own; that reads nothing.

        What processes that are gone have left is found by a look, after the first batch and seldom from then on.
        """
        written = self._written.setdefault(tenant, _Written())
        written.since_look += count
        if document is not None:
            written.batches.append((replace(document, body={}), count))
            written.events += count
        try:
            while written.batches and written.events - written.batches[0][1] >= HISTORY:
                oldest, size = written.batches.popleft()
                written.events -= size
                await self._drop(oldest)
            if written.since_look >= _LOOK_AFTER:
                written.since_look = 0
                await self._look(tenant)
        except DockerError as error:  # the next look will do
            _log.warning("old events are not dropped: %s", error.message)
        if len(self._written) > _TENANTS:
            del self._written[next(iter(self._written))]

    async def _look(self, tenant: str) -> None:
        """Drops the oldest batches that are not needed for `HISTORY` events."""
        kept = 0
        for document in reversed(await self._store.list("events", tenant)):
            if kept >= HISTORY:
                await self._drop(document)
            kept += len(document.body["events"])

    async def _drop(self, document: Document) -> None:
        try:
            await self._store.delete(document)
        except RevisionConflict:
            return  # by another
