"""What every store must do. Another store joins by another entry in `store_fixtures.STORES`."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from control_plane.store.base import AlreadyExists, Document, RevisionConflict, Store
from tests.contract.store_fixtures import Open, next_change, reopen, store

__all__ = ["reopen", "store"]


async def test_a_document_is_read_as_it_was_written(store: Store) -> None:
    body = {"text": "ü\u0000\n", "number": 2**53, "none": None, "list": [1, {"a": True}], "float": 0.5}
    created = await store.create("containers", "t", "k", body)
    assert created.body == body
    assert (created.collection, created.tenant, created.key) == ("containers", "t", "k")
    assert await store.get("containers", "t", "k") == created


async def test_what_is_not_there_is_none(store: Store) -> None:
    assert await store.get("containers", "t", "k") is None
    assert await store.list("containers") == []
    assert await store.find("containers", "t", "") == []


async def test_a_body_changed_by_its_writer_later_stays_as_written(store: Store) -> None:
    body = {"list": [1]}
    await store.create("containers", "t", "k", body)
    body["list"].append(2)
    found = await store.get("containers", "t", "k")
    assert found is not None
    assert found.body == {"list": [1]}


async def test_create_refuses_a_taken_key_and_keeps_the_first(store: Store) -> None:
    await store.create("names", "t", "k", {"n": 1})
    with pytest.raises(AlreadyExists):
        await store.create("names", "t", "k", {"n": 2})
    found = await store.get("names", "t", "k")
    assert found is not None
    assert found.body == {"n": 1}


async def test_keys_are_apart_by_collection_and_tenant(store: Store) -> None:
    await store.create("names", "a", "k", {"n": 1})
    await store.create("names", "b", "k", {"n": 2})
    await store.create("volumes", "a", "k", {"n": 3})
    assert [d.body["n"] for d in await store.list("names", "a")] == [1]
    assert [d.body["n"] for d in await store.list("names", "b")] == [2]
    assert sorted(d.body["n"] for d in await store.list("names")) == [1, 2]
    assert await store.get("volumes", "b", "k") is None


async def test_replace_needs_the_current_revision(store: Store) -> None:
    first = await store.create("containers", "t", "k", {"n": 1})
    second = await store.replace(first, {"n": 2})
    assert second.revision != first.revision
    with pytest.raises(RevisionConflict):
        await store.replace(first, {"n": 3})
    assert await store.get("containers", "t", "k") == second


async def test_delete_needs_the_current_revision(store: Store) -> None:
    first = await store.create("containers", "t", "k", {"n": 1})
    second = await store.replace(first, {"n": 2})
    with pytest.raises(RevisionConflict):
        await store.delete(first)
    await store.delete(second)
    assert await store.get("containers", "t", "k") is None
    with pytest.raises(RevisionConflict):
        await store.delete(second)
    with pytest.raises(RevisionConflict):
        await store.replace(second, {"n": 3})


async def test_a_revision_is_not_used_again_after_delete_and_create(store: Store) -> None:
    first = await store.create("containers", "t", "k", {"n": 1})
    await store.delete(first)
    again = await store.create("containers", "t", "k", {"n": 1})
    assert again.revision != first.revision
    with pytest.raises(RevisionConflict):
        await store.delete(first)


async def test_find_gives_prefixes_in_order_up_to_the_limit(store: Store) -> None:
    for key in ("abc", "abd", "ab", "b", "aa", "abé"):
        await store.create("containers", "t", key, {})
    await store.create("containers", "other", "abx", {})
    assert [d.key for d in await store.find("containers", "t", "ab", 10)] == ["ab", "abc", "abd", "abé"]
    assert [d.key for d in await store.find("containers", "t", "ab")] == ["ab", "abc"]
    assert [d.key for d in await store.find("containers", "t", "abc")] == ["abc"]
    assert await store.find("containers", "t", "x") == []
    assert await store.find("containers", "t", "a%") == []


async def test_list_is_in_key_order_and_follows_writes(store: Store) -> None:
    documents = [await store.create("images", "t", key, {"k": key}) for key in ("c", "a", "b")]
    assert [d.key for d in await store.list("images", "t")] == ["a", "b", "c"]
    await store.delete(documents[0])
    await store.replace(documents[1], {"k": "A"})
    assert [(d.key, d.body["k"]) for d in await store.list("images", "t")] == [("a", "A"), ("b", "b")]
    assert [d.key for d in await store.list("images")] == ["a", "b"]


async def test_one_of_many_concurrent_creates_wins(reopen: Open) -> None:
    stores = [await reopen() for _ in range(3)]

    async def create(number: int) -> bool:
        try:
            await stores[number % 3].create("names", "t", "same", {"n": number})
        except AlreadyExists:
            return False
        return True

    assert sum(await asyncio.gather(*(create(n) for n in range(12)))) == 1


async def test_concurrent_compare_and_sets_lose_no_update(reopen: Open) -> None:
    stores = [await reopen() for _ in range(2)]
    await stores[0].create("containers", "t", "counter", {"n": 0})

    async def count(store: Store) -> None:
        for _ in range(25):
            while True:
                document = await store.get("containers", "t", "counter")
                assert document is not None
                await asyncio.sleep(0)
                try:
                    await store.replace(document, {"n": document.body["n"] + 1})
                except RevisionConflict:
                    continue
                break

    await asyncio.gather(*(count(store) for store in stores for _ in range(2)))
    found = await stores[1].get("containers", "t", "counter")
    assert found is not None
    assert found.body == {"n": 100}


async def test_documents_outlive_the_store_object(reopen: Open) -> None:
    first = await reopen()
    created = await first.create("containers", "t", "k", {"n": 1})
    await first.close()
    assert await (await reopen()).get("containers", "t", "k") == created


async def test_another_process_sees_writes_at_once(reopen: Open) -> None:
    one, other = await reopen(), await reopen()
    document = await one.create("containers", "t", "k", {"n": 1})
    assert await other.get("containers", "t", "k") == document
    assert len(await other.list("containers", "t")) == 1
    changed = await one.replace(document, {"n": 2})
    assert await other.get("containers", "t", "k") == changed
    assert [d.body["n"] for d in await other.list("containers", "t")] == [2]
    await one.delete(changed)
    assert await other.get("containers", "t", "k") is None
    assert await other.find("containers", "t", "k") == []


async def test_watch_starts_with_the_present(store: Store) -> None:
    document = await store.create("containers", "t", "k", {"n": 1})
    async with aclosing(store.watch("containers", "t", "k")) as changes:  # type: ignore[type-var]
        assert await next_change(changes) == document
    async with aclosing(store.watch("containers", "t", "absent")) as changes:  # type: ignore[type-var]
        assert await next_change(changes) is None


@pytest.mark.parametrize("same_process", [True, False])
async def test_watch_tells_of_changes_and_deletion(reopen: Open, same_process: bool) -> None:
    writer = await reopen()
    reader = writer if same_process else await reopen()
    document = await writer.create("containers", "t", "k", {"n": 1})
    async with aclosing(reader.watch("containers", "t", "k")) as changes:  # type: ignore[type-var]
        assert await next_change(changes) == document
        changed = await writer.replace(document, {"n": 2})
        assert await next_change(changes) == changed
        await writer.create("containers", "t", "unrelated", {})
        await writer.delete(changed)
        assert await next_change(changes) is None


@pytest.mark.parametrize("same_process", [True, False])
async def test_watch_of_a_collection_tells_what_is_written(reopen: Open, same_process: bool) -> None:
    """Each document itself, or None where the list has it by then; never one twice, never a deletion."""
    writer = await reopen()
    reader = writer if same_process else await reopen()
    async with aclosing(reader.watch("events", "t", start="k")) as changes:  # type: ignore[type-var]
        assert await next_change(changes) is None
        told: list[Document] = []
        for number in range(3):
            made = await writer.create("events", "t", f"k{number}", {"n": number})
            await writer.create("events", "other", f"k{number}", {})
            if number == 1:
                await writer.delete(made)
                made = await writer.create("events", "t", f"k{number}x", {"n": number})
            while made not in told:
                document = await next_change(changes)
                found = [document] if document is not None else await reader.list("events", "t", "k")
                told += [one for one in found if one not in told]
                assert document is None or document.tenant == "t"
        assert {one.key for one in told} >= {"k0", "k1x", "k2"}


async def test_watchers_of_a_collection_from_different_keys_each_get_theirs(reopen: Open) -> None:
    writer, reader = await reopen(), await reopen()
    async with (
        aclosing(reader.watch("events", "t", start="m")) as later,  # type: ignore[type-var]
        aclosing(reader.watch("events", "t", start="c")) as earlier,  # type: ignore[type-var]
        aclosing(reader.watch("events", "t", start="z")) as last,  # type: ignore[type-var]
    ):
        for changes in (later, earlier, last):
            assert await next_change(changes) is None
        wanted = [await writer.create("events", "t", key, {}) for key in ("d", "n", "zz")]
        for changes, start, count in ((earlier, "c", 3), (later, "m", 2), (last, "z", 1)):
            told: list[Document] = []
            while not all(one in told for one in wanted[-count:]):
                document = await next_change(changes)
                told += [document] if document is not None else await reader.list("events", "t", start)


async def test_a_list_from_a_key_on_leaves_out_what_is_before(store: Store) -> None:
    for key in ("a", "b/1", "b/2", "c", "é"):
        await store.create("events", "t", key, {})
        await store.create("events", "other", key, {})
    assert [d.key for d in await store.list("events", "t", "b/2")] == ["b/2", "c", "é"]
    assert [d.key for d in await store.list("events", "t", "b/3")] == ["c", "é"]
    assert [d.key for d in await store.list("events", "t", "")] == ["a", "b/1", "b/2", "c", "é"]
    assert await store.list("events", "t", "ü") == []


async def test_a_change_between_watch_and_first_read_is_not_missed(store: Store) -> None:
    document = await store.create("containers", "t", "k", {"n": 1})
    async with aclosing(store.watch("containers", "t", "k")) as changes:  # type: ignore[type-var]
        changed = await store.replace(document, {"n": 2})
        assert await next_change(changes) == changed
