"""Events of several control planes, in the order in which they happened."""

from __future__ import annotations

import asyncio
import time

import pytest

from control_plane.model import Event
from control_plane.services.event_order import InOrder


def event(action: str, seconds: float) -> Event:
    return Event(tenant="t", type="container", action=action, actor="c", attributes={}, time_nano=int(seconds * 1e9))


async def test_what_is_told_late_comes_in_its_place() -> None:
    queue: asyncio.Queue[Event] = asyncio.Queue()
    now = time.time()
    for one in (event("die", now + 0.002), event("start", now + 0.001), event("create", now)):
        queue.put_nowait(one)
    live = InOrder(queue, 0.05)
    assert [(await live.next(5)).action for _ in range(3)] == ["create", "start", "die"]


async def test_what_is_too_late_is_told_all_the_same() -> None:
    queue: asyncio.Queue[Event] = asyncio.Queue()
    live = InOrder(queue, 0.05)
    queue.put_nowait(event("die", time.time()))
    assert (await live.next(5)).action == "die"
    queue.put_nowait(event("start", time.time() - 60))
    assert (await live.next(5)).action == "start"


async def test_a_clock_that_is_ahead_holds_nothing_up() -> None:
    queue: asyncio.Queue[Event] = asyncio.Queue()
    queue.put_nowait(event("create", time.time() + 3600))
    assert (await InOrder(queue, 0.05).next(5)).action == "create"


@pytest.mark.parametrize("settle", [0.0, 10.0])
async def test_the_time_is_over(settle: float) -> None:
    queue: asyncio.Queue[Event] = asyncio.Queue()
    live = InOrder(queue, settle)
    if settle:
        queue.put_nowait(event("create", time.time()))
    with pytest.raises(TimeoutError):
        await live.next(0.05)


async def test_alone_nothing_is_held() -> None:
    queue: asyncio.Queue[Event] = asyncio.Queue()
    queue.put_nowait(event("create", time.time()))
    assert (await InOrder(queue, 0.0).next(5)).action == "create"
