"""Hosted stores when answers are lost, connections break, servers restart or refuse for a while."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import httpx
import pytest

from control_plane.errors import DockerError
from control_plane.store import hosted
from control_plane.store.base import AlreadyExists, RevisionConflict, Store, StoreFull
from control_plane.store.cosmos.store import CosmosStore
from control_plane.store.firestore.store import FirestoreStore
from control_plane.store.hosted import HostedStore
from tests.contract.store_fixtures import COSMOS_KEY, Closing, cosmos_opener, needs, next_change
from tests.contract.store_servers import CosmosServer, Missing, firestore_server, shared_cosmos, shared_firestore
from tests.contract.store_wire import Wire

T = TypeVar("T")


class Troubled:
    """`store` reaches its server over a wire, `other` reaches it without."""

    def __init__(self, store: Store, other: Store, wire: Wire) -> None:
        self.store = store
        self.other = other
        self.wire = wire

    async def lose_the_answer(self, write: Awaitable[T], seen: Callable[[], Awaitable[bool]]) -> asyncio.Future[T]:
        """Begins a write whose answer does not come; returns when the server has carried it out."""
        self.wire.withholding = True
        task = asyncio.ensure_future(write)
        async with asyncio.timeout(20):
            while not await seen():
                continue
        return task


@pytest.fixture(params=["cosmos", "firestore"])
async def troubled(request: pytest.FixtureRequest) -> AsyncIterator[Troubled]:
    needs("azure.cosmos" if request.param == "cosmos" else "google.cloud.firestore")
    server = shared_cosmos() if request.param == "cosmos" else shared_firestore()
    if isinstance(server, Missing):
        pytest.skip(str(server))
    wire = Wire(server.port)
    await wire.open()
    name = f"test-{secrets.token_hex(6)}"
    if request.param == "firestore":
        store, other = (_firestore(port, name) for port in (wire.port, server.port))
    else:
        await cosmos_opener(server.port, name)
        store, other = (_cosmos(port, name) for port in (wire.port, server.port))
    yield Troubled(store, other, wire)
    await store.close()
    await other.close()
    await wire.close()


def _firestore(port: int, project: str) -> HostedStore:
    return FirestoreStore(project, emulator=f"127.0.0.1:{port}")


def _cosmos(port: int, database: str) -> HostedStore:
    return CosmosStore(f"http://127.0.0.1:{port}", COSMOS_KEY, database, endpoint_discovery=False)


async def _there(store: Store, wanted: int | None) -> bool:
    found = await store.get("names", "t", "k")
    return (None if found is None else found.body["n"]) == wanted


async def test_a_create_whose_answer_is_lost_is_ours(troubled: Troubled) -> None:
    assert await troubled.store.get("names", "t", "k") is None
    create = troubled.store.create("names", "t", "k", {"n": 1})
    task = await troubled.lose_the_answer(create, lambda: _there(troubled.other, 1))
    troubled.wire.cut()
    assert await task == await troubled.other.get("names", "t", "k")


async def test_a_replace_whose_answer_is_lost_is_ours(troubled: Troubled) -> None:
    created = await troubled.store.create("names", "t", "k", {"n": 1})
    replace = troubled.store.replace(created, {"n": 2})
    task = await troubled.lose_the_answer(replace, lambda: _there(troubled.other, 2))
    troubled.wire.cut()
    assert await task == await troubled.other.get("names", "t", "k")


async def test_a_delete_whose_answer_is_lost_is_ours(troubled: Troubled) -> None:
    created = await troubled.store.create("names", "t", "k", {"n": 1})
    task = await troubled.lose_the_answer(troubled.store.delete(created), lambda: _there(troubled.other, None))
    again = await troubled.other.create("names", "t", "k", {"n": 9})
    troubled.wire.cut()
    await task
    assert await troubled.store.get("names", "t", "k") == again


async def test_a_lost_replace_that_another_has_built_upon_is_still_ours(troubled: Troubled) -> None:
    created = await troubled.store.create("names", "t", "k", {"n": 1})
    replace = troubled.store.replace(created, {"n": 2})
    task = await troubled.lose_the_answer(replace, lambda: _there(troubled.other, 2))
    for number in (3, 4, 5):
        current = await troubled.other.get("names", "t", "k")
        assert current is not None
        current = await troubled.other.replace(current, {"n": number})
    troubled.wire.cut()
    assert await task == current


async def test_a_conflict_after_a_broken_connection_is_told(troubled: Troubled) -> None:
    """What never arrived is not taken for ours."""
    created = await troubled.store.create("names", "t", "k", {"n": 1})
    await troubled.wire.close()
    tasks = [
        asyncio.create_task(troubled.store.replace(created, {"n": 2})),
        asyncio.create_task(troubled.store.create("names", "t", "taken", {})),
        asyncio.create_task(troubled.store.delete(created)),
    ]
    await asyncio.sleep(0.05)
    await troubled.other.replace(created, {"n": 3})
    await troubled.other.create("names", "t", "taken", {})
    await troubled.wire.open()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [RevisionConflict, AlreadyExists, RevisionConflict]


async def test_a_watch_goes_on_over_broken_connections(troubled: Troubled) -> None:
    store, other = troubled.store, troubled.other
    document = await other.create("containers", "t", "k", {"n": 0})
    doomed = await other.create("containers", "t", "doomed", {})
    async with (
        aclosing(store.watch("containers", "t", "k")) as changes,  # type: ignore[type-var]
        aclosing(store.watch("containers", "t", "doomed")) as doomed_changes,  # type: ignore[type-var]
        aclosing(store.watch("containers", "t")) as collection,  # type: ignore[type-var]
    ):
        assert await next_change(changes) == document
        assert await next_change(doomed_changes) == doomed
        assert await next_change(collection) is None
        document = await other.replace(document, {"n": 1})
        assert await next_change(changes) == document
        troubled.wire.cut()
        document = await other.replace(document, {"n": 2})
        assert await next_change(changes, 10) == document
        await troubled.wire.close()
        document = await other.replace(document, {"n": 3})
        await other.delete(doomed)
        await asyncio.sleep(0.3)
        await troubled.wire.open()
        assert await next_change(changes, 10) == document
        assert await next_change(doomed_changes, 10) is None
        while (told := await next_change(collection, 10)) != document:
            if told is None and document in await store.list("containers", "t"):
                break
        await other.delete(document)
        assert await next_change(changes, 10) is None


async def test_nothing_goes_on_running_after_the_last_watcher(troubled: Troubled) -> None:
    def running() -> set[str]:
        return {task.get_name() for task in asyncio.all_tasks()} & {"firestore listen", "cosmos change feed"}

    watches = [troubled.store.watch("containers", "t", key) for key in ("a", "b", None)]
    for changes in watches:
        assert await next_change(changes) is None
    assert running()
    for changes in watches:
        await changes.aclose()  # type: ignore[attr-defined]
    await asyncio.sleep(0.05)
    assert not running()


async def test_a_store_out_of_reach_is_said_to_be(troubled: Troubled, monkeypatch: pytest.MonkeyPatch) -> None:
    document = await troubled.store.create("names", "t", "k", {})
    await troubled.wire.close()
    monkeypatch.setattr(hosted, "_TOTAL", 0.5)
    with pytest.raises(DockerError) as read:
        await troubled.store.get("names", "t", "k")
    with pytest.raises(DockerError) as written:
        await troubled.store.replace(document, {"n": 1})
    assert {read.value.status, written.value.status} <= {503, 504}
    assert "127.0.0.1" not in read.value.message + written.value.message


async def test_closing_ends_the_watches(troubled: Troubled) -> None:
    changes = troubled.store.watch("containers", "t", "k")
    assert await next_change(changes) is None
    waiting = asyncio.create_task(next_change(changes))
    await asyncio.sleep(0.05)
    await troubled.store.close()
    with pytest.raises(DockerError):
        await waiting


@pytest.mark.parametrize("key", ["x" * 5000, "/" * 1000, "\U00010000" * 400])
async def test_a_key_too_long_for_the_cloud_is_refused_by_name(troubled: Troubled, key: str) -> None:
    with pytest.raises(DockerError, match="name is too long") as refused:
        await troubled.store.create("names", "t", key, {})
    assert refused.value.status == 400
    assert await troubled.store.get("names", "t", key) is None
    assert await troubled.store.find("names", "t", key) == []


async def test_a_body_too_large_for_the_cloud_is_refused(troubled: Troubled) -> None:
    document = await troubled.store.create("images", "t", "k", {"n": 1})
    body = {"text": secrets.token_hex(3 * 1024 * 1024)}
    with pytest.raises(StoreFull, match="bytes long"):
        await troubled.store.create("images", "t", "large", body)
    with pytest.raises(StoreFull, match="bytes long"):
        await troubled.store.replace(document, body)
    assert await troubled.store.list("images", "t") == [document]


async def _trouble(server: CosmosServer, **kind: int) -> None:
    async with httpx.AsyncClient() as client:
        (await client.post(f"http://127.0.0.1:{server.port}/trouble", json=kind)).raise_for_status()


async def test_cosmos_throttling_is_waited_out() -> None:
    needs("azure.cosmos")
    server = shared_cosmos()
    if isinstance(server, Missing):
        pytest.skip(str(server))
    async with Closing(await cosmos_opener(server.port)) as open_store:
        store = await open_store()
        document = await store.create("names", "t", "k", {"n": 1})
        await _trouble(server, throttle=4)
        assert await store.get("names", "t", "k") == document
        await _trouble(server, throttle=4)
        document = await store.replace(document, {"n": 2})
        assert await store.list("names", "t") == [document]


async def test_cosmos_answers_lost_one_after_another() -> None:
    needs("azure.cosmos")
    server = shared_cosmos()
    if isinstance(server, Missing):
        pytest.skip(str(server))
    async with Closing(await cosmos_opener(server.port)) as open_store:
        store = await open_store()
        await store.warm()  # type: ignore[attr-defined]
        for lost in (1, 2):
            await _trouble(server, lose=lost)
            document = await store.create("names", "t", "k", {"n": 1})
            await _trouble(server, lose=lost)
            document = await store.replace(document, {"n": 2})
            assert await store.get("names", "t", "k") == document
            await _trouble(server, lose=lost)
            await store.delete(document)
            assert await store.get("names", "t", "k") is None
    await _trouble(server, lose=0)


async def test_a_firestore_that_restarts_empty_in_the_middle_of_a_watch() -> None:
    needs("google.cloud.firestore")
    try:
        server = firestore_server()
    except Missing as missing:
        pytest.skip(str(missing))
    server.start()
    store = FirestoreStore("restarted", emulator=f"127.0.0.1:{server.port}")
    try:
        document = await store.create("containers", "t", "k", {"n": 1})
        async with (
            aclosing(store.watch("containers", "t", "k")) as changes,  # type: ignore[type-var]
            aclosing(store.watch("containers", "t")) as collection,  # type: ignore[type-var]
        ):
            assert await next_change(changes) == document
            assert await next_change(collection) is None
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            assert await next_change(changes, 20) is None
            again = await store.create("containers", "t", "k", {"n": 2})
            assert await next_change(changes, 20) == again
            while (told := await next_change(collection, 20)) != again:
                assert told is None or told == document
                if told is None and again in await store.list("containers", "t"):
                    break
    finally:
        await store.close()
        await asyncio.to_thread(server.stop)


async def test_a_cosmos_that_goes_away_and_returns_in_the_middle_of_a_watch() -> None:
    needs("azure.cosmos")
    try:
        server = CosmosServer()
    except Missing as missing:
        pytest.skip(str(missing))
    server.start()
    try:
        async with Closing(await cosmos_opener(server.port, "d")) as open_store:
            store, other = await open_store(), _cosmos(server.server.port, "d")
            document = await store.create("containers", "t", "k", {"n": 1})
            await other.get("containers", "t", "k")
            async with aclosing(store.watch("containers", "t", "k")) as changes:  # type: ignore[type-var]
                assert await next_change(changes) == document
                await asyncio.to_thread(server.proxy.stop)
                document = await other.replace(document, {"n": 2})
                await asyncio.to_thread(server.proxy.start)
                assert await next_change(changes, 20) == document
                await other.delete(document)
                assert await next_change(changes, 20) is None
            await other.close()
    finally:
        server.stop()
