"""Every route of the table, tried by another tenant, by nobody, and with tokens of too small a scope."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.route import Route
from control_plane.routes import ROUTES
from tests.auth_world import CONTAINER, DIGEST, EXEC, IMAGE, NETWORK, Hosted, hosted

QUERY = "until=1&stdout=1&path=/&h=1&w=1&name=taken&repo=taken&t=0&tag=x"
BODIES: dict[str, Any] = {
    "/containers/{id}/exec": {"Cmd": ["true"], "AttachStdout": True},
    "/exec/{id}/start": {"Detach": True},
    "/networks/{id}/connect": {"Container": CONTAINER},
    "/networks/{id}/disconnect": {"Container": CONTAINER, "Force": True},
}
OWNED: dict[str, list[str]] = {
    "containers": [CONTAINER, CONTAINER[:12], CONTAINER[:4], "acme-web", "%2Facme-web"],
    "exec": [EXEC],
    "images": ["acme/app", "acme/app:latest", IMAGE, IMAGE[7:19], f"acme/app@{DIGEST}"],
    "volumes": ["acme-data"],
    "networks": [NETWORK, NETWORK[:12], "acme-net"],
}
NOBODYS: dict[str, list[str]] = {
    "containers": ["b" * 64, "b" * 12, "b" * 4, "nosuch-web", "%2Fnosuch-web"],
    "exec": ["0" * 64],
    "images": ["none/app", "none/app:latest", "sha256:" + "ef" * 32, "ef" * 6, f"none/app@{DIGEST}"],
    "volumes": ["nosuch-data"],
    "networks": ["b" * 64, "b" * 12, "nosuch-net"],
}
KIND_NAMES = sorted({route.path.split("/")[1] for route in ROUTES})
NAMED = [route for route in ROUTES if "{" in route.path and route.path.split("/")[1] in OWNED]
KINDS = {kind: [route for route in ROUTES if route.path.split("/")[1] == kind] for kind in KIND_NAMES}
SCOPES = ("read", "run", "full")


def name(route: Route) -> str:
    return f"{route.method} {route.path}"


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Hosted]:
    async with hosted(tmp_path) as opened:
        yield opened


def filled(route: Route, reference: str) -> str:
    prefix, brace, rest = route.path.partition("{")
    rest = rest.partition("}")[2].replace("{checkpoint}", "c")
    return f"/v1.50{prefix}{reference if brace else ''}{rest}?{QUERY}"


async def send(endpoint: Hosted, route: Route, path: str, who: str) -> httpx.Response:
    """Hijacked requests go the way of hijacks."""
    if route.served_by == "front_door" and not route.handler:
        asked = {"method": route.method, "path": path.partition("?")[0], "query": "stream=1", "body": None}
        return await endpoint.request("POST", "/internal/v1/tickets", who, json=asked)
    bare = route.path in ("/containers/{id}/start", "/containers/{id}/archive")
    if bare or route.method in ("GET", "HEAD", "DELETE"):
        return await endpoint.request(route.method, path, who)
    return await endpoint.request(route.method, path, who, json=BODIES.get(route.path, {}))


@pytest.mark.parametrize("route", NAMED, ids=name)
async def test_another_tenants_things_are_not_there(endpoint: Hosted, route: Route) -> None:
    """The answer is word for word that for what nobody has, and nothing has happened."""
    before = await endpoint.owned("acme")
    kind = route.path.split("/")[1]
    for reference, nothing in zip(OWNED[kind], NOBODYS[kind], strict=True):
        tried = await send(endpoint, route, filled(route, reference), "rival-full")
        absent = await send(endpoint, route, filled(route, nothing), "rival-full")
        assert (tried.status_code, shape(tried, reference)) == (absent.status_code, shape(absent, nothing))
        if route.handler or route.served_by == "front_door":
            assert tried.status_code in (404, 401), tried.text
    assert await endpoint.owned("acme") == before
    assert endpoint.agents.asked == []
    assert (endpoint.cloud.removed, endpoint.places.removed) == ([], [])


def shape(answer: httpx.Response, reference: str) -> str:
    """The text without the reference itself, in each form that it may be told in."""
    text = answer.text
    plain = reference.replace("%2F", "/")
    for form in sorted({plain, plain.lstrip("/"), f"{plain}:latest"}, key=len, reverse=True):
        text = text.replace(form, "…")
    return text


@pytest.mark.parametrize("route", NAMED, ids=name)
async def test_the_owner_finds_them(endpoint: Hosted, route: Route) -> None:
    """The other half: the test above would pass as well if nothing were ever found."""
    kind = route.path.split("/")[1]
    if not route.handler and route.served_by != "front_door":
        pytest.skip("nobody serves it")
    if route.path in ("/containers/{id}/wait", "/containers/{id}/logs") or "archive" in route.path:
        pytest.skip("lasts, or needs an agent")
    path = filled(route, OWNED[kind][0])
    assert (await send(endpoint, route, path, "acme-full")).status_code not in (401, 403, 404)


@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_is_let_in_without_a_token(endpoint: Hosted, kind: str) -> None:
    before = await endpoint.owned("acme")
    for route in KINDS[kind]:
        path = filled(route, OWNED.get(kind, ["x"])[0])
        for token in ("", "skls_" + "0" * 16 + "_" + "A" * 43, "skls_", "x", "eyJhbGciOiJub25lIn0.e30."):
            answer = await endpoint.request(route.method, path, token)
            assert answer.status_code == 401, (route, token)
            assert answer.headers["api-version"] == "1.50"
            assert answer.headers["www-authenticate"] == 'Bearer realm="sockerless"'
            if route.method != "HEAD":
                assert set(answer.json()) == {"message"}
    assert await endpoint.owned("acme") == before


@pytest.mark.parametrize("kind", KINDS)
async def test_scopes_are_those_of_the_table(endpoint: Hosted, kind: str) -> None:
    """With references of nobody, so that what is let through changes nothing."""
    for route in KINDS[kind]:
        path = filled(route, NOBODYS.get(kind, ["x"])[0])
        for rank, scope in enumerate(SCOPES):
            allowed = rank >= SCOPES.index(route.needs)
            answer = await send(endpoint, route, path, f"rival-{scope}")
            assert (answer.status_code == 403) is not allowed, (route, scope, answer.text)
            if not allowed and route.method != "HEAD":
                assert f"scope `{scope}`" in answer.json()["message"]


def test_what_changes_something_is_not_open_to_readers() -> None:
    for route in ROUTES:
        if route.method not in ("GET", "HEAD") or route.path.endswith("/attach/ws"):
            assert route.needs != "read", route
    running = {route.path for route in ROUTES if route.needs == "run"}
    assert {path.split("/")[1] for path in running} == {"auth", "containers", "exec", "images"}
    assert not any("prune" in path for path in running)


async def test_lists_and_counts_are_the_tenants_own(endpoint: Hosted) -> None:
    async def get(path: str, who: str) -> Any:
        answer = await endpoint.request("GET", path, who)
        assert answer.status_code == 200
        return answer.json()

    for who, count in (("acme-full", 1), ("rival-full", 0)):
        assert len(await get("/containers/json?all=1", who)) == count
        assert len(await get("/images/json", who)) == count
        assert len((await get("/volumes", who))["Volumes"]) == count
        assert [network["Name"] for network in await get("/networks", who) if network["Name"] == "acme-net"] == (
            ["acme-net"] if count else []
        )
        usage = await get("/system/df", who)
        assert [len(usage[part]) for part in ("Images", "Containers", "Volumes")] == [count] * 3
        info = await get("/info", who)
        assert (info["Containers"], info["ContainersRunning"], info["Images"]) == (count,) * 3
    for name in ("acme", "hidden", "secret-command"):
        for path in ("/containers/json?all=1", "/images/json", "/volumes", "/networks", "/system/df", "/info"):
            assert name not in (await endpoint.request("GET", path, "rival-full")).text


async def test_filters_do_not_reach_across(endpoint: Hosted) -> None:
    for filters in ('{"name":["acme"]}', '{"volume":["acme-data"]}', '{"network":["acme-net"]}', '{"ancestor":["x"]}'):
        answer = await endpoint.request("GET", "/containers/json", "rival-full", params={"all": 1, "filters": filters})
        assert answer.json() == []
    for reference in ("before", "since"):
        filters = f'{{"{reference}":["acme-web"]}}'
        answer = await endpoint.request("GET", "/containers/json", "rival-full", params={"filters": filters})
        assert (answer.status_code, answer.json()["message"]) == (404, "No such container: acme-web")


async def test_prunes_spare_others(endpoint: Hosted) -> None:
    await endpoint.services.containers.update(
        await endpoint.services.containers.resolve("acme", "acme-web"),
        lambda current: current.model_copy(
            update={"state": current.state.model_copy(update={"status": "exited"}), "agent": None}
        ),
    )
    before = await endpoint.owned("acme")
    everything = {"filters": '{"all":["1"],"dangling":["false"]}'}
    for path, params in (
        ("/containers/prune", {}),
        ("/images/prune", {"filters": '{"dangling":["false"]}'}),
        ("/volumes/prune", {"filters": '{"all":["1"]}'}),
        ("/networks/prune", {}),
        ("/build/prune", everything),
    ):
        answer = await endpoint.request("POST", path, "rival-full", params=params)
        assert answer.status_code == 200, answer.text
        assert "acme" not in answer.text
    assert await endpoint.owned("acme") == before


async def test_events_are_told_to_their_tenant_alone(endpoint: Hosted) -> None:
    renamed = await endpoint.request("POST", f"/containers/{CONTAINER}/rename?name=renamed", "acme-full")
    assert renamed.status_code == 204
    past = {"since": "1", "until": str(int(time.time()) + 1)}
    assert "renamed" in (await endpoint.request("GET", "/events", "acme-full", params=past)).text
    assert (await endpoint.request("GET", "/events", "rival-full", params=past)).text == ""


USES: dict[str, tuple[Any, str, str]] = {
    "image": (lambda name: {"Image": name}, "acme/app", "none/app"),
    "image id": (lambda name: {"Image": name}, IMAGE, "sha256:" + "9" * 64),
    "volumes": (lambda name: {"HostConfig": {"VolumesFrom": [name]}}, "acme-web", "nosuch-web"),
    "network": (lambda name: {"HostConfig": {"NetworkMode": name}}, "acme-net", "nosuch-net"),
    "network id": (lambda name: {"HostConfig": {"NetworkMode": name}}, NETWORK, "9" * 64),
    "namespace": (lambda name: {"HostConfig": {"NetworkMode": f"container:{name}"}}, CONTAINER, "9" * 64),
    "endpoint": (lambda name: {"NetworkingConfig": {"EndpointsConfig": {name: {}}}}, NETWORK, "9" * 64),
}


@pytest.mark.parametrize("use", USES)
async def test_create_does_not_see_what_others_have(endpoint: Hosted, use: str) -> None:
    body, owned, nothing = USES[use]
    other = "sha256:" + "12" * 32
    await endpoint.keep_image("rival", f"own/app@{DIGEST}", tags=("own/app:latest",), id=other)
    seen = []
    for reference in (owned, nothing):
        created = await endpoint.request(
            "POST", "/containers/create", "rival-full", json={"Image": "own/app", **body(reference)}
        )
        shown = ""
        if created.status_code == 201:
            shown = str((await endpoint.services.containers.list("rival"))[-1].networking)
            assert await endpoint.services.containers.records.delete("rival", created.json()["Id"])
        else:
            shown = shape(created, reference)
        seen.append((created.status_code, shown.replace(reference, "…")))
    assert seen[0] == seen[1]


async def test_names_and_volumes_are_each_tenants_own(endpoint: Hosted) -> None:
    await endpoint.keep_image("rival", f"own/app@{DIGEST}", tags=("own/app:latest",))
    body = {"Image": "own/app", "HostConfig": {"Binds": ["acme-data:/data"]}}
    made = await endpoint.request("POST", "/containers/create?name=acme-web", "rival-full", json=body)
    assert made.status_code == 201, made.text
    inspected = (await endpoint.request("GET", "/containers/acme-web/json", "rival-full")).json()
    assert inspected["Id"] == made.json()["Id"] != CONTAINER
    assert inspected["Mounts"][0]["Source"] == "gs://bucket/volumes/rival/acme-data"
    kept = (await endpoint.request("GET", "/containers/acme-web/json", "acme-full")).json()
    assert kept["Id"] == CONTAINER
    assert (await endpoint.request("DELETE", "/containers/acme-web?v=1", "rival-full")).status_code == 204
    assert (await endpoint.request("DELETE", "/volumes/acme-data", "rival-full")).status_code == 204
    assert (await endpoint.request("GET", "/volumes/acme-data", "acme-full")).status_code == 200


@pytest.mark.parametrize("call", ["hello", "events", "gone", "token"])
async def test_an_agent_of_another_tenant_does_not_reach_a_container(endpoint: Hosted, call: str) -> None:
    before = await endpoint.owned("acme")
    body = {"tenant": "rival", "boot": "boot1", "type": "exited", "seq": 9, "run": 1, "code": 0, "at": "x"}
    answers = []
    for container in (CONTAINER, "b" * 64):
        answer = await endpoint.client.post(
            f"/internal/v1/links/{container}/{call}", json=body, headers=endpoint.gateway
        )
        answers.append((answer.status_code, answer.text.replace(container, "…")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404 if call == "token" else "spec" not in answers[0][1]
    assert await endpoint.owned("acme") == before


@pytest.mark.parametrize("call", ["tickets", "links/x/hello", "links/x/events", "links/x/gone", "links/x/token"])
async def test_gateways_calls_are_not_open_to_users(endpoint: Hosted, call: str) -> None:
    for who in ("", "x", "acme-full"):
        answer = await endpoint.request("POST", f"/internal/v1/{call}", who, json={"tenant": "acme", "boot": "b"})
        assert answer.status_code == (400 if (call, who) == ("tickets", "acme-full") else 401)
