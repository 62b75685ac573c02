"""What `docker events` reads of each store, batch by batch, and that no order of arrival loses or doubles an event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from control_plane.model import Event
from control_plane.services import event_history
from control_plane.services.event_filters import EventFilters
from control_plane.services.event_history import LATENESS, key_at
from control_plane.services.events import Events
from tests.contract.store_fixtures import Open, reopen
from tests.counted_store import CountedStore

__all__ = ["reopen"]

OLD = 20


async def _batch(store: CountedStore, age: float, *actors: str, tenant: str = "t") -> None:
    """What another control plane has written: its key says how many seconds ago."""
    at = time.time_ns() - int(age * 1e9)
    events = [
        Event(tenant=tenant, type="volume", action="create", actor=actor, attributes={}, time_nano=at + number)
        for number, actor in enumerate(actors)
    ]
    body = {"origin": "elsewhere", "events": [event.model_dump(mode="json") for event in events]}
    await store.inner.create("events", tenant, f"{key_at(at)}-elsewhere-{actors[0]}", body)


async def _next(stream: AsyncIterator[Any]) -> str:
    event = await asyncio.wait_for(anext(stream), 10)
    return "" if event is None else str(event.actor)


async def _quiet(stream: AsyncIterator[Any]) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.5)


def _pushes(store: CountedStore) -> bool:
    """Whether the store tells of other processes' documents by itself."""
    return type(store.inner).__name__ in ("FirestoreStore", "CosmosStore")


async def test_a_batch_of_another_control_plane_costs_no_list(reopen: Open) -> None:
    mine, other = CountedStore(await reopen()), CountedStore(await reopen())
    for number in range(OLD):
        await _batch(other, LATENESS + 60 - number, f"old{number}")
    await _batch(other, 5, "recent")
    events = Events(mine)
    stream = events.stream("t", None, None, EventFilters({}))
    assert await _next(stream) == ""
    assert mine.reads in (1, 2)  # what is recent, twice where the watch says "list again"; nothing that is old
    await _batch(other, 0, "first")
    assert await _next(stream) == "first"
    opened = mine.reads
    for number in range(5):
        await _batch(other, 0, f"a{number}", f"b{number}")
        assert [await _next(stream), await _next(stream)] == [f"a{number}", f"b{number}"]
    if _pushes(mine):
        assert mine.reads == opened
    else:  # SQLite says "list again", and a list is of the last minutes
        assert (mine.reads - opened) / 5 <= 8
    await _quiet(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    await events.close()


async def test_batches_that_arrive_late_and_out_of_order_are_told_once(reopen: Open) -> None:
    mine, other = CountedStore(await reopen()), CountedStore(await reopen())
    await _batch(other, 30, "before")
    events = Events(mine)
    stream = events.stream("t", None, None, EventFilters({}))
    assert await _next(stream) == ""
    arrivals = [(0.0, "new"), (80.0, "late"), (0.0, "newer"), (100.0, "later"), (40.0, "between")]
    for age, actor in arrivals:
        await _batch(other, age, actor)
        await _batch(other, age, actor, tenant="someone")
    told = [await _next(stream) for _ in arrivals]
    assert sorted(told) == sorted(actor for _, actor in arrivals)
    await _quiet(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    await events.close()


async def test_since_reads_what_is_since_and_goes_over_into_live(reopen: Open) -> None:
    mine, other = CountedStore(await reopen()), CountedStore(await reopen())
    for number in range(OLD):
        await _batch(other, 10_000 - number, f"old{number}")
    for number in range(3):
        await _batch(other, 5_000 - 100 * number, f"wanted{number}")
    events = Events(mine)
    since = time.time_ns() - int(7_000 * 1e9)
    stream = events.stream("t", since, None, EventFilters({}))
    assert await _next(stream) == ""
    assert mine.reads in (3, 4)
    assert [await _next(stream) for _ in range(3)] == ["wanted0", "wanted1", "wanted2"]
    await _batch(other, 1, "live")
    assert await _next(stream) == "live"
    await _quiet(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    # A range that is over is read once, and nothing is watched.
    before = mine.reads
    past = events.stream("t", since, time.time_ns() - int(4_850 * 1e9), EventFilters({}))
    assert [event and event.actor async for event in past] == [None, "wanted0", "wanted1"]
    assert mine.reads == before + 4  # the live one's as well: a list has no end
    await events.close()


async def test_what_one_process_writes_it_drops_without_reading(reopen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_history, "_BATCH_SECONDS", 0)
    mine = CountedStore(await reopen())
    events = Events(mine)
    for number in range(300):
        await events.publish("t", "volume", "create", str(number))
        assert events._history._flusher is not None
        await events._history._flusher
    assert mine.reads == 1  # the look after the first batch
    kept = await mine.inner.list("events", "t")
    assert [document.body["events"][0]["actor"] for document in kept] == [str(number) for number in range(44, 300)]
    await events.close()
