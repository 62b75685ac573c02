from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from control_plane.backends.base import Capabilities
from control_plane.compatibility import document
from control_plane.route import Matcher, Route, resolve
from control_plane.routes import ROUTES
from control_plane.version import VERSION

API_150 = """
GET /containers/json|POST /containers/create|GET /containers/{}/json|GET /containers/{}/top|GET /containers/{}/logs
GET /containers/{}/changes|GET /containers/{}/export|GET /containers/{}/stats|POST /containers/{}/resize
POST /containers/{}/start|POST /containers/{}/stop|POST /containers/{}/restart|POST /containers/{}/kill
POST /containers/{}/update|POST /containers/{}/rename|POST /containers/{}/pause|POST /containers/{}/unpause
POST /containers/{}/attach|GET /containers/{}/attach/ws|POST /containers/{}/wait|DELETE /containers/{}
HEAD /containers/{}/archive|GET /containers/{}/archive|PUT /containers/{}/archive|POST /containers/prune
GET /images/json|POST /build|POST /build/prune|POST /images/create|GET /images/{}/json|GET /images/{}/history
POST /images/{}/push|POST /images/{}/tag|DELETE /images/{}|GET /images/search|POST /images/prune|POST /auth|GET /info
GET /version|GET /_ping|HEAD /_ping|POST /commit|GET /events|GET /system/df|GET /images/{}/get|GET /images/get
POST /images/load|POST /containers/{}/exec|POST /exec/{}/start|POST /exec/{}/resize|GET /exec/{}/json|GET /volumes
POST /volumes/create|GET /volumes/{}|PUT /volumes/{}|DELETE /volumes/{}|POST /volumes/prune|GET /networks
GET /networks/{}|DELETE /networks/{}|POST /networks/create|POST /networks/{}/connect|POST /networks/{}/disconnect
POST /networks/prune|GET /plugins|GET /plugins/privileges|POST /plugins/pull|GET /plugins/{}/json|DELETE /plugins/{}
POST /plugins/{}/enable|POST /plugins/{}/disable|POST /plugins/{}/upgrade|POST /plugins/create|POST /plugins/{}/push
POST /plugins/{}/set|GET /nodes|GET /nodes/{}|DELETE /nodes/{}|POST /nodes/{}/update|GET /swarm|POST /swarm/init
POST /swarm/join|POST /swarm/leave|POST /swarm/update|GET /swarm/unlockkey|POST /swarm/unlock|GET /services
POST /services/create|GET /services/{}|DELETE /services/{}|POST /services/{}/update|GET /services/{}/logs|GET /tasks
GET /tasks/{}|GET /tasks/{}/logs|GET /secrets|POST /secrets/create|GET /secrets/{}|DELETE /secrets/{}
POST /secrets/{}/update|GET /configs|POST /configs/create|GET /configs/{}|DELETE /configs/{}|POST /configs/{}/update
GET /distribution/{}/json|POST /session
"""


def test_every_route_of_the_api_is_in_the_table() -> None:
    table = {f"{route.method} {re.sub('{.*?}', '{}', route.path)}" for route in ROUTES}
    wanted = {line for line in re.split(r"[|\n]", API_150) if line}
    assert len(wanted) == 107
    assert wanted - table == set()


def test_no_route_is_twice_in_the_table() -> None:
    places = [(route.method, re.sub("{.*?}", "{}", route.path)) for route in ROUTES]
    assert len(places) == len(set(places))


def test_a_route_is_either_served_or_refused_with_a_reason() -> None:
    for route in ROUTES:
        assert bool(route.handler) != bool(route.reason), route
        assert route.served_by == "nobody" or route.handler or route.served_by == "front_door", route


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    return Matcher([Route(route.method, route.path, reason="x") for route in ROUTES])


@pytest.mark.parametrize(
    ("method", "path", "route", "value"),
    [
        ("GET", "/containers/json", "/containers/json", ""),
        ("GET", "/containers/a/json", "/containers/{id}/json", "a"),
        ("GET", "/containers/a/b/json", "/containers/{id}/json", "a/b"),
        ("GET", "/containers/json/json", "/containers/{id}/json", "json"),
        ("DELETE", "/containers/json", "/containers/{id}", "json"),
        ("GET", "/containers/a/attach/ws", "/containers/{id}/attach/ws", "a"),
        ("DELETE", "/containers/a/checkpoints/c", "/containers/{id}/checkpoints/{checkpoint}", "a/checkpoints/c"),
        ("GET", "/images/ghcr.io:5000/a/b:1@sha256:2/json", "/images/{name}/json", "ghcr.io:5000/a/b:1@sha256:2"),
        ("GET", "/images/search", "/images/search", ""),
        ("GET", "/images/get", "/images/get", ""),
        ("GET", "/images/get/get", "/images/{name}/get", "get"),
        ("DELETE", "/images/a/b", "/images/{name}", "a/b"),
        ("GET", "/networks/", "/networks/", ""),
        ("GET", "/volumes/v", "/volumes/{name}", "v"),
    ],
)
def test_paths_find_their_route(matcher: Matcher, method: str, path: str, route: str, value: str) -> None:
    found = matcher.match(method, path)
    assert found is not None
    assert (found[0].route.path, found[1]) == (route, value)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", ""),
        ("GET", "/containers"),
        ("GET", "/containers/json/"),
        ("GET", "/containers//json"),
        ("POST", "/containers/json"),
        ("PATCH", "/containers/a/json"),
        ("GET", "/internal/v1/tickets"),
    ],
)
def test_other_paths_find_none(matcher: Matcher, method: str, path: str) -> None:
    assert matcher.match(method, path) is None


@pytest.mark.parametrize("route", [route for route in ROUTES if route.handler], ids=lambda route: route.handler)
def test_every_handler_is_there(route: Route) -> None:
    assert callable(resolve(route))


def test_the_version_told_is_the_distributions() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


def test_the_compatibility_page_names_every_route_and_refusal() -> None:
    page = document([Capabilities("b", "B", 7200, {"HostConfig.Privileged": "why | not"})])
    for route in ROUTES:
        assert f"`{route.method} {route.path}`" in page
    assert "why \\| not" in page
