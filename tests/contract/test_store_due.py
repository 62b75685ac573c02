"""What is due, found by each store without reading the rest."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.store.base import Store
from tests.contract.store_fixtures import Open, reopen, store

__all__ = ["reopen", "store"]


def _body(status: str, ends: float | None = None, **more: Any) -> dict[str, Any]:
    lease = None if ends is None else {"operation": "start", "owner": "x", "expires_at": ends}
    return {"state": {"status": status}, "lease": lease, "agent": None, "config": {"Env": ["A=1"]}, **more}


async def _due(store: Store, at: float) -> list[tuple[str, str]]:
    return [(document.tenant, document.key) for document in await store.due("containers", at)]


async def test_what_is_due_is_found_for_all_tenants_in_order(store: Store) -> None:
    await store.create("containers", "t", "b", _body("starting"))
    await store.create("containers", "t", "never", _body("exited"))
    await store.create("containers", "t/2", "a", _body("removing", 1000.5))
    await store.create("containers", "t", "c", _body("created", 2_000_000_000.25))
    await store.create("containers", "t", "no container", {"state": "x"})
    await store.create("volumes", "t", "v", _body("starting"))
    assert await _due(store, 0) == [("t", "b")]
    assert await _due(store, 1000.25) == [("t", "b")]
    assert await _due(store, 1000.5) == [("t/2", "a"), ("t", "b")]
    assert await _due(store, 2_000_000_000.25) == [("t/2", "a"), ("t", "b"), ("t", "c")]
    assert await store.due("volumes", 1e12) == []


async def test_each_write_says_anew_when_it_is_due(reopen: Open) -> None:
    one, other = await reopen(), await reopen()
    created = await one.create("containers", "t", "k", _body("created"))
    assert await _due(other, 1e12) == []
    starting = await one.replace(created, _body("starting"))
    assert await other.due("containers", 1) == [starting]
    linked = await one.replace(starting, _body("running", agent={"connected": True}))
    assert await _due(other, 1e12) == []
    silent = await one.replace(linked, _body("running", agent={"connected": False}))
    assert await _due(other, 1) == [("t", "k")]
    await one.delete(silent)
    assert await _due(other, 1e12) == []
    await one.create("containers", "t", "k", _body("created"))
    assert await _due(other, 1e12) == []


async def test_without_its_index_firestore_reads_all_and_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from google.api_core.exceptions import FailedPrecondition

    from control_plane.store.firestore.connection import Connection
    from control_plane.store.firestore.documents import FirestoreDocuments
    from tests.contract.store_fixtures import STORES

    open_store = await STORES["firestore"](None)  # type: ignore[arg-type]
    store: Any = await open_store()
    documents: FirestoreDocuments = store._documents
    assert isinstance(documents._connection, Connection)
    query = documents._query

    async def refuse(collection: Any, parent: str, wanted: dict[str, Any], timeout: float) -> Any:
        if "due" in str(wanted):
            raise FailedPrecondition("The query requires a COLLECTION_GROUP_ASC index")
        return await query(collection, parent, wanted, timeout)

    monkeypatch.setattr(documents, "_query", refuse)
    try:
        await store.create("containers", "t", "k", _body("starting"))
        await store.create("containers", "t", "rests", _body("exited"))
        assert [await _due(store, 1) for _ in range(2)] == [[("t", "k")]] * 2
        assert caplog.text.count("no index on due of containers") == 1
    finally:
        await store.close()
