"""Names and prefixes, inspect, rename, update."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.model import Health, RunState
from tests.core_fakes import Endpoint

RUNNING = RunState(status="running", run=1, pid=7, started_at="2026-01-01T00:00:00Z")


@pytest.mark.parametrize("reference", ["{id}", "{name}", "/{name}", "{prefix}"])
async def test_every_way_to_name_a_container(endpoint: Endpoint, reference: str) -> None:
    container = await endpoint.add("box")
    await endpoint.add("other")
    path = reference.format(id=container.id, name=container.name, prefix=container.id[:12])
    answer = await endpoint.client.get(f"/containers/{path}/json")
    assert answer.json()["Id"] == container.id


async def test_names_come_before_prefixes(endpoint: Endpoint) -> None:
    first = await endpoint.add("one")
    named_like_a_prefix = await endpoint.add(first.id[:12])
    answer = await endpoint.client.get(f"/containers/{first.id[:12]}/json")
    assert answer.json()["Id"] == named_like_a_prefix.id


async def test_references_that_fit_none_or_several(endpoint: Endpoint) -> None:
    await endpoint.add(id="ab" + "0" * 62)
    await endpoint.add(id="ac" + "0" * 62)
    several = await endpoint.client.get("/containers/a/json")
    assert (several.status_code, several.json()["message"]) == (400, "multiple IDs found with provided prefix: a")
    for reference in ("absent", "ab1", "/ab", "A", "a%25"):
        none = await endpoint.client.get(f"/containers/{reference}/json")
        if reference != "/ab":
            assert none.status_code == 404
            assert none.json()["message"] == f"No such container: {reference.replace('%25', '%')}"


async def test_containers_of_other_tenants_are_not_there(endpoint: Endpoint) -> None:
    other = await endpoint.add("box", tenant="other")
    assert (await endpoint.client.get("/containers/box/json")).status_code == 404
    assert (await endpoint.client.get(f"/containers/{other.id}/json")).status_code == 404
    assert (await endpoint.client.get("/containers/json?all=1")).json() == []


async def test_inspect_follows_the_state(endpoint: Endpoint) -> None:
    container = await endpoint.add(state=RUNNING)
    path = f"/containers/{container.id}/json"
    state = (await endpoint.client.get(path)).json()["State"]
    assert state == {
        "Status": "running",
        "Running": True,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": 7,
        "ExitCode": 0,
        "Error": "",
        "StartedAt": "2026-01-01T00:00:00Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    }
    await endpoint.set_state(container, status="exited", exit_code=3, finished_at="2026-01-01T00:01:00Z")
    state = (await endpoint.client.get(path)).json()["State"]
    assert (state["Status"], state["Running"], state["ExitCode"], state["Pid"]) == ("exited", False, 3, 0)
    await endpoint.set_state(container, status="running", health=Health(status="healthy", failing_streak=0))
    assert (await endpoint.client.get(path)).json()["State"]["Health"]["Status"] == "healthy"


async def test_inspect_shows_execs_that_have_not_ended(endpoint: Endpoint) -> None:
    container = await endpoint.add()
    path = f"/containers/{container.id}/json"
    assert (await endpoint.client.get(path)).json()["ExecIDs"] is None
    for key, status, where in (("e1", "running", container.id), ("e2", "exited", container.id), ("e3", "created", "x")):
        await endpoint.store.create("execs", "default", key, {"container": where, "status": status})
    assert (await endpoint.client.get(path)).json()["ExecIDs"] == ["e1"]


async def test_a_users_text_is_not_taken_for_a_field(endpoint: Endpoint) -> None:
    labels = {"a": '"ExecIDs":null', "b": '"Status":"Up"', "c": "\x00"}
    config = {"Cmd": ['"ExecIDs":'], "Labels": labels, "Image": "busybox"}
    container = await endpoint.add(labels=labels, config=config)
    shown = (await endpoint.client.get(f"/containers/{container.id}/json")).json()
    assert (shown["ExecIDs"], shown["Config"]["Labels"], shown["Args"]) == (None, labels, [])
    (line,) = (await endpoint.client.get("/containers/json?all=1")).json()
    assert (line["Labels"], line["Status"], line["Image"]) == (labels, "Created", "busybox")


async def test_size_adds_the_two_fields(endpoint: Endpoint) -> None:
    container = await endpoint.add()
    shown = (await endpoint.client.get(f"/containers/{container.id}/json?size=1")).json()
    assert (shown["SizeRw"], shown["SizeRootFs"]) == (0, 0)


async def test_rename(endpoint: Endpoint) -> None:
    container = await endpoint.add("old")
    answer = await endpoint.client.post("/containers/old/rename?name=/new")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await endpoint.client.get("/containers/new/json")).json()["Name"] == "/new"
    assert (await endpoint.client.get("/containers/old/json")).status_code == 404
    await endpoint.add("old")
    assert [document.key for document in await endpoint.store.list("names", "default")] == ["new", "old"]
    await endpoint.events.close()
    (document,) = await endpoint.store.list("events", "default")
    (event,) = document.body["events"]
    assert (event["action"], event["actor"]) == ("rename", container.id)
    assert (event["attributes"]["name"], event["attributes"]["oldName"]) == ("new", "/old")


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("", 400, "Neither old nor new names may be empty"),
        ("box", 400, "Renaming a container with the same name as its current name"),
        ("/box", 400, "Renaming a container with the same name as its current name"),
        ("taken", 409, 'Error when allocating new name: Conflict. The container name "/taken" is already in use'),
        ("a b", 400, "Error when allocating new name: Invalid container name (/a b), only"),
    ],
)
async def test_renames_refused(endpoint: Endpoint, name: str, status: int, message: str) -> None:
    await endpoint.add("box")
    await endpoint.add("taken")
    answer = await endpoint.client.post("/containers/box/rename", params={"name": name})
    assert answer.status_code == status
    assert answer.json()["message"].startswith(message)
    assert (await endpoint.client.get("/containers/box/json")).status_code == 200


HOST: dict[str, Any] = {"NetworkMode": "bridge", "AutoRemove": False, "Memory": 0, "MemorySwap": 0, "NanoCpus": 0}


async def test_update_of_a_stopped_container(endpoint: Endpoint) -> None:
    container = await endpoint.add(host_config=HOST)
    body = {"Memory": 1 << 28, "MemorySwap": 1 << 29, "NanoCpus": 500_000_000, "RestartPolicy": {"Name": "always"}}
    answer = await endpoint.client.post(f"/containers/{container.id}/update", json=body)
    assert (answer.status_code, answer.json()) == (200, {"Warnings": None})
    host = (await endpoint.containers.resolve("default", container.id)).host_config
    assert (host["Memory"], host["NanoCpus"], host["RestartPolicy"]["Name"]) == (1 << 28, 500_000_000, "always")
    assert host["NetworkMode"] == "bridge"
    assert endpoint.backend.checked[-1].host_config["Memory"] == 1 << 28


async def test_a_running_container_keeps_its_size_and_changes_its_policy(endpoint: Endpoint) -> None:
    container = await endpoint.add(host_config=HOST, state=RUNNING)
    path = f"/containers/{container.id}/update"
    answer = await endpoint.client.post(path, json={"Memory": 1 << 28, "MemorySwap": -1})
    assert answer.status_code == 501
    assert "does not resize a running container" in answer.json()["message"]
    assert (await endpoint.client.post(path, json={"RestartPolicy": {"Name": "no"}})).status_code == 200
    assert (await endpoint.containers.resolve("default", container.id)).host_config["Memory"] == 0


@pytest.mark.parametrize(
    ("host", "body", "message"),
    [
        ({}, {"Memory": 1}, "Minimum memory limit allowed is 6MB"),
        ({}, {"Memory": 1 << 28}, "Memory limit should be smaller than already set memoryswap limit"),
        ({"AutoRemove": True}, {"RestartPolicy": {"Name": "always"}}, "because AutoRemove is enabled"),
        ({"CpuQuota": 5000}, {"NanoCpus": 1}, "Nano CPUs cannot be updated as CPU Quota has already been set"),
        ({}, {"RestartPolicy": {"Name": "x"}}, "unknown policy"),
    ],
)
async def test_updates_refused(endpoint: Endpoint, host: dict[str, Any], body: dict[str, Any], message: str) -> None:
    container = await endpoint.add(host_config={**HOST, **host})
    answer = await endpoint.client.post(f"/containers/{container.id}/update", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["message"]
