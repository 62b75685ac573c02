"""Stores opened several times on the same documents, hostile keys and bodies, large documents, many watchers."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest

from control_plane.store.base import AlreadyExists, Document, RevisionConflict, Store
from tests.contract.store_fixtures import Open, next_change, reopen, store

__all__ = ["reopen", "store"]

HOSTILE_KEYS = [
    "a/b",
    "a",
    "a.",
    ".",
    "..",
    "__a__",
    "__id7__",
    "%2F",
    "a%2Fb",
    "a b",
    " ",
    "a\\b",
    "a?b#c",
    "a\x00b",
    "a\x7f",
    "a'b\"c;--",
    "a~b",
    "a-b",
    "a[b",
    "a;b",
    "A",
    "é",
    "e\u0301",
    "\uffff",
    "\U00010000",
    "\U0010fffe",
    "日本",
    "sha256:" + "f" * 64,
    "x" * 255,
    "$where",
    "*",
]

HOSTILE_BODIES: list[dict[str, Any]] = [
    {},
    {"": {"": ""}},
    {"a.b": {"`c`": 1, "d/e": 2}, "a": {"b": 3}},
    {"nested": [[], [[1, [2]]], [{}, None]]},
    {"numbers": [2**53 + 1, -(2**63), 2**63 - 1, 2**64 - 1, 0.1, 1e308, -0.0, 1.0]},
    {"id": "x", "ttl": 1, "_etag": "x", "gone": True, "body": "x", "tokens": "x", "partition": "y", "at": -1},
    {"__proto__": {"a": 1}, "$type": "x", "__name__": "y", "$sealed": 1},
    {"config": {"Env": {"$sealed": 1, "kek": "?"}}},
    {"config": "Env"},
    {"config": {"Env": None}},
    {"text": "\u0000\u2028\ufeff\U0001f600\\u0000\"'</script>"},
    {"text": "(\xb5/\xfd" * 2000},
]


async def test_any_key_is_kept_apart_from_all_others(store: Store) -> None:
    for number, key in enumerate(HOSTILE_KEYS):
        await store.create("volumes", "t", key, {"n": number})
    for number, key in enumerate(HOSTILE_KEYS):
        found = await store.get("volumes", "t", key)
        assert found is not None
        assert (found.key, found.body) == (key, {"n": number})
        with pytest.raises(AlreadyExists):
            await store.create("volumes", "t", key, {})


async def test_any_key_is_listed_in_order_and_found_by_its_prefixes(store: Store) -> None:
    for key in HOSTILE_KEYS:
        await store.create("volumes", "t", key, {})
    in_order = sorted(HOSTILE_KEYS, key=str.encode)
    assert [d.key for d in await store.list("volumes", "t")] == in_order
    assert [d.key for d in await store.list("volumes")] == in_order
    assert [d.key for d in await store.find("volumes", "t", "", 1000)] == in_order
    for prefix in ("a", "a/", ".", "__", "%", "\U00010000", "sha256:", "é", "a\x00", "zz"):
        wanted = [key for key in in_order if key.startswith(prefix)]
        assert [d.key for d in await store.find("volumes", "t", prefix, 1000)] == wanted


async def test_any_tenant_is_kept_apart_from_all_others(store: Store) -> None:
    tenants = ["", "a", "a/b", "a/volumes", "..", "__a__", "é", "a|b", "A"]
    for tenant in tenants:
        await store.create("volumes", tenant, "k", {"of": tenant})
    for tenant in tenants:
        assert [(d.tenant, d.body) for d in await store.list("volumes", tenant)] == [(tenant, {"of": tenant})]
    assert [d.tenant for d in await store.list("volumes")] == sorted(tenants)


@pytest.mark.parametrize("number", range(len(HOSTILE_BODIES)))
async def test_any_json_comes_back_as_it_was(reopen: Open, number: int) -> None:
    one, other = await reopen(), await reopen()
    body = HOSTILE_BODIES[number]
    created = await one.create("containers", "t", "k", body)
    assert created.body == body
    for reader in (one, other):
        found = await reader.get("containers", "t", "k")
        assert found == created
        assert repr(found.body) == repr(body)  # 1 is not 1.0
    replaced = await other.replace(created, {"again": body})
    assert await one.get("containers", "t", "k") == replaced


async def test_a_document_of_a_mebibyte_is_kept(reopen: Open) -> None:
    digits = random.Random(1).choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", k=1 << 20)
    body = {"config": {"Env": ["A=" + "".join(digits)]}}
    one, other = await reopen(), await reopen()
    created = await one.create("containers", "t", "k", body)
    assert await other.get("containers", "t", "k") == created
    assert [d.body for d in await other.list("containers", "t")] == [body]
    replaced = await other.replace(created, {**body, "n": 2})
    assert await one.get("containers", "t", "k") == replaced


async def test_a_revision_read_by_one_counts_for_the_other(reopen: Open) -> None:
    one, other = await reopen(), await reopen()
    created = await one.create("containers", "t", "k", {"n": 1})
    seen = await other.get("containers", "t", "k")
    assert seen is not None
    replaced = await other.replace(created, {"n": 2})
    with pytest.raises(RevisionConflict):
        await one.replace(seen, {"n": 3})
    with pytest.raises(RevisionConflict):
        await one.delete(seen)
    await one.delete(replaced)
    with pytest.raises(RevisionConflict):
        await other.replace(replaced, {"n": 4})
    again = await other.create("containers", "t", "k", {"n": 5})
    assert again.revision not in (created.revision, replaced.revision)
    with pytest.raises(RevisionConflict):
        await one.delete(replaced)
    assert await one.get("containers", "t", "k") == again


async def test_eight_contending_writers_lose_no_update(reopen: Open) -> None:
    stores = [await reopen() for _ in range(4)]
    await stores[0].create("containers", "t", "counter", {"by": []})

    async def add(store: Store, who: int) -> None:
        for turn in range(5):
            while True:
                document = await store.get("containers", "t", "counter")
                assert document is not None
                try:
                    await store.replace(document, {"by": [*document.body["by"], [who, turn]]})
                except RevisionConflict:
                    await asyncio.sleep(random.uniform(0, 0.02))
                    continue
                break

    await asyncio.gather(*(add(stores[who % 4], who) for who in range(8)))
    found = await stores[3].get("containers", "t", "counter")
    assert found is not None
    assert sorted(found.body["by"]) == [[who, turn] for who in range(8) for turn in range(5)]


async def test_a_key_taken_by_turns_has_one_holder_at_a_time(reopen: Open) -> None:
    stores = [await reopen() for _ in range(4)]
    held: list[int] = []

    async def hold(store: Store, who: int) -> None:
        for _ in range(3):
            while True:
                try:
                    document = await store.create("names", "t", "the name", {"container": who})
                except AlreadyExists:
                    await asyncio.sleep(random.uniform(0, 0.02))
                    continue
                break
            held.append(who)
            assert held == [who]
            await asyncio.sleep(0)
            held.remove(who)
            await store.delete(document)

    await asyncio.gather(*(hold(store, who) for who, store in enumerate(stores)))
    assert await stores[0].get("names", "t", "the name") is None


async def test_watch_follows_another_instance_through_a_life(reopen: Open) -> None:
    writer, reader = await reopen(), await reopen()
    async with aclosing(reader.watch("containers", "t", "a/ü")) as changes:  # type: ignore[type-var]
        assert await next_change(changes) is None
        for turn in range(2):
            document = await writer.create("containers", "t", "a/ü", {"turn": turn})
            assert await next_change(changes) == document
            document = await writer.replace(document, {"turn": turn, "n": 2})
            assert await next_change(changes) == document
            await writer.delete(document)
            assert await next_change(changes) is None


async def test_watch_follows_another_instance_beside_more_documents_than_a_page_has(reopen: Open) -> None:
    writer, reader = await reopen(), await reopen()
    await asyncio.gather(*(writer.create("containers", "t", f"c{n:03}", {}) for n in range(230)))
    last = await writer.create("containers", "t", "last", {"n": 0})
    async with aclosing(reader.watch("containers", "t", "last")) as changes:  # type: ignore[type-var]
        assert await next_change(changes) == last
        for number in range(3):
            last = await writer.replace(last, {"n": number + 1})
            assert await next_change(changes) == last


async def test_watch_of_a_collection_is_told_of_another_instances_writes(reopen: Open) -> None:
    writer, reader = await reopen(), await reopen()
    old = await writer.create("events", "t", "old", {})
    await writer.create("events", "other", "k", {})

    async def until(changes: Any, wanted: Document) -> None:
        while True:
            told = await next_change(changes)
            if told == wanted or (told is None and wanted in await reader.list("events", "t")):
                return
            assert told is None or told.tenant == "t"

    async with aclosing(reader.watch("events", "t")) as changes:  # type: ignore[type-var]
        assert await next_change(changes) is None
        await writer.delete(old)
        first = await writer.create("events", "t", "1", {"n": 1})
        await until(changes, first)
        first = await writer.replace(first, {"n": 2})
        await until(changes, first)
        await writer.delete(first)
        await until(changes, await writer.create("events", "t", "1", {"n": 3}))


async def test_a_watcher_of_a_collection_that_does_not_read_is_told_to_list_again(reopen: Open) -> None:
    store = await reopen()
    async with aclosing(store.watch("events", "t")) as changes:  # type: ignore[type-var]
        assert await next_change(changes) is None
        for batch in range(11):
            await asyncio.gather(*(store.create("events", "t", f"{batch}-{n}", {}) for n in range(100)))
        told: set[str] = set()
        while len(told) < 1100:
            document = await next_change(changes)
            told |= {document.key} if document is not None else {one.key for one in await store.list("events", "t")}


async def test_the_last_state_always_reaches_every_watcher(reopen: Open) -> None:
    """Writers in both instances, watchers in both: changes may be coalesced, the last one never."""
    stores = [await reopen(), await reopen()]
    await stores[0].create("containers", "t", "k", {"n": 0})

    async def last(store: Store) -> int:
        seen = [-1]
        async with aclosing(store.watch("containers", "t", "k")) as changes:  # type: ignore[type-var]
            while seen[-1] != 20:
                document = await next_change(changes)
                assert document is not None
                assert document.body["n"] >= seen[-1]
                seen.append(document.body["n"])
        return seen[-1]

    watchers = [asyncio.create_task(last(store)) for store in stores for _ in range(5)]
    for number in range(1, 21):
        store = stores[number % 2]
        document = await store.get("containers", "t", "k")
        assert document is not None
        await store.replace(document, {"n": number})
    assert await asyncio.gather(*watchers) == [20] * 10


async def test_many_watchers_of_many_documents(reopen: Open) -> None:
    writer, reader = await reopen(), await reopen()
    documents = [await writer.create("containers", "t", f"c{n:03}", {"n": n}) for n in range(130)]
    places = [*range(130), *[7] * 200]
    async with AsyncExitStack() as stack:
        watches = [
            await stack.enter_async_context(
                aclosing(reader.watch("containers", "t", documents[place].key))  # type: ignore[type-var]
            )
            for place in places
        ]
        present = await asyncio.gather(*(next_change(changes, 20) for changes in watches))
        assert present == [documents[place] for place in places]
        changed: list[Document] = [await writer.replace(d, {"n": -1}) for d in documents]
        told = await asyncio.gather(*(next_change(changes, 20) for changes in watches))
        assert told == [changed[place] for place in places]
