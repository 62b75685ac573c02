"""Firestore's Listen where the emulator does not go: refusals, tokens, counts that differ, targets taken away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from control_plane.errors import DockerError
from control_plane.store.firestore.connection import Connection
from control_plane.store.firestore.store import FirestoreStore
from control_plane.store.revisions import revision_of
from tests.contract.store_fixtures import needs, next_change

PREFIX = "projects/p/databases/(default)/documents/tenant/:t/containers/:"
FAR = 2_000_000_000
"""Seconds of the first moment of these tests."""


class Firestore:
    """Answers Listen from a script, one generator a call, and GetDocument with what is in `documents`."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.script: list[Any] = []
        self.ready = asyncio.Event()
        self.ready.set()
        self.added: list[list[Any]] = []
        """By call, the targets asked for."""

    def write(self, key: str, at: int, n: int) -> dict[str, Any]:
        time = {"seconds": FAR + at}
        document = {
            "name": PREFIX + key,
            "fields": {"body": {"bytes_value": b'{"n":%d}' % n}, "tokens": {"string_value": f"t{at}"}},
            "create_time": time,
            "update_time": time,
        }
        self.documents[PREFIX + key] = document
        return document

    async def listen(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        from google.cloud.firestore_v1 import types

        added: list[Any] = []
        self.added.append(added)
        queue: asyncio.Queue[Any] = asyncio.Queue()

        async def receive() -> None:
            async for request in requests:
                if request.add_target.target_id:
                    added.append(request.add_target)
                    queue.put_nowait(request.add_target)

        receiver = asyncio.create_task(receive())
        try:
            target = await queue.get()
            await self.ready.wait()
            step = self.script[min(len(self.added), len(self.script)) - 1]
            for message in step(target.target_id):
                if isinstance(message, Exception):
                    code, text = message.args
                    await context.abort(code, text)
                yield message if isinstance(message, bytes) else types.ListenResponse(message)
            await asyncio.Event().wait()
        finally:
            receiver.cancel()

    async def get(self, request: Any, context: Any) -> Any:
        import grpc
        from google.cloud.firestore_v1 import types

        if request.name not in self.documents:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such document")
        return types.Document(self.documents[request.name])


def _serialize(message: Any) -> bytes:
    return message if isinstance(message, bytes) else bytes(type(message).serialize(message))


@pytest.fixture
async def firestore(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Firestore, FirestoreStore]]:
    """A server that does as Firestore does and, unless the test says so, is not taken for the emulator."""
    needs("google.cloud.firestore")
    import grpc
    from google.cloud.firestore_v1 import types

    fake = Firestore()
    methods = {
        "Listen": grpc.stream_stream_rpc_method_handler(fake.listen, types.ListenRequest.deserialize, _serialize),
        "GetDocument": grpc.unary_unary_rpc_method_handler(
            fake.get, types.GetDocumentRequest.deserialize, types.Document.serialize
        ),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("google.firestore.v1.Firestore", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    store = FirestoreStore("p", emulator=f"127.0.0.1:{port}")
    monkeypatch.setattr(Connection, "emulated", getattr(request, "param", False))
    yield fake, store
    await store.close()
    await server.stop(None)


def _change(number: int, document: dict[str, Any]) -> dict[str, Any]:
    return {"document_change": {"document": document, "target_ids": [number]}}


def _current(number: int, at: int, token: bytes) -> dict[str, Any]:
    change = {"target_ids": [number], "read_time": {"seconds": FAR + at}, "resume_token": token}
    return {"target_change": {"target_change_type": 3, **change}}


def _failure(name: str, text: str = "") -> Exception:
    import grpc

    return RuntimeError(grpc.StatusCode[name], text)


async def test_a_listener_that_is_not_allowed_ends_the_watch(firestore: tuple[Firestore, FirestoreStore]) -> None:
    fake, store = firestore
    fake.script = [lambda number: iter([_failure("PERMISSION_DENIED", "no role on projects/p")])]
    async with aclosing(store.watch("containers", "t", "k")) as changes:  # type: ignore[type-var]
        assert await next_change(changes) is None
        with pytest.raises(DockerError, match="PERMISSION_DENIED") as refused:
            await next_change(changes)
        assert "projects/p" not in refused.value.message
    # The next watch tries again.
    document = fake.write("k", 1, 1)
    fake.script.append(lambda number: iter([_change(number, document), _current(number, 2, b"1")]))
    async with aclosing(store.watch("containers", "t", "k")) as changes:  # type: ignore[type-var]
        assert await next_change(changes) is not None


async def test_a_broken_stream_goes_on_from_its_token(firestore: tuple[Firestore, FirestoreStore]) -> None:
    fake, store = firestore
    first = fake.write("k", 1, 1)

    def begin(number: int) -> Iterator[Any]:
        yield _change(number, first)
        yield _current(number, 2, b"token-1")
        yield {"target_change": {"resume_token": b"token-2", "read_time": {"seconds": FAR + 3}}}
        yield _failure("UNAVAILABLE")

    def go_on(number: int) -> Iterator[Any]:
        yield _change(number, first)  # told before
        yield _change(number, fake.write("k", 5, 2))
        yield _current(number, 6, b"token-3")

    fake.script = [begin, go_on]
    async with aclosing(store.watch("containers", "t", "k")) as changes:  # type: ignore[type-var]
        document = await next_change(changes)
        assert document is not None
        assert document.body == {"n": 1}
        document = await next_change(changes)
        assert document is not None
        assert document.body == {"n": 2}
        assert revision_of(document).order == (FAR + 5) * 10**9
    assert [[target.resume_token for target in call] for call in fake.added] == [[b""], [b"token-2"]]


async def test_a_corrupt_message_has_all_told_again(firestore: tuple[Firestore, FirestoreStore]) -> None:
    """Seen with the emulator under load; what the message said is then before the next token."""
    fake, store = firestore
    first = fake.write("k", 1, 1)
    fake.script = [
        lambda number: iter([_change(number, first), _current(number, 2, b"1"), b"\xff\xff\xff"]),
        lambda number: iter([_change(number, fake.write("k", 5, 2)), _current(number, 6, b"2")]),
    ]
    async with aclosing(store.watch("containers", "t", "k")) as changes:  # type: ignore[type-var]
        assert await next_change(changes) is not None
        document = await next_change(changes)
        assert document is not None
        assert document.body == {"n": 2}
    assert [[target.resume_token for target in call] for call in fake.added] == [[b""], [b""]]


async def test_a_token_that_is_refused_is_dropped(firestore: tuple[Firestore, FirestoreStore]) -> None:
    fake, store = firestore
    first = fake.write("k", 1, 1)
    fake.script = [
        lambda number: iter([_change(number, first), _current(number, 2, b"old"), _failure("UNAVAILABLE")]),
        lambda number: iter([_failure("INVALID_ARGUMENT", "resume token")]),
        lambda number: iter([_change(number, fake.write("k", 5, 2)), _current(number, 6, b"new")]),
    ]
    async with aclosing(store.watch("containers", "t", "k")) as changes:  # type: ignore[type-var]
        assert await next_change(changes) is not None
        document = await next_change(changes)
        assert document is not None
        assert document.body == {"n": 2}
    assert [[target.resume_token for target in call] for call in fake.added] == [[b""], [b"old"], [b""]]


async def test_a_count_that_differs_brings_out_what_was_deleted(firestore: tuple[Firestore, FirestoreStore]) -> None:
    fake, store = firestore
    first = fake.write("k", 1, 1)
    fake.script = [
        lambda number: iter([_change(number, first), _current(number, 2, b"1"), _failure("UNAVAILABLE")]),
        lambda number: iter([{"filter": {"target_id": number, "count": 0}}]),
        lambda number: iter([_current(number, 6, b"2")]),
    ]
    async with aclosing(store.watch("containers", "t", "k")) as changes:  # type: ignore[type-var]
        assert await next_change(changes) is not None
        assert await next_change(changes) is None
    assert [[target.resume_token for target in call] for call in fake.added] == [[b""], [b"1"], [b""]]


async def test_a_reset_tells_a_collection_nothing_twice(firestore: tuple[Firestore, FirestoreStore]) -> None:
    fake, store = firestore
    kept, deleted = fake.write("a", 1, 1), fake.write("b", 1, 1)

    def begin(number: int) -> Iterator[Any]:
        yield from (_change(number, kept), _change(number, deleted), _current(number, 2, b"1"))
        yield _change(number + 1, fake.write("first", 3, 1))
        for at in (4, 5):
            yield {"target_change": {"target_change_type": 4, "target_ids": [number]}}
            yield _change(number, kept)
            yield _current(number, at, b"2")
            yield _change(number + 1, fake.write("first", at, at))

    fake.script = [begin]
    fake.ready.clear()
    async with (
        aclosing(store.watch("containers", "t")) as changes,  # type: ignore[type-var]
        aclosing(store.watch("containers", "t", "first")) as progress,  # type: ignore[type-var]
    ):
        assert await next_change(changes) is None
        assert await next_change(progress) is None
        fake.ready.set()
        for number in (1, 4, 5):
            document = await next_change(progress)
            assert document is not None
            assert document.body == {"n": number}
        told = [await next_change(changes) for _ in range(2)]
        assert [one and one.key for one in told] == ["a", "b"]
        with pytest.raises(TimeoutError):
            await next_change(changes, 0.1)


@pytest.mark.parametrize("firestore", [True], indirect=True, ids=["emulated"])
async def test_what_the_emulator_leaves_out_is_read(firestore: tuple[Firestore, FirestoreStore]) -> None:
    """It never tells of what was written while it added the target, and now and then of nothing after that."""
    fake, store = firestore
    fake.script = [lambda number, at=at: iter([_current(number, at, b"1")]) for at in (2, 4)]
    fake.ready.clear()
    async with aclosing(store.watch("containers", "t", "k")) as changes:  # type: ignore[type-var]
        assert await next_change(changes) is None
        for number, at in ((1, 1), (2, 3)):
            fake.write("k", at, number)
            fake.ready.set()
            document = await next_change(changes)
            assert document is not None
            assert document.body == {"n": number}
    assert len(fake.added) == 2


async def test_a_target_taken_away_is_asked_for_again(firestore: tuple[Firestore, FirestoreStore]) -> None:
    fake, store = firestore
    gone = {"target_change_type": 2, "cause": {"code": 8, "message": "too many"}}
    fake.script = [
        lambda number: iter([{"target_change": {**gone, "target_ids": [number]}}]),
        lambda number: iter([_change(number, fake.write("k", 5, 2)), _current(number, 6, b"2")]),
    ]
    async with aclosing(store.watch("containers", "t", "k")) as changes:  # type: ignore[type-var]
        assert await next_change(changes) is None
        document = await next_change(changes, 8)
        assert document is not None
        assert document.body == {"n": 2}


async def test_an_unreadable_document_ends_its_own_watch_alone(firestore: tuple[Firestore, FirestoreStore]) -> None:
    fake, store = firestore
    broken = fake.write("k", 5, 2)
    broken["fields"]["body"] = {"bytes_value": b"(garbage"}
    del fake.documents[PREFIX + "k"]

    def begin(number: int) -> Iterator[Any]:
        yield _change(number, broken)
        yield _change(number + 1, fake.write("other", 6, 3))

    fake.script = [begin]
    fake.ready.clear()
    async with (
        aclosing(store.watch("containers", "t", "k")) as changes,  # type: ignore[type-var]
        aclosing(store.watch("containers", "t", "other")) as others,  # type: ignore[type-var]
    ):
        assert await next_change(changes) is None
        assert await next_change(others) is None
        fake.ready.set()
        with pytest.raises(DockerError, match="cannot be read"):
            await next_change(changes)
        document = await next_change(others)
        assert document is not None
        assert document.body == {"n": 3}
