"""`docker events`: live, past, filtered, bounded, and from other control planes."""

from __future__ import annotations

import time
from pathlib import Path

import orjson
import pytest

from control_plane.model import Event
from control_plane.services.event_filters import EventFilters
from control_plane.services.events import HISTORY
from tests.core_fakes import Endpoint, Live


def lines(live: Live) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in live.body.splitlines()]


def follow(endpoint: Endpoint, query: str = "", version: str = "1.50") -> Live:
    return Live(endpoint.app, "GET", f"/v{version}/events", query)


async def past(endpoint: Endpoint, filters: str = "", version: str = "1.50") -> list[str]:
    query = f"since=1&until={time.time():.6f}" + (f"&filters={filters}" if filters else "")
    live = await follow(endpoint, query, version).until(lambda answer: answer.done)
    assert live.status == 200, live.body
    return [str(line["Action"]) for line in lines(live)]


async def test_live_events(endpoint: Endpoint) -> None:
    container = await endpoint.add("box", labels={"l": "1"})
    live = await follow(endpoint).until(lambda answer: answer.status == 200)
    assert live.body == b""
    await endpoint.events.publish_container(container, "die", {"exitCode": "3"})
    await endpoint.events.publish("default", "volume", "create", "v", {"driver": "local"})
    await live.until(lambda answer: len(lines(answer)) == 2)
    first, second = lines(live)
    attributes = {"exitCode": "3", "image": "busybox", "name": "box", "l": "1"}
    assert first == {
        "status": "die",
        "id": container.id,
        "from": "busybox",
        "Type": "container",
        "Action": "die",
        "Actor": {"ID": container.id, "Attributes": attributes},
        "scope": "local",
        "time": first["time"],
        "timeNano": first["timeNano"],
    }
    assert set(second) == {"Type", "Action", "Actor", "scope", "time", "timeNano"}
    await live.leave()
    assert endpoint.events.listeners("default") == 0


async def test_past_events_in_order_and_only_on_request(endpoint: Endpoint) -> None:
    for action in ("one", "two", "three"):
        await endpoint.events.publish("default", "volume", action, "v")
    assert await past(endpoint) == ["one", "two", "three"]
    live = await follow(endpoint).until(lambda answer: answer.status == 200)
    await endpoint.events.publish("default", "volume", "four", "v")
    await live.until(lambda answer: b"four" in answer.body)
    assert len(lines(live)) == 1
    await live.leave()


async def test_past_events_go_over_into_live_ones_without_doubling(endpoint: Endpoint) -> None:
    await endpoint.events.publish("default", "volume", "one", "v")
    live = await follow(endpoint, "since=1").until(lambda answer: b"one" in answer.body)
    await endpoint.events.publish("default", "volume", "two", "v")
    await live.until(lambda answer: b"two" in answer.body)
    assert [line["Action"] for line in lines(live)] == ["one", "two"]
    await live.leave()


async def test_since_and_until_bound_the_past(endpoint: Endpoint) -> None:
    await endpoint.events.publish("default", "volume", "one", "v")
    between = time.time_ns()
    await endpoint.events.publish("default", "volume", "two", "v")
    point = f"{between // 10**9}.{between % 10**9:09d}"
    live = await follow(endpoint, f"until={point}").until(lambda answer: answer.done)
    assert [line["Action"] for line in lines(live)] == ["one"]
    live = await follow(endpoint, f"since={point}&until={time.time():.6f}").until(lambda answer: answer.done)
    assert [line["Action"] for line in lines(live)] == ["two"]


async def test_a_stream_with_until_ends_by_itself(endpoint: Endpoint) -> None:
    live = follow(endpoint, f"until={time.time() + 0.3:.6f}")
    await live.until(lambda answer: answer.status == 200)
    await endpoint.events.publish("default", "volume", "now", "v")
    await live.until(lambda answer: answer.done)
    assert [line["Action"] for line in lines(live)] == ["now"]


async def test_other_tenants_events_are_not_told(endpoint: Endpoint) -> None:
    await endpoint.events.publish("other", "volume", "secret", "v")
    await endpoint.events.publish("default", "volume", "mine", "v")
    assert await past(endpoint) == ["mine"]


