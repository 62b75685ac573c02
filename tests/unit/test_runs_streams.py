"""Exec sessions, tickets for hijacked requests, logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.errors import Conflict, DockerError, InvalidParameter, NotFound, NotServed
from control_plane.services.attachments import HijackRequest
from control_plane.services.logs import LogsRequest
from tests.unit.run_world import TENANT, Program, World

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"
BOTH = LogsRequest(stdout=True, stderr=True)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.close()


async def ticket(world: World, path: str, query: str = "", body: Any = None) -> dict[str, Any]:
    return await world.services.attachments.ticket(TENANT, HijackRequest("POST", path, query, body))


async def test_exec_from_create_to_inspect(world: World) -> None:
    container = await world.create(config={"Env": ["A=1", "B=2"], "User": "app", "WorkingDir": "/w"})
    await world.services.runs.start(TENANT, "web")
    execs = world.services.execs
    config = {"Cmd": ["ls", "-l"], "AttachStdout": True, "Env": ["B=3", "A"], "Tty": False}
    exec_id = await execs.create(TENANT, "web", config)
    assert len(exec_id) == 64
    assert exec_id.startswith(container.id[:16])
    created = await execs.inspect(TENANT, exec_id)
    assert (created["Running"], created["ExitCode"], created["Pid"]) == (False, None, 0)
    assert created["ProcessConfig"] == {
        "tty": False,
        "entrypoint": "ls",
        "arguments": ["-l"],
        "privileged": False,
    }
    answer = await ticket(world, f"/v1.47/exec/{exec_id}/start", body={"Detach": False, "Tty": False})
    assert (answer["content_type"], answer["tty"], answer["ticket"]) == (MULTIPLEXED, False, "ticket-exec")
    assert (answer["container"], answer["relay_url"], len(answer["stream_id"])) == (container.id, "http://gw", 32)
    with pytest.raises(Conflict, match=f"exec command {exec_id} is already running"):
        await ticket(world, f"/exec/{exec_id}/start")
    agent = world.all_agents[0]
    await agent.event("exec_started", exec=exec_id, pid=9)
    assert (await execs.inspect(TENANT, exec_id))["Pid"] == 9
    await agent.event("exec_exited", exec=exec_id, code=4)
    await agent.event("exec_exited", exec=exec_id, code=4)
    ended = await execs.inspect(TENANT, exec_id)
    assert (ended["Running"], ended["ExitCode"]) == (False, 4)
    with pytest.raises(Conflict, match=f"exec command {exec_id} has already run"):
        await ticket(world, f"/exec/{exec_id}/start")
    assert world.sink.actions == ["start", "exec_create: ls -l", "exec_start: ls -l", "exec_die"]


async def test_detached_exec(world: World) -> None:
    await world.create(config={"Env": ["A=1", "B=2"], "User": "app", "WorkingDir": "/w"})
    await world.services.runs.start(TENANT, "web")
    exec_id = await world.services.execs.create(TENANT, "web", {"Cmd": ["x"], "Env": ["B=3", "A"]})
    assert await ticket(world, f"/exec/{exec_id}/start", body={"Detach": True}) == {"detached": True}
    method, params = world.all_agents[0].calls[-1]
    assert method == "exec"
    assert (params["env"], params["user"], params["workdir"]) == (["B=3"], "app", "/w")
    assert (params["stdin"], params["stdout"], params["stderr"]) == (False, False, False)
    assert (await world.services.execs.inspect(TENANT, exec_id))["Pid"] == 77


async def test_exec_refusals(world: World) -> None:
    container = await world.create()
    execs = world.services.execs
    with pytest.raises(NotFound, match="No such container: nobody"):
        await execs.create(TENANT, "nobody", {"Cmd": ["x"]})
    with pytest.raises(InvalidParameter, match="No exec command specified"):
        await execs.create(TENANT, "web", {"Cmd": []})
    with pytest.raises(Conflict, match=f"container {container.id} is not running"):
        await execs.create(TENANT, "web", {"Cmd": ["x"]})
    with pytest.raises(NotFound, match="No such exec instance: nope"):
        await ticket(world, "/exec/nope/start")
    await world.services.runs.start(TENANT, "web")
    exec_id = await execs.create(TENANT, "web", {"Cmd": ["x"]})
    with pytest.raises(InvalidParameter, match="exec process is not started"):
        await execs.resize(TENANT, exec_id, 1, 1)
    await world.services.runs.pause(TENANT, "web")
    with pytest.raises(Conflict, match="Container web is paused, unpause the container before exec"):
        await execs.create(TENANT, "web", {"Cmd": ["x"]})
    await world.services.runs.unpause(TENANT, "web")
    await world.services.runs.stop(TENANT, "web")
    with pytest.raises(Conflict, match=f"container {container.id} is not running"):
        await ticket(world, f"/exec/{exec_id}/start")


async def test_an_exec_starts_once_however_many_ask(world: World) -> None:
    await world.create()
    await world.services.runs.start(TENANT, "web")
    exec_id = await world.services.execs.create(TENANT, "web", {"Cmd": ["x"]})
    answers = await asyncio.gather(*(ticket(world, f"/exec/{exec_id}/start") for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(answer, dict) for answer in answers) == 1


async def test_who_lost_the_answer_to_a_claim_may_ask_again(world: World) -> None:
    container = await world.create()
    await world.services.runs.start(TENANT, "web")
    exec_id = await world.services.execs.create(TENANT, container.id, {"Cmd": ["ls"]})
    first, other = (
        HijackRequest("POST", f"/exec/{exec_id}/start", "", None, attempt) for attempt in ("attempt-1", "attempt-2")
    )
    for _ in range(2):
        answer = await world.services.attachments.ticket(TENANT, first)
        assert answer["ticket"] == "ticket-exec"
    for asked in (other, HijackRequest("POST", f"/exec/{exec_id}/start", "", None)):
        with pytest.raises(Conflict, match="is already running"):
            await world.services.attachments.ticket(TENANT, asked)
    assert world.sink.actions.count("exec_start: ls") == 1
    await world.services.execs.exited(TENANT, container.id, exec_id, 0)
    with pytest.raises(Conflict, match="has already run"):
        await world.services.attachments.ticket(TENANT, first)


async def test_execs_end_with_their_container_and_go_with_it(world: World) -> None:
    await world.create()
    await world.services.runs.start(TENANT, "web")
    exec_id = await world.services.execs.create(TENANT, "web", {"Cmd": ["x"]})
    await ticket(world, f"/exec/{exec_id}/start")
    await world.services.runs.stop(TENANT, "web")
    await world.settle()
    assert (await world.services.execs.inspect(TENANT, exec_id))["ExitCode"] == 137
    await world.services.removal.remove(TENANT, "web")
    assert await world.services.execs.records.get(TENANT, exec_id) is None


async def test_an_agent_cannot_touch_anothers_exec(world: World) -> None:
    other = await world.create("other")
    await world.create()
    await world.services.runs.start(TENANT, "web")
    exec_id = await world.services.execs.create(TENANT, "web", {"Cmd": ["x"]})
    await ticket(world, f"/exec/{exec_id}/start")
    event = {"type": "exec_exited", "seq": 1, "exec": exec_id, "code": 0}
    await world.services.links.report(TENANT, other.id, event)
    assert (await world.services.execs.inspect(TENANT, exec_id))["Running"] is True


async def test_attach(world: World) -> None:
    container = await world.create()
    answer = await ticket(world, f"/v1.47/containers/{container.id[:12]}/attach", "stream=1&stdout=1&stderr=1")
    assert (answer["content_type"], answer["container"]) == (MULTIPLEXED, container.id)
    assert (await ticket(world, "/v1.41/containers/web/attach", "stream=1"))["content_type"] == RAW
    assert world.sink.actions == ["attach", "attach"]
    with pytest.raises(NotFound, match="No such container: nobody"):
        await ticket(world, "/containers/nobody/attach")
    with pytest.raises(InvalidParameter, match="Invalid detach keys"):
        await ticket(world, "/containers/web/attach", "detachKeys=ctrl-%21%21")
    await world.services.runs.start(TENANT, "web")
    await world.services.runs.pause(TENANT, "web")
    with pytest.raises(Conflict, match="container web is paused, unpause the container before attach"):
        await ticket(world, "/containers/web/attach")


async def test_attach_with_a_terminal_is_raw(world: World) -> None:
    await world.create(config={"Tty": True})
    answer = await ticket(world, "/v1.47/containers/web/attach", "stream=1")
    assert (answer["content_type"], answer["tty"]) == (RAW, True)


@pytest.mark.parametrize("path", ["/containers/web/json", "/containers//attach", "/x/containers/web/attach", "", "/"])
async def test_tickets_are_for_hijacked_requests_only(world: World, path: str) -> None:
    await world.create()
    with pytest.raises(NotFound, match="page not found"):
        await ticket(world, path)


async def output(world: World, request: LogsRequest = BOTH) -> bytes:
    _, chunks = await world.services.logs.logs(TENANT, "web", request)
    return b"".join([chunk async for chunk in chunks])


async def test_logs_come_from_the_agent_while_it_is_there(world: World) -> None:
    await world.create()
    assert await output(world) == b""
    await world.services.runs.start(TENANT, "web")
    assert await output(world) == b"live:logs"
    await world.services.runs.stop(TENANT, "web")
    assert await output(world) == b"live:logs"


async def test_logs_come_from_the_archive_after(world: World) -> None:
    await world.create()
    world.program = Program(exits=0)
    await world.services.runs.start(TENANT, "web")
    await world.settle()
    world.all_agents[0].disconnect()
    assert await output(world) == b"\1\0\0\0\0\0\0\4out\n\2\0\0\0\0\0\0\4err\n"
    stamped = await output(world, LogsRequest(stdout=False, stderr=True, timestamps=True))
    assert stamped == b"\2\0\0\0\0\0\0\x23" + b"2026-01-02T03:04:05.678901234Z err\n"


@pytest.mark.parametrize(
    ("host", "request_", "refusal", "text"),
    [
        ({}, LogsRequest(False, False), InvalidParameter, "Bad parameters: you must choose at least one stream"),
        ({"LogConfig": {"Type": "none"}}, BOTH, NotServed, "configured logging driver does not support reading"),
        (
            {"LogConfig": {"Config": {"labels-regex": ".*"}}},
            LogsRequest(True, True, details=True),
            NotServed,
            "labels-regex are not served",
        ),
    ],
)
async def test_logs_refusals(
    world: World, host: dict[str, Any], request_: LogsRequest, refusal: type[DockerError], text: str
) -> None:
    await world.create(host=host)
    with pytest.raises(refusal, match=text):
        await output(world, request_)


async def test_followed_logs_wait_for_an_agent_that_dials_again(world: World) -> None:
    await world.create()
    await world.services.runs.start(TENANT, "web")
    agent = world.all_agents[0]
    agent.disconnect()
    following = asyncio.create_task(output(world, LogsRequest(True, True, follow=True)))
    await asyncio.sleep(0.3)
    assert not following.done()
    world.agents.links[agent.container_id] = agent
    async with asyncio.timeout(10):
        assert await following == b"live:logs"
    await world.services.runs.stop(TENANT, "web")
    agent.disconnect()
    # What has ended has an end in the archive too.
    assert (await output(world, LogsRequest(True, True, follow=True))).endswith(b"err\n")
