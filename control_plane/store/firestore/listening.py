"""Firestore's Listen streams, shared: each carries the targets of up to a hundred feeds.

A target is one document or one tenant's collection from a key on. When a stream breaks, it is dialled again and every
target goes on from its resume token, so nothing is missed and little is read twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from control_plane.backends.calls import AMBIGUOUS, TRANSIENT, CloudError, failure_of, pause_before
from control_plane.errors import ServerError
from control_plane.store.feeds import Feed, Place
from control_plane.store.firestore.connection import Connection
from control_plane.store.firestore.wire import Names, key_of, order_of, read_document

_log = logging.getLogger(__name__)

_TARGETS = 100
"""Targets per stream: Google's advice for listeners per connection."""
_DOING = "watching the state"
_EMULATOR_SECONDS = 8.0
"""The emulator does not tell of a write that it commits while it adds a target, and one time in some thousands tells
nothing of that target from there on. So with it watchers read again once a target is added, and streams are short."""


class Listening:
    """The streams of one store."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._streams: list[ListenStream] = []
        self._of: dict[Place, ListenStream] = {}
        self._stopping: set[asyncio.Task[None]] = set()

    def opened(self, feed: Feed) -> None:
        """Listens for the feed."""
        stream = next((stream for stream in self._streams if stream.targets < _TARGETS), None)
        if stream is None:
            stream = ListenStream(self._connection)
            self._streams.append(stream)
        self._of[feed.place] = stream
        stream.add(feed)

    def closed(self, feed: Feed) -> None:
        """Listens no more; a stream without targets ends."""
        stream = self._of.pop(feed.place, None)
        if stream is None:
            return
        stream.remove(feed)
        if not stream.targets:
            self._streams.remove(stream)
            self._stop(stream)

    def _stop(self, stream: ListenStream) -> None:
        task = stream.stop()
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def close(self) -> None:
        """Ends all streams."""
        self._of.clear()
        while self._streams:
            self._stop(self._streams.pop())
        await asyncio.gather(*self._stopping, return_exceptions=True)


class _Target:
    """What one stream knows of one feed's documents."""

    def __init__(self, number: int, feed: Feed, names: Names) -> None:
        self.number = number
        self.feed = feed
        self.token = b""
        self.present: set[str] = set()
        self.settled = False
        """All that exists has been told, so that a resume token leaves nothing out."""
        self.starting = True
        """The stream has not told yet that it is up to date with what existed when the target was added."""
        place = feed.place
        if place.key is None:
            query = names.collection(place.collection, place.tenant, place.start)
            self._what: dict[str, Any] = {"query": {"parent": names.tenant(place.tenant), "structured_query": query}}
        else:
            document = names.document(place.collection, place.tenant, place.key)
            self._what = {"documents": {"documents": [document]}}

    def request(self) -> dict[str, Any]:
        """Adds it to a stream, where it was left when it can."""
        self.starting = True
        target = {"target_id": self.number, **self._what}
        if self.token:
            target["resume_token"] = self.token
        return {"add_target": target}

    def start_over(self) -> None:
        """Forgets where it was: everything is told again, and known from news by the feed."""
        self.token = b""
        self.present.clear()
        self.settled = False

    def changed(self, message: Any) -> None:
        """A document of the target as it is now."""
        key = key_of(message.name)
        self.present.add(key)
        try:
            document = read_document(self.feed.place.collection, message)
        except Exception:
            # Not ours to mend, and no reason to leave the other feeds of the stream without news.
            _log.exception("%s cannot be read", message.name)
            self.feed.fail(ServerError("the stored object cannot be read; tell the operator of this endpoint"))
        else:
            self.feed.tell(key, order_of(message.update_time), document)

    def gone(self, key: str, order: int) -> None:
        """A document that is not there (any more)."""
        self.present.discard(key)
        self.feed.tell(key, order, None)

    def complete(self, order: int) -> None:
        """All documents that exist as of `order` have been told."""
        self.feed.tell_only(self.present, order)
        self.settled = True

    def unsure(self) -> None:
        """All that the emulator will tell of what exists has been told: the rest is to be read."""
        self.feed.tell_stale()
        self.settled = True


