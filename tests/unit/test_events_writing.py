"""Events on their way into the store: through failures that pass, and without reading all that is there each time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.errors import Unavailable
from control_plane.services import event_history as module
from control_plane.services.events import HISTORY, Events
from control_plane.store.base import Document
from control_plane.store.sqlite import SqliteStore


class Moody:
    """A store whose writes of events fail for a while; what it is asked is counted."""

    def __init__(self, inner: SqliteStore) -> None:
        self.inner = inner
        self.failing = 0
        self.losing = 0
        """Writes that are carried out, and whose answer is lost."""
        self.creates = 0
        self.lists = 0

    async def create(self, *what: Any) -> Document:
        self.creates += 1
        if self.failing:
            self.failing -= 1
            raise Unavailable("the store is away")
        made = await self.inner.create(*what)
        if self.losing:
            self.losing -= 1
            raise Unavailable("no answer")
        return made

    async def list(self, *what: Any) -> list[Document]:
        self.lists += 1
        return await self.inner.list(*what)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.fixture
async def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Moody]:
    monkeypatch.setattr(module, "_BATCH_SECONDS", 0.001)
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.004)
    inner = SqliteStore(tmp_path / "store.db")
    yield Moody(inner)
    await inner.close()


async def _written(store: Moody, tenant: str = "t") -> list[str]:
    documents = await store.inner.list("events", tenant)
    return [event["actor"] for document in documents for event in document.body["events"]]


async def _asked(store: Moody, creates: int) -> None:
    """Waits until the store was asked so often to write."""
    for _ in range(5000):
        if store.creates >= creates:
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the store is not asked")


async def _until(store: Moody, count: int) -> list[str]:
    """What is written, once it is as many."""
    for _ in range(2000):
        if len(written := await _written(store)) >= count:
            return written
        await asyncio.sleep(0.002)
    raise AssertionError("events are lost")


async def test_a_failure_that_passes_loses_nothing_and_keeps_the_order(store: Moody) -> None:
    events = Events(store)
    store.failing = 5
    await events.publish("t", "volume", "create", "a")
    await _asked(store, 2)
    await events.publish("t", "volume", "create", "b")
    assert await _until(store, 2) == ["a", "b"]
    await events.close()
    assert store.creates == 7


async def test_a_batch_whose_answer_was_lost_is_not_doubled(store: Moody) -> None:
    events = Events(store)
    store.losing = 1
    await events.publish("t", "volume", "create", "a")
    await _asked(store, 2)
    await events.close()
    assert await _written(store) == ["a"]


async def test_what_waits_is_part_of_the_history_once(store: Moody) -> None:
    events = Events(store)
    store.failing = 10**6
    await events.publish("t", "container", "die", "c", {"exitCode": "7"})
    await _asked(store, 1)
    assert await events.last_exit("t", "c") == 7
    store.failing = 0
    store.losing = 10**6
    await _until(store, 1)
    assert len((await events._history.read("t", 0))[1]) == 1
    store.losing = 0
    await events.close()


async def test_what_waits_for_a_store_that_stays_away_is_bounded(store: Moody) -> None:
    events = Events(store)
    store.failing = 10**6
    for number in range(10 * HISTORY):
        await events.publish("t", "volume", "create", str(number))
        if number == 0:
            await _asked(store, 1)
    assert sum(len(waiting) for waiting in events._history._pending.values()) <= 4 * HISTORY
    store.failing = 0
    await events.close()
    assert (await _written(store))[-1] == str(10 * HISTORY - 1)


async def test_closing_does_not_wait_for_a_store_that_is_away(store: Moody) -> None:
    events = Events(store)
    store.failing = 10**6
    await events.publish("t", "volume", "create", "a")
    await asyncio.wait_for(events.close(), 5)


async def test_batches_do_not_each_read_all_that_is_there(store: Moody) -> None:
    events = Events(store)
    for number in range(HISTORY):
        await events.publish("t", "volume", "create", str(number))
        await events._history.flush()
    assert store.creates == HISTORY
    assert store.lists <= 4
    await events.close()


async def test_the_history_stays_bounded(store: Moody) -> None:
    events = Events(store)
    for number in range(3 * HISTORY):
        await events.publish("t", "volume", "create", str(number))
        await events._history.flush()
    await events.close()
    kept = await _written(store)
    assert HISTORY <= len(kept) <= 2 * HISTORY
    assert kept[-1] == str(3 * HISTORY - 1)


async def test_a_batch_that_waited_long_gets_a_key_of_the_present(
    store: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listeners look for new batches among recent keys only."""
    monkeypatch.setattr(module, "_KEY_SECONDS", 0.0)
    events = Events(store)
    store.failing = 3
    await events.publish("t", "volume", "create", "a")
    assert await _until(store, 1) == ["a"]
    keys = [document.key for document in await store.inner.list("events", "t")]
    assert keys[0].endswith("-4")
    await events.close()


async def test_a_batch_that_got_another_key_is_not_doubled(store: Moody, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEY_SECONDS", 0.0)
    events = Events(store)
    store.losing = 2
    await events.publish("t", "volume", "create", "a")
    await _asked(store, 1)
    await events.close()
    assert await _written(store) == ["a"]
