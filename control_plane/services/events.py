"""`docker events`: published in memory at once, kept in the store in batches.

Nobody waits for an event to be written. Listeners of this process get it from memory; those of other processes are
told the batch itself by their watch of the store, and read nothing for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from control_plane.errors import DockerError
from control_plane.model import Container, Event
from control_plane.services.event_filters import EventFilters
from control_plane.services.event_history import HISTORY, LATENESS, EventHistory, decode, identity, key_at, time_of
from control_plane.services.event_order import InOrder
from control_plane.store.base import Document, Store

__all__ = ["HISTORY", "Events"]

_log = logging.getLogger(__name__)

_LISTENER_QUEUE = 1024
"""Events kept for a listener that does not read; beyond that the oldest are dropped."""
_KEYS = 1024
"""Keys a listener remembers before it looks for those that are too old to come again."""
_AGAIN = 1.0
"""Seconds between two attempts to list what a watch says was missed."""


class Events:
    """The tenants' events."""

    def __init__(self, store: Store, *, shared: bool = False) -> None:
        """`shared`: other processes publish too, so listeners hear of an event when theirs have had time to arrive."""
        self._store = store
        self._settle = store.lag if shared else 0.0
        self._history = EventHistory(store)
        self._listeners: dict[str, set[asyncio.Queue[Event]]] = {}
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
        self._history.add(event)

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
        replayed: set[tuple[int, str]] = set()
        past = since is not None or until is not None
        async with self._listening(tenant, (since or 0) if past else None, until) as (history, queue):
            yield None
            for event in history if past else ():
                replayed.add(identity(event))
                at = event.time_nano
                if at >= (since or 0) and (until is None or at <= until) and filters.include(event):
                    yield event
            live = InOrder(queue, self._settle)
            while (remaining := _remaining(until, self._settle)) is None or remaining > 0:
                try:
                    event = await live.next(remaining)
                except TimeoutError:
                    return
                if until is not None and event.time_nano > until:
                    continue
                if identity(event) not in replayed and filters.include(event):
                    yield event

    async def last_exit(self, tenant: str, container: str, patience: float = 0.0) -> int | None:
        """Exit code told by the container's latest `die` of the last minutes, also when its record is gone already.

        One that is not there yet is waited for, `patience` seconds at most.
        """
        until = time.time_ns() + int(patience * 1e9)
        async with self._listening(tenant, None, until) as (history, queue):
            codes = [code for code in (_exit_of(event, container) for event in history) if code is not None]
            if codes:
                return codes[-1]
            while (remaining := (until - time.time_ns()) / 1e9) > 0:
                try:
                    code = _exit_of(await asyncio.wait_for(queue.get(), remaining), container)
                except TimeoutError:
                    break
                if code is not None:
                    return code
        return None

    async def close(self) -> None:
        """Writes what is pending, once."""
        await self._history.close()

    @asynccontextmanager
    async def _listening(
        self, tenant: str, since: int | None, until: int | None
    ) -> AsyncIterator[tuple[list[Event], asyncio.Queue[Event]]]:
        """What happened from `since` on (None: lately), and a queue of all that happens from now on.

        An event may be in both. Nothing is watched when `until` is over.
        """
        queue: asyncio.Queue[Event] = asyncio.Queue(_LISTENER_QUEUE)
        self._listeners.setdefault(tenant, set()).add(queue)
        seen = _Seen()
        follower: asyncio.Task[None] | None = None
        changes = self._store.watch("events", tenant, start=seen.start())
        try:
            live = until is None or until > time.time_ns()
            if live:
                await anext(changes)  # from here on it tells all that the list may not have
            first = time_of(seen.start())
            documents, history = await self._history.read(tenant, first if since is None else min(since, first))
            for document in documents:
                seen.is_new(document.key)
            if live:
                follower = asyncio.get_running_loop().create_task(self._follow(tenant, changes, queue, seen))
            yield history, queue
        finally:
            self._listeners[tenant].discard(queue)
            if not self._listeners[tenant]:
                del self._listeners[tenant]
            if follower is not None:
                follower.cancel()
                await asyncio.gather(follower, return_exceptions=True)
            await changes.aclose()  # type: ignore[attr-defined]

    async def _follow(
        self, tenant: str, changes: AsyncIterator[Document | None], queue: asyncio.Queue[Event], seen: _Seen
    ) -> None:
        """Brings in what other processes publish."""
        async for told in changes:
            for document in [told] if told is not None else await self._missed(tenant, seen):
                if seen.is_new(document.key) and document.body["origin"] != self._history.origin:
                    for event in decode(document):
                        _put(queue, event)

    async def _missed(self, tenant: str, seen: _Seen) -> list[Document]:
        while True:
            try:
                return await self._store.list("events", tenant, seen.start())
            except DockerError as error:
                _log.warning("events of others cannot be read: %s", error.message)
                await asyncio.sleep(_AGAIN)


class _Seen:
    """The batches one listener knows: each is new once, in whatever order batches get into the store.

    Keys are remembered for as long as they may be told again (`LATENESS`); what is older than that is not new.
    """

    def __init__(self) -> None:
        self._latest = time.time_ns()
        self._keys: set[str] = set()
        self._prune_at = _KEYS

    def start(self) -> str:
        """The first key that may still be new."""
        return key_at(self._latest - int(LATENESS * 1e9))

    def is_new(self, key: str) -> bool:
        """Whether the batch has not been seen; from now on it has."""
        if key in self._keys or key < self.start():
            return False
        self._keys.add(key)
        # A clock that is ahead must not make what others write look old.
        self._latest = max(self._latest, min(time_of(key), time.time_ns()))
        if len(self._keys) > self._prune_at:
            start = self.start()
            self._keys = {kept for kept in self._keys if kept >= start}
            self._prune_at = len(self._keys) + _KEYS
        return True


def _exit_of(event: Event, container: str) -> int | None:
    if event.type != "container" or event.action != "die" or event.actor != container:
        return None
    code = event.attributes.get("exitCode", "")
    return int(code) if code.isdecimal() else None


def _put(queue: asyncio.Queue[Event], event: Event) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(event)


def _remaining(until: int | None, settle: float) -> float | None:
    return None if until is None else (until - time.time_ns()) / 1e9 + settle
