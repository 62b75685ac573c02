"""Two tenants of one endpoint, and what one of them can do with what belongs to the other: nothing."""

from __future__ import annotations

import json
import time

import httpx
import pytest

from agent_gateway.tickets import mint_agent_token
from tests.hosted.deployment import KEY, Deployment


@pytest.fixture
def theirs(deployment: Deployment, name: str) -> str:
    """The id of a running container of red's."""
    return deployment.connects["red"].out("run", "-d", "-i", "--name", name, "busybox", "sleep", "300")


def _as(deployment: Deployment, tenant: str) -> dict[str, str]:
    return {"authorization": f"Bearer {deployment.tokens[tenant]}"}


def test_names_are_the_tenants_own(deployment: Deployment, name: str) -> None:
    red, blue = deployment.connects["red"], deployment.connects["blue"]
    first = red.out("run", "-d", "--name", name, "busybox", "sleep", "300")
    second = blue.out("run", "-d", "--name", name, "busybox", "sleep", "300")
    assert first != second
    for mine, container, other in ((red, first, second), (blue, second, first)):
        assert mine.out("ps", "-aq", "--no-trunc", "--filter", f"name={name}").split() == [container]
        assert json.loads(mine.out("inspect", name))[0]["Id"] == container
        assert mine.docker("inspect", other).returncode == 1


def test_commands_on_the_others_container(deployment: Deployment, theirs: str) -> None:
    blue = deployment.connects["blue"]
    for reference in (theirs, theirs[:12]):
        for command in (
            ("inspect", "--type", "container"), ("logs",), ("rm", "-f"), ("kill",), ("stop",), ("start",), ("wait",),
            ("attach",), ("top",), ("pause",), ("restart",), ("port",),
        ):  # fmt: skip
            done = blue.docker(*command, reference)
            assert done.returncode != 0 or command == ("rm", "-f"), command  # dockerd's CLI has no error there
            assert b"No such container" in done.stderr, (command, done.stderr)
        assert b"No such container" in blue.docker("exec", reference, "true").stderr
        assert b"No such container" in blue.docker("cp", f"{reference}:/etc/passwd", "-").stderr
    assert deployment.connects["red"].out("inspect", "-f", "{{.State.Running}}", theirs) == "true"


def test_exec_sessions_are_the_tenants_own(deployment: Deployment, theirs: str) -> None:
    with deployment.client() as client:
        red, blue = _as(deployment, "red"), _as(deployment, "blue")
        body = {"Cmd": ["true"]}
        made = client.post(f"/containers/{theirs}/exec", json=body, headers=red)
        assert made.status_code == 201, made.text
        session = made.json()["Id"]
        assert client.get(f"/exec/{session}/json", headers=red).status_code == 200
        assert client.get(f"/exec/{session}/json", headers=blue).status_code == 404
        assert client.post(f"/containers/{theirs}/exec", json=body, headers=blue).status_code == 404


def test_tickets_for_the_others_container(deployment: Deployment, theirs: str) -> None:
    asked = {
        "method": "POST",
        "path": f"/v1.47/containers/{theirs}/attach",
        "query": "stream=1&stdin=1&stdout=1",
        "body": "",
    }
    with deployment.client() as client:
        url = "/internal/v1/tickets"
        assert client.post(url, json=asked, headers=_as(deployment, "red")).status_code == 200
        assert client.post(url, json=asked, headers=_as(deployment, "blue")).status_code == 404
        assert client.post(url, json=asked).status_code == 401


def test_an_agents_token_opens_its_own_link_alone(deployment: Deployment, theirs: str) -> None:
    """Blue's container shows its token under red's id, and as a user's or gateway's token."""
    blues = mint_agent_token(KEY.encode(), "blue", "f" * 64, 600)
    bearer = {"authorization": f"Bearer {blues}"}
    gateway = deployment.gateways[0].url
    with deployment.client() as client:
        call = {"method": "signal", "params": {"signal": "KILL"}}
        assert client.post(f"{gateway}/links/{theirs}/calls", json=call, headers=bearer).status_code == 401
        upgrade = {
            "connection": "upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        assert client.get(f"{gateway}/streams/{theirs}", headers=bearer | upgrade).status_code in {401, 404}
        for user in ("red", "blue"):
            refused = client.get(f"{gateway}/agent/link", headers=_as(deployment, user) | upgrade)
            assert refused.status_code in {401, 404}
        for path in ("/containers/json", "/info", "/internal/v1/status"):
            assert client.get(path, headers=bearer).status_code == 401, path
        body = {"tenant": "red", "boot": "b", "instance": "i", "link": 1}
        hello = f"/internal/v1/links/{theirs}/hello"
        assert client.post(hello, json=body, headers=bearer).status_code == 401
        assert client.post(hello, json=body, headers=_as(deployment, "blue")).status_code in {401, 403}


def test_a_revoked_token_is_refused_everywhere_at_once(deployment: Deployment) -> None:
    made = deployment.sockerless("token", "create", "blue")
    headers = {"authorization": f"Bearer {made}"}
    for plane in deployment.planes:
        assert httpx.get(f"{plane.url}/containers/json", headers=headers, timeout=20).status_code == 200
    deployment.sockerless("token", "revoke", made.split("_")[1])
    for plane in deployment.planes:
        assert httpx.get(f"{plane.url}/containers/json", headers=headers, timeout=20).status_code == 401


def test_events_are_the_tenants_own(deployment: Deployment, name: str) -> None:
    since = f"{time.time():.9f}"
    deployment.connects["red"].out("run", "--rm", "--name", name, "busybox", "true")
    told = deployment.connects["blue"].out("events", "--since", since, "--until", f"{time.time():.9f}")
    assert name not in told
