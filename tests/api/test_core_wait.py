"""`docker wait`: three conditions, headers at once, and through another control plane's eyes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from control_plane.model import RunState
from tests.core_fakes import Endpoint, Live

START, END, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"
RUNNING = RunState(status="running", run=1, started_at=START)
EXITED = RunState(status="exited", run=1, exit_code=3, started_at=START, finished_at=END)


async def begin(endpoint: Endpoint, container_id: str, condition: str = "", version: str = "1.50") -> Live:
    query = f"condition={condition}" if condition else ""
    return Live(endpoint.app, "POST", f"/v{version}/containers/{container_id}/wait", query)


async def outcome(live: Live) -> dict[str, object]:
    await live.until(lambda answer: answer.done)
    parsed: dict[str, object] = orjson.loads(live.body)
    return parsed


@pytest.mark.parametrize("condition", ["", "not-running", "next-exit", "removed"])
async def test_headers_come_at_once(endpoint: Endpoint, condition: str) -> None:
    container = await endpoint.add(state=RUNNING)
    live = await begin(endpoint, container.id, condition)
    await live.until(lambda answer: answer.status == 200)
    assert (live.body, live.headers["content-type"]) == (b"", "application/json")
    await live.leave()


@pytest.mark.parametrize("condition", ["", "not-running", "next-exit"])
async def test_the_exit_code_comes_when_the_process_ends(endpoint: Endpoint, condition: str) -> None:
    container = await endpoint.add(state=RUNNING)
    live = await begin(endpoint, container.id, condition)
    await live.until(lambda answer: answer.status == 200)
    await endpoint.set_state(container, status="exited", exit_code=42, finished_at=END)
    assert await outcome(live) == {"StatusCode": 42}


async def test_what_does_not_run_is_answered_at_once(endpoint: Endpoint) -> None:
    assert await outcome(await begin(endpoint, (await endpoint.add(state=EXITED)).id)) == {"StatusCode": 3}
    assert await outcome(await begin(endpoint, (await endpoint.add()).id)) == {"StatusCode": 0}


async def test_a_start_under_way_counts_as_running(endpoint: Endpoint) -> None:
    container = await endpoint.add(state=RunState(status="starting", run=1))
    live = await begin(endpoint, container.id)
    await endpoint.set_state(container, status="running", started_at=START)
    await asyncio.sleep(0.01)
    assert not live.done
    await endpoint.set_state(container, status="exited", exit_code=1, finished_at=END)
    assert await outcome(live) == {"StatusCode": 1}


async def test_next_exit_of_an_exited_container_is_its_next_one(endpoint: Endpoint) -> None:
    container = await endpoint.add(state=EXITED)
    live = await begin(endpoint, container.id, "next-exit")
    await live.until(lambda answer: answer.status == 200)
    await endpoint.set_state(container, status="running", run=2, started_at=LATER)
    await asyncio.sleep(0.01)
    assert not live.done
    await endpoint.set_state(container, status="exited", exit_code=9, finished_at=LATER)
    assert await outcome(live) == {"StatusCode": 9}


async def test_removed_tells_the_last_exit_code(endpoint: Endpoint) -> None:
    container = await endpoint.add(state=RUNNING)
    live = await begin(endpoint, container.id, "removed")
    await live.until(lambda answer: answer.status == 200)
    # Exit and removal with no pause: the wait must not miss what came between.
    await endpoint.set_state(container, status="exited", exit_code=7, finished_at=END)
    await endpoint.containers.records.delete("default", container.id)
    assert await outcome(live) == {"StatusCode": 7}


async def test_removed_is_seen_through_another_control_plane(endpoint: Endpoint, tmp_path: Path) -> None:
    other = Endpoint(tmp_path)
    try:
        container = await endpoint.add(state=RUNNING)
        live = await begin(other, container.id, "removed")
        await live.until(lambda answer: answer.status == 200)
        await endpoint.set_state(container, status="exited", exit_code=7, finished_at=END)
        await endpoint.events.publish_container(container, "die", {"exitCode": "7"})
        await endpoint.containers.records.delete("default", container.id)
        assert await outcome(live) == {"StatusCode": 7}
    finally:
        await other.close()


async def test_an_exit_is_seen_through_another_control_plane(endpoint: Endpoint, tmp_path: Path) -> None:
    other = Endpoint(tmp_path)
    try:
        container = await endpoint.add(state=RUNNING)
        live = await begin(other, container.id)
        await live.until(lambda answer: answer.status == 200)
        await endpoint.set_state(container, status="exited", exit_code=5, finished_at=END)
        assert await outcome(live) == {"StatusCode": 5}
    finally:
        await other.close()


async def test_a_container_that_could_not_start_tells_why(endpoint: Endpoint) -> None:
    container = await endpoint.add(
        state=EXITED.model_copy(update={"exit_code": 127, "error": "no such file", "start_failed": True})
    )
    live = await begin(endpoint, container.id)
    assert await outcome(live) == {"StatusCode": 127, "Error": {"Message": "no such file"}}


async def test_a_run_that_was_ended_for_a_reason_has_an_exit_code_and_no_error(endpoint: Endpoint) -> None:
    reason = "the run limit of 600 seconds was reached"
    container = await endpoint.add(state=EXITED.model_copy(update={"exit_code": 137, "error": reason}))
    live = await begin(endpoint, container.id)
    assert await outcome(live) == {"StatusCode": 137}, "clients take an error for the wait's own failure"


async def test_of_a_container_that_could_not_start_and_is_gone_only_the_code_is_told(endpoint: Endpoint) -> None:
    container = await endpoint.add(
        state=EXITED.model_copy(update={"exit_code": 128, "error": "no such user", "start_failed": True})
    )
    live = await begin(endpoint, container.id, "removed")
    await live.until(lambda answer: answer.status == 200)
    await endpoint.containers.records.delete("default", container.id)
    assert await outcome(live) == {"StatusCode": 128}


async def test_a_client_that_leaves_ends_its_wait(endpoint: Endpoint) -> None:
    container = await endpoint.add(state=RUNNING)
    before = len(asyncio.all_tasks())
    live = await begin(endpoint, container.id)
    await live.until(lambda answer: answer.status == 200)
    await live.leave()
    async with asyncio.timeout(20):
        while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 - tasks tell nobody that they ended
            await asyncio.sleep(0.01)


async def test_wrong_waits_are_told_before_headers(endpoint: Endpoint) -> None:
    live = await (await begin(endpoint, "absent")).until(lambda answer: answer.done)
    assert (live.status, live.body) == (404, b'{"message":"No such container: absent"}\n')
    container = await endpoint.add()
    live = await (await begin(endpoint, container.id, "x")).until(lambda answer: answer.done)
    assert (live.status, orjson.loads(live.body)["message"]) == (400, 'invalid condition: "x"')


async def test_before_130_headers_come_with_the_body(endpoint: Endpoint) -> None:
    container = await endpoint.add(state=RUNNING)
    live = await begin(endpoint, container.id, "x", version="1.29")
    await asyncio.sleep(0.02)
    assert live.status == 0
    await endpoint.set_state(container, status="exited", exit_code=4, finished_at=END)
    assert await outcome(live) == {"StatusCode": 4}
