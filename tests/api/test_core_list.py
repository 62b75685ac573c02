"""`docker ps`: order, filters, status texts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from control_plane.model import Health, Mount, Published, RunState
from control_plane.timestamps import rfc3339
from tests.core_fakes import IMAGE_ID, Endpoint, image


def _ago(seconds: float) -> str:
    return rfc3339(time.time_ns() - int(seconds * 1e9))


def running(**fields: Any) -> RunState:
    return RunState(**{"status": "running", "run": 1, "started_at": _ago(5.5), **fields})


def exited(code: int, **fields: Any) -> RunState:
    times = {"started_at": _ago(100), "finished_at": _ago(90.5)}
    return RunState(**{"status": "exited", "run": 1, "exit_code": code, **times, **fields})


async def names(endpoint: Endpoint, query: str = "", **filters: Any) -> list[str]:
    if filters:
        query += f"{'&' if query else '?'}filters={quote(orjson.dumps(filters))}"
    answer = await endpoint.client.get(f"/containers/json{query}")
    assert answer.status_code == 200, answer.text
    return [line["Names"][0].removeprefix("/") for line in answer.json()]


async def test_an_empty_list(endpoint: Endpoint) -> None:
    assert (await endpoint.client.get("/containers/json")).text == "[]\n"


async def test_a_line(endpoint: Endpoint) -> None:
    container = await endpoint.add(
        "box",
        state=running(),
        labels={"l": "1"},
        config={"Cmd": ["a b", "c"], "Entrypoint": ["/e"], "Image": "busybox", "ExposedPorts": {"80/tcp": {}}},
    )
    (line,) = (await endpoint.client.get("/containers/json")).json()
    assert line == {
        "Id": container.id,
        "Names": ["/box"],
        "Image": "busybox",
        "ImageID": IMAGE_ID,
        "Command": "/e 'a b' c",
        "Created": int(line["Created"]),
        "Ports": [{"PrivatePort": 80, "Type": "tcp"}],
        "Labels": {"l": "1"},
        "State": "running",
        "Status": "Up 5 seconds",
        "HostConfig": {"NetworkMode": "bridge"},
        "NetworkSettings": {"Networks": {"bridge": {"NetworkID": "n" * 64, "Aliases": None, "DNSNames": None}}},
        "Mounts": [],
    }


@pytest.mark.parametrize(
    ("state", "word", "text"),
    [
        (lambda: RunState(), "created", "Created"),
        (lambda: RunState(status="starting", run=1), "created", "Created"),
        (
            lambda: RunState(status="starting", run=2, started_at=_ago(9), finished_at=_ago(5.5)),
            "exited",
            "Exited (0) ",
        ),
        (lambda: running(), "running", "Up 5 seconds"),
        (lambda: running(started_at=_ago(3700)), "running", "Up About an hour"),
        (lambda: running(health=Health()), "running", "Up 5 seconds (health: starting)"),
        (lambda: running(health=Health(status="unhealthy")), "running", "Up 5 seconds (unhealthy)"),
        (lambda: running(status="paused"), "paused", "Up 5 seconds (Paused)"),
        (
            lambda: running(status="restarting", exit_code=2, finished_at=_ago(1.2)),
            "restarting",
            "Restarting (2) 1 second ago",
        ),
        (lambda: exited(137), "exited", "Exited (137) About a minute ago"),
        (lambda: exited(0, status="removing"), "removing", "Removal In Progress"),
        (lambda: exited(0, status="dead"), "dead", "Dead"),
    ],
)
async def test_states_in_dockers_words(endpoint: Endpoint, state: Callable[[], RunState], word: str, text: str) -> None:
    await endpoint.add(state=state())
    (line,) = (await endpoint.client.get("/containers/json?all=1")).json()
    assert line["State"] == word
    assert line["Status"].startswith(text)


async def test_running_ones_only_the_newest_first_unless_all_or_limit(endpoint: Endpoint) -> None:
    await endpoint.add("a", state=running())
    await endpoint.add("b", state=exited(0))
    await endpoint.add("c", state=running(status="paused"))
    await endpoint.add("d")
    assert await names(endpoint) == ["c", "a"]
    assert await names(endpoint, "?all=1") == ["d", "c", "b", "a"]
    assert await names(endpoint, "?all=true&limit=2") == ["d", "c"]
    assert await names(endpoint, "?limit=3") == ["d", "c", "b"]
    assert await names(endpoint, "?limit=-1") == ["c", "a"]
    assert (await endpoint.client.get("/containers/json?limit=x")).status_code == 400


async def test_the_list_follows_each_change(endpoint: Endpoint) -> None:
    container = await endpoint.add("a", state=running())
    assert await names(endpoint) == ["a"]
    await endpoint.client.post("/containers/a/rename?name=b2")
    assert await names(endpoint) == ["b2"]
    await endpoint.set_state(container, status="exited", finished_at=_ago(1))
    assert await names(endpoint) == []
    await endpoint.containers.records.delete("default", container.id)
    assert await names(endpoint, "?all=1") == []


async def test_filters(endpoint: Endpoint) -> None:
    a = await endpoint.add("web_1", state=running(health=Health(status="healthy")), labels={"app": "web", "x": ""})
    b = await endpoint.add("web_2", state=exited(1), labels={"app": "web"})
    c = await endpoint.add("db", state=exited(0), labels={"app": "db"})
    d = await endpoint.add("new")
    everything = "?all=1"
    assert await names(endpoint, everything, name=["web"]) == ["web_2", "web_1"]
    assert await names(endpoint, everything, name=["^/web_1$"]) == ["web_1"]
    assert await names(endpoint, everything, name=["^db$", "1$"]) == ["db", "web_1"]
    assert await names(endpoint, everything, name=["("]) == []
    assert await names(endpoint, everything, id=[a.id[:10], c.id]) == ["db", "web_1"]
    assert await names(endpoint, everything, label=["app=web"]) == ["web_2", "web_1"]
    assert await names(endpoint, everything, label=["app=web", "x"]) == ["web_1"]
    assert await names(endpoint, everything, status=["exited"]) == ["db", "web_2"]
    assert await names(endpoint, status=["created", "running"]) == ["new", "web_1"]
    assert await names(endpoint, everything, exited=["1"]) == ["web_2"]
    assert await names(endpoint, everything, exited=["0"]) == ["db"]
    assert await names(endpoint, everything, health=["healthy"]) == ["web_1"]
    assert await names(endpoint, everything, health=["none"]) == ["new", "db", "web_2"]
    assert await names(endpoint, everything, before=["db"]) == ["web_2", "web_1"]
    assert await names(endpoint, everything, since=[b.id]) == ["new", "db"]
    assert await names(endpoint, everything, before=["new"], since=["web_1"]) == ["db", "web_2"]
    assert await names(endpoint, everything, **{"is-task": ["true"]}) == []
    assert len(await names(endpoint, everything, **{"is-task": ["0"]})) == 4
    assert await names(endpoint, everything, isolation=["hyperv"]) == []
    assert await names(endpoint, everything, label=["app"], status=["exited"], exited=["0"]) == ["db"]
    assert await names(endpoint, everything, label={"app=web": True, "x": True}) == ["web_1"]
    assert d.name == "new"


async def test_filters_by_what_a_container_uses(endpoint: Endpoint) -> None:
    endpoint.images.known["other"] = image().model_copy(update={"id": "sha256:" + "9" * 64})
    volume = Mount(type="volume", name="data", source="gs://x", destination="/data")
    bind = Mount(type="bind", source="/host", destination="/b")
    await endpoint.add("a", state=running(), mounts=[volume], config={"ExposedPorts": {"8080/tcp": {}, "53/udp": {}}})
    await endpoint.add("b", state=running(), mounts=[bind], networking={"mine": {"NetworkID": "abc"}})
    await endpoint.add("c", state=running(), image="other", image_id="sha256:" + "9" * 64)
    assert await names(endpoint, volume=["data"]) == ["a"]
    assert await names(endpoint, volume=["/data"]) == ["a"]
    assert await names(endpoint, volume=["/host"]) == ["b"]
    assert await names(endpoint, volume=["gs://x"]) == []
    assert await names(endpoint, network=["mine"]) == ["b"]
    assert await names(endpoint, network=["ab"]) == ["b"]
    assert await names(endpoint, network=["bridge"]) == ["c", "a"]
    assert await names(endpoint, ancestor=["busybox"]) == ["b", "a"]
    assert await names(endpoint, ancestor=["other", "absent"]) == ["c"]
    assert await names(endpoint, ancestor=["absent"]) == []
    assert await names(endpoint, expose=["8080"]) == ["a"]
    assert await names(endpoint, expose=["50-60/udp"]) == ["a"]
    assert await names(endpoint, expose=["53/tcp"]) == []
    assert await names(endpoint, publish=["8080"]) == []
    at = {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "90"}]}
    await endpoint.add("d", state=running(), published=Published(publication="p", ports=at))
    await endpoint.add("e", published=Published(publication="p", ports=at))
    assert await names(endpoint, "?all=1", publish=["90"]) == ["d"]
    assert await names(endpoint, publish=["8080"]) == []
    assert await names(endpoint, expose=["8080"]) == ["d", "a"]


@pytest.mark.parametrize(
    ("filters", "status", "message"),
    [
        ({"nothing": ["x"]}, 400, "invalid filter 'nothing'"),
        ({"status": ["x"]}, 400, "invalid filter 'status=x': invalid value for state (x): must be one of created,"),
        ({"health": ["x"]}, 400, "invalid filter 'health=x': invalid value for health (x): must be one of none,"),
        ({"exited": ["x"]}, 400, "invalid filter 'exited=x'"),
        ({"is-task": ["x"]}, 400, "invalid filter 'is-task=[x]'"),
        ({"before": ["absent"]}, 404, "No such container: absent"),
        ({"since": ["absent"]}, 404, "No such container: absent"),
        ({"publish": ["80:80"]}, 400, "filter for 'publish' should not contain ':': 80:80"),
        ({"expose": ["x"]}, 400, "error while looking up for expose x"),
        ({"name": "text"}, 400, "invalid filter"),
        ([], 400, "invalid filter"),
    ],
)
async def test_wrong_filters(endpoint: Endpoint, filters: Any, status: int, message: str) -> None:
    answer = await endpoint.client.get("/containers/json", params={"filters": orjson.dumps(filters).decode()})
    assert answer.status_code == status
    assert answer.json()["message"].startswith(message)


async def test_a_costly_expression_costs_nothing(endpoint: Endpoint) -> None:
    await endpoint.add("a" * 64 + "_", state=running())
    assert await names(endpoint, name=["(a+)+$"]) == []
    assert await names(endpoint, name=["^/(a|a)*_$"]) == ["a" * 64 + "_"]


async def test_a_moved_tag_shows_the_id_the_container_was_made_of(endpoint: Endpoint) -> None:
    await endpoint.add(state=running())
    endpoint.images.known["busybox"] = image().model_copy(update={"id": "sha256:" + "9" * 64})
    (line,) = (await endpoint.client.get("/containers/json")).json()
    assert (line["Image"], line["ImageID"]) == (IMAGE_ID, IMAGE_ID)
    del endpoint.images.known["busybox"]
    (line,) = (await endpoint.client.get("/containers/json")).json()
    assert line["Image"] == IMAGE_ID


async def test_size(endpoint: Endpoint) -> None:
    await endpoint.add(state=running())
    (line,) = (await endpoint.client.get("/containers/json?size=1")).json()
    assert (line["SizeRw"], line["SizeRootFs"]) == (0, 0)