async def test_history_outlives_the_process_and_is_bounded(endpoint: Endpoint, tmp_path: Path) -> None:
    for number in range(HISTORY + 50):
        await endpoint.events.publish("default", "volume", f"n{number}", "v")
        if number % 30 == 0:
            await endpoint.events.close()
    await endpoint.events.close()
    again = Endpoint(tmp_path)
    try:
        told = await past(again)
        assert told == [f"n{number}" for number in range(50, HISTORY + 50)]
        stored = sum(len(document.body["events"]) for document in await again.store.list("events", "default"))
        assert stored < HISTORY + 50
    finally:
        await again.close()


async def test_events_of_another_control_plane(endpoint: Endpoint, tmp_path: Path) -> None:
    other = Endpoint(tmp_path)
    try:
        live = await follow(other).until(lambda answer: answer.status == 200)
        await other.events.publish("default", "volume", "own", "v")
        await endpoint.events.publish("default", "volume", "foreign", "v")
        await live.until(lambda answer: b"foreign" in answer.body and b"own" in answer.body)
        await endpoint.events.publish("default", "volume", "last", "v")
        await live.until(lambda answer: b"last" in answer.body)
        assert sorted(str(line["Action"]) for line in lines(live)) == ["foreign", "last", "own"]
        await live.leave()
    finally:
        await other.close()


async def test_image_creates_are_for_new_clients(endpoint: Endpoint) -> None:
    await endpoint.events.publish("default", "image", "create", "i")
    await endpoint.events.publish("default", "image", "pull", "i")
    assert await past(endpoint, version="1.45") == ["pull"]
    assert await past(endpoint, version="1.46") == ["create", "pull"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("since=x", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("until=1.x", 'strconv.ParseInt: parsing "1.x": invalid syntax'),
        ("since=5&until=3", "`since` time (5) cannot be after `until` time (3)"),
        ("filters=x", "invalid filter"),
    ],
)
async def test_wrong_requests(endpoint: Endpoint, query: str, message: str) -> None:
    live = await follow(endpoint, query).until(lambda answer: answer.done)
    assert live.status == 400
    assert str(orjson.loads(live.body)["message"]).startswith(message)


def _event(type: str = "container", action: str = "start", actor: str = "abc", **attributes: str) -> Event:
    return Event(tenant="t", type=type, action=action, actor=actor, attributes=attributes, time_nano=1)


@pytest.mark.parametrize(
    ("filters", "event", "passes"),
    [
        ({}, _event(), True),
        ({"type": ["container"]}, _event(), True),
        ({"type": ["image"]}, _event(), False),
        ({"event": ["start", "die"]}, _event(), True),
        ({"event": ["sta"]}, _event(), False),
        ({"event": ["health_status"]}, _event(action="health_status: healthy"), True),
        ({"event": ["exec_start"]}, _event(action="exec_start: ls"), True),
        ({"event": ["exec_die"]}, _event(action="exec_start: ls"), False),
        ({"container": ["box"]}, _event(name="box"), True),
        ({"container": ["ab"]}, _event(), True),
        ({"container": ["x"]}, _event(name="box"), False),
        ({"image": ["busybox"]}, _event(image="busybox:1.36"), True),
        ({"image": ["busybox:1.36"]}, _event(image="busybox:1.36"), True),
        ({"image": ["busybox"]}, _event(image="host:5000/busybox"), False),
        ({"image": ["x:1"]}, _event(type="image", actor="sha256:1", name="x:1"), True),
        ({"label": ["a=1"]}, _event(a="1"), True),
        ({"label": ["a"]}, _event(a="1"), True),
        ({"label": ["a=1", "b"]}, _event(a="1"), False),
        ({"scope": ["swarm"]}, _event(), False),
        ({"volume": ["v"]}, _event(type="volume", actor="vol"), True),
        ({"unknown": ["x"]}, _event(), True),
    ],
)
def test_filters(filters: dict[str, list[str]], event: Event, passes: bool) -> None:
    assert EventFilters(filters).include(event) is passes
