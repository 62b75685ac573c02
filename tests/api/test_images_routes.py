"""Images, volumes, networks and logins over the API: statuses, streams, wire forms."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import orjson
import pytest

from control_plane.app import build_app
from control_plane.services.bundle import Services
from control_plane.services.containers import Containers
from control_plane.services.networks import Networks
from control_plane.services.volumes import Volumes
from tests import images as made
from tests.image_world import World, image_world, publish
from tests.unit.test_volumes_rules import Storage


@pytest.fixture(params=[""])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with image_world(tmp_path, request.param) as running:
        yield running


@pytest.fixture
async def api(world: World) -> AsyncIterator[httpx.AsyncClient]:
    services = SimpleNamespace(
        images=world.images,
        volumes=Volumes(world.store, Storage(), world.events),
        networks=Networks(world.store, Containers(world.store), world.events),
    )
    app = build_app(cast(Services, services))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://docker") as client:
        yield client


def _lines(response: httpx.Response) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in response.content.split(b"\r\n") if line]


async def _pull(api: httpx.AsyncClient, name: str, tag: str = "", **headers: str) -> httpx.Response:
    return await api.post("/v1.47/images/create", params={"fromImage": name, "tag": tag}, headers=headers)


async def test_a_pull_streams_and_is_listed(world: World, api: httpx.AsyncClient) -> None:
    described = publish(world.upstream, "a/b", "1")
    name = f"{world.upstream.host}/a/b"
    response = await _pull(api, name, "1")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert _lines(response)[-1] == {"status": f"Status: Downloaded newer image for {name}:1"}
    assert [row["RepoTags"] for row in (await api.get("/images/json")).json()] == [[f"{name}:1"]]
    assert (await api.get(f"/images/{name}:1/json")).json()["Id"] == described["config"]
    assert (await api.get(f"/images/{name}:1/history")).status_code == 200
    tagged = await api.post(f"/images/{name}:1/tag", params={"repo": "x", "tag": "y"})
    assert (tagged.status_code, tagged.content) == (201, b"")
    assert (await api.delete("/images/x:y")).json() == [{"Untagged": "x:y"}]
    by_digest = await _pull(api, name, described["digest"])
    assert _lines(by_digest)[0]["id"] == f"{name}@{described['digest']}"
    assert (await api.post("/images/prune", params={"filters": '{"dangling":["false"]}'})).json()["SpaceReclaimed"] > 0


@pytest.mark.parametrize(
    ("parameters", "status", "message"),
    [
        ({"fromImage": "Foo"}, 400, "invalid reference format: repository name (library/Foo) must be lowercase"),
        ({"fromImage": "a", "tag": "b c"}, 400, "invalid tag format"),
        ({"fromImage": "scratch", "tag": "1"}, 403, "'scratch' is a reserved name"),
        ({"fromImage": "a", "tag": "1", "platform": "a/b/c/d"}, 400, "cannot parse platform specifier"),
        ({"fromImage": "127.0.0.1:1/a", "tag": "1"}, 500, "connect: connection refused"),
        ({"fromSrc": "-"}, 501, "does not import"),
    ],
)
async def test_a_pull_is_refused_before_it_streams(
    api: httpx.AsyncClient, parameters: dict[str, str], status: int, message: str
) -> None:
    response = await api.post("/images/create", params=parameters)
    assert response.status_code == status
    assert message in response.json()["message"]


async def test_a_fault_after_the_first_line_is_the_last_line(world: World, api: httpx.AsyncClient) -> None:
    described = publish(world.upstream, "a", "1")
    world.upstream.corrupt.add(described["layers"][0])
    response = await _pull(api, f"{world.upstream.host}/a", "1")
    assert response.status_code == 200
    last = _lines(response)[-1]
    assert last["error"] == last["errorDetail"]["message"]
    assert last["error"].startswith("filesystem layer verification failed")


async def test_an_archive_is_loaded(api: httpx.AsyncClient) -> None:
    response = await api.post("/images/load", content=made.scratch())
    assert _lines(response) == [{"stream": "Loaded image: single:latest\n"}]
    verbose = await api.post("/images/load", params={"quiet": "0"}, content=made.scratch("other:1"))
    assert _lines(verbose)[-1] == {"stream": "Loaded image: other:1\n"}
    broken = await api.post("/images/load", content=b"no tar")
    assert broken.status_code == 200
    assert "errorDetail" in _lines(broken)[-1]
    platform = {"platform": '{"os":"linux"}'}
    assert (await api.post("/v1.48/images/load", params=platform, content=b"")).status_code == 400


@pytest.mark.parametrize("world", ["basic", "bearer"], indirect=True)
async def test_a_login_is_checked_and_used(world: World, api: httpx.AsyncClient) -> None:
    publish(world.upstream, "a", "1")
    host = world.upstream.host
    login = {"username": "user", "password": "secret", "serveraddress": host}
    answer = await api.post("/auth", json=login)
    assert (answer.status_code, answer.json()) == (200, {"Status": "Login Succeeded", "IdentityToken": ""})
    wrong = await api.post("/auth", json={**login, "password": "wrong"})
    assert wrong.status_code == 401
    header = base64.urlsafe_b64encode(orjson.dumps(login)).decode()
    assert (await _pull(api, f"{host}/a", "1", **{"X-Registry-Auth": header})).status_code == 200
    refused = await _pull(api, f"{host}/a", "1", **{"X-Registry-Auth": "e30="})
    assert refused.status_code in {404, 500}


async def test_volumes(api: httpx.AsyncClient) -> None:
    created = await api.post("/volumes/create", json={"Name": "data", "Labels": {"a": "b"}})
    assert (created.status_code, created.json()["Name"]) == (201, "data")
    assert (await api.get("/volumes")).json()["Volumes"] == [created.json()]
    assert (await api.get("/volumes/data")).json() == created.json()
    assert (await api.get("/volumes/nosuch")).json() == {"message": "get nosuch: no such volume"}
    assert (await api.post("/v1.47/volumes/prune")).json() == {"VolumesDeleted": [], "SpaceReclaimed": 0}
    assert (await api.post("/v1.41/volumes/prune")).json()["VolumesDeleted"] == ["data"]
    assert (await api.delete("/volumes/data", params={"force": "1"})).status_code == 204
    assert (await api.delete("/volumes/data")).status_code == 404
    cluster = await api.post("/volumes/create", json={"Name": "x1", "ClusterVolumeSpec": {}})
    assert cluster.status_code == 503


async def test_networks(api: httpx.AsyncClient) -> None:
    created = await api.post("/networks/create", json={"Name": "web", "IPAM": {"Config": [{"Subnet": "10.1.0.0/16"}]}})
    assert created.status_code == 201
    assert created.json() == {"Id": created.json()["Id"], "Warning": ""}
    shown = (await api.get("/networks/web")).json()
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.1"}]
    assert shown["Containers"] == {}
    listed = (await api.get("/networks", params={"filters": '{"name":{"web":true}}'})).json()
    assert [one["Id"] for one in listed] == [created.json()["Id"]]
    missing = await api.post("/networks/web/connect", json={"Container": "nosuch"})
    assert (missing.status_code, missing.json()["message"]) == (404, "No such container: nosuch")
    assert (await api.post("/networks/web/disconnect", json={"Container": "nosuch"})).status_code == 404
    assert (await api.delete("/networks/host")).status_code == 403
    assert (await api.delete("/networks/web")).status_code == 204
    assert (await api.post("/networks/prune")).json() == {"NetworksDeleted": None}
    wrong = await api.post("/networks/create", json={"Name": "x", "IPAM": {"Config": "no"}})
    assert wrong.status_code == 400
