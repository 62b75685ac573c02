"""`docker events`: published in memory at once, kept in the store in batches.

Nobody waits for an event to be written. Listeners of this process get it from memory; those of other processes read
the batch from the store when its watch tells them. The history is bounded, as moby's.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing

from control_plane.errors import DockerError
from control_plane.model import Container, Event
from control_plane.services.event_filters import EventFilters
from control_plane.store.base import AlreadyExists, Document, RevisionConflict, Store, StoreFull

_log = logging.getLogger(__name__)

HISTORY = 256
"""Events kept per tenant, moby's number."""
_BATCH_SECONDS = 0.05
_LONGEST_PAUSE = 10.0
"""Seconds between two attempts at most, while the store does not take what is pending."""
_MOST_PENDING = 4 * HISTORY
"""Events of a tenant that wait for a store that is away; beyond that the oldest are lost."""
_TRIM_AFTER = HISTORY // 2
"""Events written by this process before it looks again at what can be dropped: a look reads all that is there."""
_LISTENER_QUEUE = 1024
"""Events kept for a listener that does not read; beyond that the oldest are dropped."""


class Events:
    """The tenants' events."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._origin = secrets.token_hex(6)
        self._batches = 0
        self._pending: dict[str, list[Event]] = {}
        self._writing: dict[str, tuple[str, list[Event]]] = {}
        self._untrimmed: dict[str, int] = {}
        self._listeners: dict[str, set[asyncio.Queue[Event]]] = {}
        self._flusher: asyncio.Task[None] | None = None
        self._last = 0

    def listeners(self, tenant: str) -> int:
        """How many of the tenant's `docker events` are open in this process."""
        return len(self._listeners.get(tenant, ()))

    async def publish(
        self, tenant: str, type: str, action: str, actor_id: str, attributes: Mapping[str, str] | None = None
    ) -> None:
        """Tells the listeners now and the store soon. Never blocks and never fails."""
        # Two events of one tick keep their order by time alone.
        self._last = max(time.time_ns(), self._last + 1)
        event = Event(
            tenant=tenant,
            type=type,
            action=action,
            actor=actor_id,
            attributes=dict(attributes or {}),
            time_nano=self._last,
        )
        for queue in self._listeners.get(tenant, ()):
            _put(queue, event)
        waiting = self._pending.setdefault(tenant, [])
        waiting.append(event)
        if len(waiting) > _MOST_PENDING:
            del waiting[:HISTORY]
            _log.warning("%d events of the history are lost: the store takes none", HISTORY)
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().create_task(self._flush_soon())

    async def publish_container(
        self, container: Container, action: str, attributes: Mapping[str, str] | None = None
    ) -> None:
        """A container's event with moby's attributes: its labels, the action's own, its image and name."""
        told = {**container.labels, **(attributes or {}), "image": container.image, "name": container.name}
        await self.publish(container.tenant, "container", action, container.id, told)

    async def stream(
        self, tenant: str, since: int | None, until: int | None, filters: EventFilters
    ) -> AsyncIterator[Event | None]:
        """Past events (only when `since` or `until` is given, as moby), then live ones up to `until`.

        The first item is None and says that from now on nothing is missed. Times are Unix nanoseconds. Ends by itself
        only with `until`.
        """
        queue: asyncio.Queue[Event] = asyncio.Queue(_LISTENER_QUEUE)
        self._listeners.setdefault(tenant, set()).add(queue)
        seen: set[str] = set()
        replayed: set[tuple[int, str]] = set()
        follower: asyncio.Task[None] | None = None
        try:
            history = await self._history(tenant, seen)
            follower = asyncio.get_running_loop().create_task(self._follow(tenant, queue, seen))
            yield None
            for event in history if since is not None or until is not None else ():
                replayed.add((event.time_nano, event.actor))
                at = event.time_nano
                if at >= (since or 0) and (until is None or at <= until) and filters.include(event):
                    yield event
            while (remaining := _remaining(until)) is None or remaining > 0:
                try:
                    event = await asyncio.wait_for(queue.get(), remaining)
                except TimeoutError:
                    return
                if (event.time_nano, event.actor) not in replayed and filters.include(event):
                    yield event
        finally:
            if follower is not None:
                follower.cancel()
            self._listeners[tenant].discard(queue)
            if not self._listeners[tenant]:
                del self._listeners[tenant]

    async def last_exit(self, tenant: str, container: str) -> int | None:
        """Exit code told by the container's latest `die`, also when its record is gone already."""
        for event in reversed(await self._history(tenant, set())):
            if event.type == "container" and event.action == "die" and event.actor == container:
                code = event.attributes.get("exitCode", "")
                return int(code) if code.isdecimal() else None
        return None

    async def close(self) -> None:
        """Writes what is pending, once."""
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
        while await self._flush() and self._pending:
            pass
        for _, events in self._writing.values():
            _log.warning("%d events of the history are lost: the store took none", len(events))

    async def _history(self, tenant: str, seen: set[str]) -> list[Event]:
        """What the store has and what is about to be written; marks the batches read as seen."""
        documents = await self._store.list("events", tenant)
        seen.update(document.key for document in documents)
        events = [event for document in documents for event in _decode(document)]
        # A batch may be in the store already while it counts as being written.
        known = {(event.time_nano, event.actor) for event in events}
        _, writing = self._writing.get(tenant, ("", []))
        waiting = [*writing, *self._pending.get(tenant, ())]
        events += [event for event in waiting if (event.time_nano, event.actor) not in known]
        events.sort(key=lambda event: event.time_nano)
        return events[-HISTORY:]

    async def _follow(self, tenant: str, queue: asyncio.Queue[Event], seen: set[str]) -> None:
        """Brings in what other processes publish."""
        async with aclosing(self._store.watch("events", tenant)) as changes:  # type: ignore[type-var]
            async for _ in changes:
                documents = await self._store.list("events", tenant)
                for document in documents:
                    if document.key not in seen:
                        seen.add(document.key)
                        if document.body["origin"] != self._origin:
                            for event in _decode(document):
                                _put(queue, event)
                seen.intersection_update({document.key for document in documents})

    async def _flush_soon(self) -> None:
        """Until all is written. A store that fails is asked again, less and less often; events gather meanwhile."""
        pause = _BATCH_SECONDS
        try:
            while self._pending or self._writing:
                await asyncio.sleep(pause)
                pause = _BATCH_SECONDS if await self._flush() else min(pause * 2, _LONGEST_PAUSE)
        finally:
            self._flusher = None

    async def _flush(self) -> bool:
        """Writes a batch for each tenant that has events; whether all were written.

        A batch that the store did not take stays as it is, with its key: the next attempt may find it written.
        """
        done = True
        for tenant in self._writing.keys() | self._pending.keys():
            if tenant not in self._writing:
                events = self._pending.pop(tenant)
                self._batches += 1
                key = f"{events[0].time_nano:020d}-{self._origin}-{self._batches}"
                self._writing[tenant] = (key, events[-HISTORY:])
            done = await self._write(tenant) and done
        return done

    async def _write(self, tenant: str) -> bool:
        key, events = self._writing[tenant]
        body = {"origin": self._origin, "events": [event.model_dump(mode="json") for event in events]}
        try:
            await self._store.create("events", tenant, key, body)
        except AlreadyExists:
            pass  # by an attempt whose answer was lost: nobody else makes such keys
        except StoreFull as error:
            _log.warning("%d events of the history are lost: %s", len(events), error)
        except DockerError as error:
            _log.warning("%d events of the history wait for the store: %s", len(events), error.message)
            return False
        del self._writing[tenant]
        await self._trim_sometimes(tenant, len(events))
        return True

    async def _trim_sometimes(self, tenant: str, written: int) -> None:
        """Counts what this process wrote: its first batch and each half a history after it are followed by a look."""
        count = self._untrimmed.get(tenant, _TRIM_AFTER) + written
        if count < _TRIM_AFTER:
            self._untrimmed[tenant] = count
            return
        self._untrimmed[tenant] = 0
        try:
            await self._trim(tenant)
        except DockerError as error:  # the next look will do
            _log.warning("old events are not dropped: %s", error.message)

    async def _trim(self, tenant: str) -> None:
        """Drops the oldest batches that are not needed for `HISTORY` events."""
        kept = 0
        for document in reversed(await self._store.list("events", tenant)):
            if kept >= HISTORY:
                try:
                    await self._store.delete(document)
                except RevisionConflict:
                    continue
            kept += len(document.body["events"])


def _decode(document: Document) -> list[Event]:
    return [Event.model_validate(event) for event in document.body["events"]]


def _put(queue: asyncio.Queue[Event], event: Event) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(event)


def _remaining(until: int | None) -> float | None:
    return None if until is None else (until - time.time_ns()) / 1e9
