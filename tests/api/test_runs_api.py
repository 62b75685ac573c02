"""The wire of container verbs, execs, archives, logs and the gateway's calls: statuses, headers, texts."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_gateway.tickets import mint_gateway_token
from control_plane.api.internal import ROUTES as INTERNAL
from control_plane.app import build_app
from control_plane.auth.caller import Caller
from control_plane.auth.tokens import GatewayAuth
from control_plane.routes import ROUTES
from control_plane.services.bundle import Services
from tests.unit.run_world import TENANT, Program, World

MINE = ("container_actions", "execs", "archives", "logs")
KEY = b"k" * 32


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.close()


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    services = world.services
    services.links.check_gateway = GatewayAuth(KEY).check_gateway
    bundle = SimpleNamespace(**{name: getattr(services, name) for name in services.__slots__})

    async def tenant(_: Any) -> Caller:
        return Caller(TENANT, "full", "local")

    routes = [route for route in ROUTES if route.handler.partition(".")[0] in MINE or "attach" in route.path]
    app = build_app(cast(Services, bundle), authenticate=tenant, routes=routes, internal_routes=INTERNAL)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://d") as client:
        yield client


def message(response: httpx.Response) -> str:
    return str(response.json()["message"])


def tar() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        info = tarfile.TarInfo("f")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    return target.getvalue()


async def test_the_verbs(world: World, client: httpx.AsyncClient) -> None:
    container = await world.create()
    short = container.id[:12]
    assert (await client.post(f"/v1.47/containers/{short}/start")).status_code == 204
    again = await client.post(f"/containers/{short}/start")
    assert (again.status_code, again.content) == (304, b"")
    assert (await client.post("/containers/web/resize?h=24&w=80")).status_code == 200
    assert (await client.get("/containers/web/top")).json()["Titles"] == ["PID"]
    assert (await client.post("/containers/web/pause")).status_code == 204
    assert (await client.post("/containers/web/unpause")).status_code == 204
    assert (await client.post("/containers/web/kill?signal=HUP")).status_code == 204
    refused = await client.delete("/containers/web")
    assert refused.status_code == 409
    assert 'cannot remove container "web"' in message(refused)
    assert (await client.post("/containers/web/restart?t=1")).status_code == 204
    assert (await client.post("/containers/web/stop?t=1")).status_code == 204
    assert (await client.post("/containers/web/stop")).status_code == 304
    killed = await client.post("/containers/web/kill")
    assert (killed.status_code, message(killed)) == (
        409,
        f"cannot kill container: web: container {container.id} is not running",
    )
    assert (await client.delete("/containers/web?force=1&v=1")).status_code == 204
    gone = await client.delete("/containers/web")
    assert (gone.status_code, message(gone)) == (404, "No such container: web")


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/containers/web/stop?t=x", 400, 'strconv.Atoi: parsing "x": invalid syntax'),
        ("/containers/web/kill?signal=FOO", 400, "cannot kill container: web: invalid signal: FOO"),
        ("/containers/web/kill?signal=99", 400, "the linux daemon does not support signal 99"),
        ("/containers/web/resize?h=x&w=1", 400, 'invalid resize height "x": invalid syntax'),
        ("/containers/web/resize?h=1&w=-1", 400, 'invalid resize width "-1": value out of range'),
        ("/containers/web/resize?h=1&w=4294967296", 400, "value out of range"),
        ("/containers/web/pause", 409, "is not running"),
        ("/containers/web/unpause", 500, "is not paused"),
        ("/containers/web/start?checkpoint=c", 501, "checkpoints need CRIU"),
        ("/containers/prune?filters=%7B%22x%22%3A%5B%22y%22%5D%7D", 400, "invalid filter 'x'"),
        ("/containers/nobody/start", 404, "No such container: nobody"),
        ("/exec/nope/resize?h=1&w=1", 404, "No such exec instance: nope"),
    ],
)
async def test_refusals(world: World, client: httpx.AsyncClient, path: str, status: int, text: str) -> None:
    await world.create()
    response = await client.post(path)
    assert response.status_code == status
    assert text in message(response)


async def test_a_command_not_found_is_the_clients_fault(world: World, client: httpx.AsyncClient) -> None:
    await world.create()
    world.program = Program(fails=(127, 'exec: "nope": executable file not found in $PATH: unknown'))
    response = await client.post("/containers/web/start")
    assert response.status_code == 400
    assert "executable file not found in $PATH" in message(response)


async def test_exec_routes(world: World, client: httpx.AsyncClient) -> None:
    await world.create()
    await client.post("/containers/web/start")
    created = await client.post("/containers/web/exec", json={"Cmd": ["ls"], "AttachStdout": True, "Env": None})
    assert created.status_code == 201
    exec_id = created.json()["Id"]
    attached = await client.post(f"/exec/{exec_id}/start", json={"Detach": False})
    assert attached.status_code == 501
    assert (await client.post(f"/exec/{exec_id}/start", json={"Detach": True})).status_code == 200
    assert (await client.get(f"/exec/{exec_id}/json")).json()["Running"] is True
    assert (await client.post(f"/exec/{exec_id}/resize?h=1&w=1")).status_code == 200
    for body, text in (({"Cmd": []}, "No exec command specified"), ({"Cmd": "ls"}, "Cmd"), ([], "object")):
        refused = await client.post("/containers/web/exec", json=body)
        assert refused.status_code == 400
        assert text in message(refused)


async def test_archive_routes(world: World, client: httpx.AsyncClient) -> None:
    await world.create()
    assert (await client.put("/containers/web/archive?path=/etc", content=tar())).status_code == 200
    head = await client.head("/containers/web/archive?path=/etc/f")
    stat = json.loads(base64.b64decode(head.headers["x-docker-container-path-stat"]))
    assert set(stat) == {"name", "size", "mode", "mtime", "linkTarget"}
    assert (stat["name"], stat["size"], head.content) == ("f", 1, b"")
    got = await client.get("/containers/web/archive?path=/etc/f")
    assert got.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(got.content)) as archive:
        assert archive.getnames() == ["f"]
    missing = await client.get("/containers/web/archive?path=/nope")
    assert (missing.status_code, message(missing)) == (404, "Could not find the file /nope in container web")
    assert (await client.get("/containers/web/archive")).status_code == 400
    broken = await client.put("/containers/web/archive?path=/", content=b"nonsense" * 200)
    assert (broken.status_code, message(broken)) == (400, "archive/tar: invalid tar header")


async def test_logs_route(world: World, client: httpx.AsyncClient) -> None:
    await world.create()
    refused = await client.get("/containers/web/logs")
    assert (refused.status_code, message(refused)) == (400, "Bad parameters: you must choose at least one stream")
    empty = await client.get("/containers/web/logs?stdout=1")
    assert (empty.status_code, empty.content) == (200, b"")
    assert empty.headers["content-type"] == "application/vnd.docker.multiplexed-stream"
    old = await client.get("/v1.41/containers/web/logs?stdout=1&tail=all&since=1.5")
    assert old.headers["content-type"] == "application/vnd.docker.raw-stream"
    assert (await client.get("/containers/web/logs?stdout=1&since=10m")).status_code == 400


async def test_prune_route(world: World, client: httpx.AsyncClient) -> None:
    container = await world.create()
    pruned = await client.post("/containers/prune")
    assert pruned.json() == {"ContainersDeleted": [container.id], "SpaceReclaimed": 0}


def gateway() -> dict[str, str]:
    return {"authorization": f"Bearer {mint_gateway_token(KEY, 'http://gw', 60)}"}


@pytest.mark.parametrize("path", ["/internal/v1/tickets", f"/internal/v1/links/{'a' * 64}/hello"])
async def test_internal_calls_need_a_gateway_token(client: httpx.AsyncClient, path: str) -> None:
    forged = mint_gateway_token(b"x" * 32, "http://gw", 60)
    for headers in ({}, {"authorization": "Bearer nonsense"}, {"authorization": f"Bearer {forged}"}):
        response = await client.post(path, json={}, headers=headers)
        assert response.status_code == 401


async def test_the_life_of_a_link(world: World, client: httpx.AsyncClient) -> None:
    container = await world.create()
    world.cloud.connects = False
    import asyncio

    start = asyncio.create_task(client.post("/containers/web/start"))
    await world.until(container, "starting")
    base = f"/internal/v1/links/{container.id}"
    about = {"tenant": TENANT, "boot": "b1", "type": "hello", "version": "1", "execs": []}
    foreign = await client.post(f"{base}/hello", json={**about, "tenant": "other"}, headers=gateway())
    assert foreign.json() == {"action": "shutdown"}
    welcome = await client.post(f"{base}/hello", json=about, headers=gateway())
    assert welcome.json()["action"] == "start"
    assert welcome.json()["spec"]["run"] == 1
    started = {"tenant": TENANT, "boot": "b1", "type": "started", "seq": 1, "run": 1, "pid": 5, "at": "nonsense"}
    assert (await client.post(f"{base}/events", json=started, headers=gateway())).status_code == 204
    assert (await start).status_code == 204
    for held, calls in ((None, 0), (True, 0), (False, 1)):
        hello = {**about, "run": 1, "running": True} | ({} if held is None else {"held": held})
        resumed = await client.post(f"{base}/hello", json=hello, headers=gateway())
        assert resumed.json() == {"action": "resume"}
        await world.settle()
        assert len(world.cloud.held) == calls
    exited = {**started, "type": "exited", "seq": 2, "code": 3, "oom": True, "at": "2040-01-01T00:00:00Z"}
    for _ in range(2):
        assert (await client.post(f"{base}/events", json=exited, headers=gateway())).status_code == 204
    ended = await world.get(container)
    assert (ended.state.exit_code, ended.state.oom_killed, ended.state.finished_at) == (3, True, exited["at"])
    assert (await client.post(f"{base}/gone", json=about, headers=gateway())).status_code == 204
    assert (await world.get(container)).agent.connected is False  # type: ignore[union-attr]
    hostile: list[Any] = [{}, {"tenant": TENANT}, {**started, "run": -1}, {**started, "run": "x"}, []]
    for body in hostile:
        assert (await client.post(f"{base}/events", json=body, headers=gateway())).status_code == 400


async def test_tickets_route(world: World, client: httpx.AsyncClient) -> None:
    await world.create()
    asked = {"method": "POST", "path": "/v1.47/containers/web/attach", "query": "stream=1", "body": None}
    granted = await client.post("/internal/v1/tickets", json=asked, headers=gateway())
    assert set(granted.json()) == {"stream_id", "ticket", "relay_url", "container", "tty", "content_type"}
    refused = await client.post("/internal/v1/tickets", json={**asked, "path": "/exec/x/start"}, headers=gateway())
    assert (refused.status_code, message(refused)) == (404, "No such exec instance: x")


async def test_an_attach_that_is_asked_for_again_is_the_same_stream(world: World, client: httpx.AsyncClient) -> None:
    await world.create()
    asked = {"method": "POST", "path": "/v1.47/containers/web/attach", "query": "stream=1", "body": None}

    async def stream(**more: str) -> str:
        granted = await client.post("/internal/v1/tickets", json=asked | more, headers=gateway())
        return str(granted.json()["stream_id"])

    first = await stream(attempt="a" * 32)
    others = {await stream(), await stream(), await stream(attempt="b" * 32)}
    assert await stream(attempt="a" * 32) == first
    assert len(others | {first}) == 4


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
KEYS = st.sampled_from(["start", "exit_code", "output"])
JSON = st.recursive(LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(KEYS, x, max_size=3), max_leaves=5)
FIELDS = st.sampled_from(["tenant", "boot", "type", "run", "code", "pid", "at", "exec", "status", "log", "oom", "body"])
BODIES = st.dictionaries(FIELDS, JSON, max_size=9)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES, type_=st.sampled_from(["started", "exited", "failed", "health", "exec_exited", "x"]))
async def test_hostile_events_are_refused_or_recorded(client: httpx.AsyncClient, body: Any, type_: str) -> None:
    event = {"tenant": TENANT, "boot": "b", "type": type_, **body}
    for call in ("events", "hello", "gone"):
        response = await client.post(f"/internal/v1/links/{'a' * 64}/{call}", json=event, headers=gateway())
        assert response.status_code in {200, 204, 400}