class ListenStream:
    """One Listen call and its targets; runs from the first target on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._names = Names(connection.database)
        self._targets: dict[int, _Target] = {}
        self._numbers: dict[Place, int] = {}
        self._last = 0
        self._tries = 0
        self._failure: CloudError | None = None
        self._requests: asyncio.Queue[dict[str, Any] | None] | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(), name="firestore listen")

    @property
    def targets(self) -> int:
        """How many feeds it serves."""
        return len(self._targets)

    def add(self, feed: Feed) -> None:
        """Serves another feed."""
        self._last += 1
        target = self._targets[self._last] = _Target(self._last, feed, self._names)
        self._numbers[feed.place] = target.number
        if self._failure is not None:
            feed.fail(self._failure.docker())
        self._send(target.request())

    def remove(self, feed: Feed) -> None:
        """Serves the feed no more."""
        number = self._numbers.pop(feed.place)
        del self._targets[number]
        self._send({"remove_target": number})

    def stop(self) -> asyncio.Task[None]:
        """Ends the call; the task is done when it has ended."""
        self._task.cancel()
        return self._task

    def _send(self, request: dict[str, Any]) -> None:
        if self._requests is not None:
            self._requests.put_nowait({"database": self._connection.database, **request})

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
                failure = CloudError("UNAVAILABLE", "the stream ended", _DOING)
            except Exception as error:
                found = failure_of(error, _DOING)
                if found is None:
                    _log.exception("watching failed")
                failure = found or CloudError("INTERNAL", type(error).__name__, _DOING)
            if failure.code not in TRANSIENT | AMBIGUOUS and not self._start_over():
                self._fail(failure)
                return
            pause = pause_before(self._tries, failure.code)
            self._tries += 1
            _log.info("watching again in %.2f s: %s", pause, failure)
            await asyncio.sleep(pause)

    async def _listen(self) -> None:
        """One call, until it breaks."""
        client = await self._connection.client()
        self._requests = asyncio.Queue()
        for target in self._targets.values():
            if not target.token:
                target.start_over()
            self._send(target.request())
        stream: Any = None
        try:
            stream = await client.listen(
                requests=_outgoing(self._requests), metadata=self._connection.metadata, retry=None, timeout=None
            )
            async with asyncio.timeout(_EMULATOR_SECONDS if self._connection.emulated else None):
                async for response in stream:
                    if response is None:  # gRPC's way to say that a message could not be decoded
                        self._start_over()
                        raise CloudError("INTERNAL", "a message was corrupt", _DOING)
                    self._take(type(response).pb(response))
        finally:
            self._requests.put_nowait(None)
            self._requests = None
            if stream is not None:
                with suppress(Exception):
                    stream.cancel()

    def _take(self, message: Any) -> None:
        kind = message.WhichOneof("response_type")
        if kind == "target_change":
            self._target_changed(message.target_change)
        elif kind == "document_change":
            change = message.document_change
            for target in self._chosen(change.target_ids):
                target.changed(change.document)
            for target in self._chosen(change.removed_target_ids):
                target.gone(key_of(change.document.name), order_of(change.document.update_time))
        elif kind in ("document_delete", "document_remove"):
            gone = getattr(message, kind)
            for target in self._chosen(gone.removed_target_ids):
                target.gone(key_of(gone.document), order_of(gone.read_time))
        elif kind == "filter":
            for target in self._chosen([message.filter.target_id]):
                if message.filter.count != len(target.present):
                    target.start_over()
                    raise CloudError("ABORTED", "documents were deleted unnoticed", _DOING)

    def _target_changed(self, change: Any) -> None:
        """Progress of some targets, of all when none is named."""
        targets = self._chosen(change.target_ids) if change.target_ids else list(self._targets.values())
        for target in targets:
            if change.target_change_type == _REMOVE:
                self._removed(target, change.cause)
            elif change.target_change_type == _RESET:
                target.start_over()
            elif change.target_change_type == _CURRENT:
                if target.starting and self._connection.emulated:
                    target.unsure()
                else:
                    target.complete(order_of(change.read_time))
                self._tries = 0
                target.starting = False
            if change.resume_token and target.settled:
                target.token = change.resume_token

    def _removed(self, target: _Target, cause: Any) -> None:
        import grpc

        resumed = bool(target.token)
        target.start_over()
        names = {status.value[0]: status.name for status in grpc.StatusCode}
        code = "ABORTED" if resumed or not cause.code else names.get(cause.code, "UNKNOWN")
        raise CloudError(code, f"a target was removed: {cause.message}", _DOING)

    def _chosen(self, numbers: Any) -> list[_Target]:
        """The targets with these numbers; messages for one that was just removed may still come."""
        return [self._targets[number] for number in numbers if number in self._targets]

    def _start_over(self) -> bool:
        """Drops all resume tokens; whether there were any, so that the refusal may have been about them."""
        resumed = any(target.token for target in self._targets.values())
        for target in self._targets.values():
            target.start_over()
        return resumed

    def _fail(self, failure: CloudError) -> None:
        self._failure = failure
        _log.error("watching failed: %s", failure)
        for target in self._targets.values():
            target.feed.fail(failure.docker())


async def _outgoing(requests: asyncio.Queue[dict[str, Any] | None]) -> AsyncIterator[Any]:
    from google.cloud.firestore_v1 import types

    while (request := await requests.get()) is not None:
        yield types.ListenRequest(request)


# google.firestore.v1.TargetChange.TargetChangeType
_REMOVE, _CURRENT, _RESET = 2, 3, 4
