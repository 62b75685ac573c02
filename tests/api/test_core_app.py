"""What holds for every request: versions, headers, unknown paths, faults."""

from __future__ import annotations

import logging

import pytest

from control_plane.api.http import DockerRequest
from control_plane.app import build_app
from control_plane.errors import NotModified, ServerError, Unauthorized
from control_plane.route import Bound, Matcher, Route
from control_plane.store.base import StoreFull
from control_plane.version import VERSION
from tests.core_fakes import Endpoint, Live

PING = Route("GET", "/_ping", "system.ping")


async def test_ping(endpoint: Endpoint) -> None:
    for path in ("/_ping", "/v1.24/_ping", "/v1.50/_ping"):
        answer = await endpoint.client.get(path)
        assert (answer.status_code, answer.text) == (200, "OK")
        assert answer.headers["api-version"] == "1.50"
        assert answer.headers["docker-experimental"] == "false"
        assert answer.headers["ostype"] == "linux"
        assert answer.headers["server"] == f"Sockerless/{VERSION} (linux)"
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache, no-store, must-revalidate"
    head = await endpoint.client.head("/_ping")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "0")
    assert head.headers["api-version"] == "1.50"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (
            "1.23",
            "client version 1.23 is too old. Minimum supported API version is 1.24, "
            "please upgrade your client to a newer version",
        ),
        ("1.51", "client version 1.51 is too new. Maximum supported API version is 1.50"),
        ("2.0", "client version 2.0 is too new. Maximum supported API version is 1.50"),
        ("1.100", "client version 1.100 is too new. Maximum supported API version is 1.50"),
    ],
)
async def test_versions_out_of_range(endpoint: Endpoint, version: str, message: str) -> None:
    answer = await endpoint.client.get(f"/v{version}/version")
    assert answer.status_code == 400
    if version == "1.23":
        # So old a client prints the body as it is.
        assert answer.text == message + "\n"
    else:
        assert answer.json() == {"message": message}
    assert answer.headers["api-version"] == "1.50"


@pytest.mark.parametrize("version", ["1", "1.", ".", "..", "0", "1" * 40, "1.24.0.0.1" * 5, "9" * 5000])
async def test_malformed_versions_are_400(endpoint: Endpoint, version: str) -> None:
    assert (await endpoint.client.get(f"/v{version}/version")).status_code == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1.50"),
        ("GET", "/v1.50/"),
        ("GET", "/nothing"),
        ("GET", "/v1.50/containers"),
        ("GET", "/vx/version"),
        ("DELETE", "/version"),
        ("POST", "/v1.50/containers/json"),
        ("PATCH", "/containers/a/json"),
    ],
)
async def test_unknown_paths_and_methods_are_mobys_404(endpoint: Endpoint, method: str, path: str) -> None:
    answer = await endpoint.client.request(method, path)
    assert (answer.status_code, answer.json()) == (404, {"message": "page not found"})
    assert answer.headers["content-type"] == "application/json"


async def test_doubled_slashes_are_one(endpoint: Endpoint) -> None:
    container = await endpoint.add("some")
    answer = await endpoint.client.get(f"//v1.50/containers//{container.name}/json".replace("//v", "/v"))
    assert answer.json()["Id"] == container.id


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "/build", 501, "does not build"),
        ("GET", "/containers/x/stats", 501, "stats"),
        ("GET", "/swarm", 503, "not a swarm manager"),
        ("POST", "/containers/x/attach", 501, "front door"),
        ("POST", "/session", 404, "build sessions"),
        ("POST", "/plugins/create", 501, "no plugins"),
    ],
)
async def test_unserved_routes_say_why(endpoint: Endpoint, method: str, path: str, status: int, words: str) -> None:
    answer = await endpoint.client.request(method, path)
    assert answer.status_code == status
    assert words in answer.json()["message"]


def _with_handler(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def fails(request: DockerRequest) -> None:
        raise error

    plain = Matcher.match

    def match(self: Matcher, method: str, path: str) -> tuple[Bound, str] | None:
        found = plain(self, method, path)
        if found is not None:
            found[0].handler = fails  # type: ignore[assignment]
        return found

    monkeypatch.setattr(Matcher, "match", match)


async def test_a_bug_is_a_500_without_internals(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _with_handler(endpoint, monkeypatch, RuntimeError("secret detail"))
    answer = await endpoint.client.get("/version")
    assert answer.status_code == 500
    message = answer.json()["message"]
    assert "secret" not in message
    request_id = message.split()[-1]
    assert request_id in caplog.text
    assert "secret detail" in caplog.text


async def test_docker_errors_keep_status_and_text_and_hide_the_internal_part(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    _with_handler(endpoint, monkeypatch, ServerError("told", internal="kept"))
    answer = await endpoint.client.get("/version")
    assert (answer.status_code, answer.json()) == (500, {"message": "told"})
    assert "kept" in caplog.text


async def test_not_modified_has_no_body(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    _with_handler(endpoint, monkeypatch, NotModified(""))
    answer = await endpoint.client.get("/version")
    assert (answer.status_code, answer.content) == (304, b"")


async def test_a_full_store_is_told(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    _with_handler(endpoint, monkeypatch, StoreFull("the store is full: no space left on device"))
    answer = await endpoint.client.get("/version")
    assert (answer.status_code, answer.json()["message"]) == (500, "the store is full: no space left on device")


async def test_authentication_decides_the_tenant_and_its_refusal_is_dockers(endpoint: Endpoint) -> None:
    seen = []

    async def authenticate(scope: object) -> str:
        seen.append(scope)
        raise Unauthorized("no token")

    live = Live(build_app(endpoint.services, authenticate=authenticate, routes=[PING]), "GET", "/_ping")  # type: ignore[arg-type]
    await live.until(lambda answer: answer.done)
    assert (live.status, live.body) == (401, b'{"message":"no token"}\n')
    assert live.headers["api-version"] == "1.50"
    assert seen


async def test_info_and_version(endpoint: Endpoint) -> None:
    await endpoint.add(state=None)
    info = (await endpoint.client.get("/info")).json()
    assert info["Containers"] == 1
    assert info["ContainersStopped"] == 1
    assert set(info["Runtimes"]) == {"fake", "other"}
    assert info["DefaultRuntime"] == "fake"
    assert info["OSType"] == "linux"
    assert info["Swarm"]["LocalNodeState"] == "inactive"
    assert "BridgeNfIptables" not in info
    assert (await endpoint.client.get("/v1.40/info")).json()["RuncCommit"] == {"ID": "", "Expected": ""}
    version = (await endpoint.client.get("/version")).json()
    assert (version["ApiVersion"], version["MinAPIVersion"], version["Version"]) == ("1.50", "1.24", VERSION)
    assert version["Components"][0]["Name"] == "Engine"


async def test_disk_usage(endpoint: Endpoint) -> None:
    container = await endpoint.add()
    usage = (await endpoint.client.get("/system/df")).json()
    assert usage["LayersSize"] == 4096
    assert usage["Images"][0]["Containers"] == 1
    assert [row["Id"] for row in usage["Containers"]] == [container.id]
    assert usage["Volumes"] == []
    only = (await endpoint.client.get("/system/df?type=volume")).json()
    assert (only["Containers"], only["Volumes"]) == (None, [])
    answer = await endpoint.client.get("/system/df?type=x")
    assert (answer.status_code, answer.json()["message"]) == (400, "unknown object type: x")
