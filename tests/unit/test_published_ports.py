"""`-p` and `-P`: what is wanted of a publisher, what it may answer, and who may dial what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.errors import (
    Conflict,
    DockerError,
    Forbidden,
    InvalidParameter,
    NotFound,
    NotModified,
    NotServed,
    ServerError,
)
from control_plane.model import Container
from control_plane.services.attachments import HijackRequest
from control_plane.services.published_ports import (
    MOST_BINDINGS,
    Offer,
    PortsWanted,
    Taken,
    check_bindings,
    check_published,
    wanted_ports,
)
from tests.unit.run_world import TENANT, World

BOTH = ["127.0.0.1", "::1"]
PORTS = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}
PUBLISHES = {"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}}
SAID = Offer("a" * 32, PORTS)


def host(bindings: dict[str, Any] | None = None, *, every: bool = False, mode: str = "bridge") -> dict[str, Any]:
    return {"PortBindings": bindings, "PublishAllPorts": every, "NetworkMode": mode}


def at(address: str = "", port: str = "") -> dict[str, str]:
    return {"HostIp": address, "HostPort": port}


@pytest.mark.parametrize(
    ("entry", "hosts", "first", "last"),
    [
        (at(), BOTH, 0, 0),
        (at(port="0"), BOTH, 0, 0),
        (at(port="8080"), BOTH, 8080, 8080),
        (at(port="8000-8010"), BOTH, 8000, 8010),
        (at("0.0.0.0", "1"), ["127.0.0.1"], 1, 1),
        (at("::", "1"), ["::1"], 1, 1),
        (at("::1"), ["::1"], 0, 0),
        (at("127.0.0.9"), ["127.0.0.9"], 0, 0),
    ],
)
def test_a_binding(entry: dict[str, str], hosts: list[str], first: int, last: int) -> None:
    asked = host({"80/tcp": [entry]})
    assert check_bindings(asked, publisher=True) == []
    assert wanted_ports({}, asked) == [{"port": "80/tcp", "hosts": hosts, "first": first, "last": last}]


def test_ports_without_entries_and_several_of_one() -> None:
    wanted = wanted_ports({}, host({"80": None, "081/TCP": [], "82/tcp": [at(port="1"), at(port="2")]}))
    assert [(entry["port"], entry["first"]) for entry in wanted] == [
        ("80/tcp", 0),
        ("81/tcp", 0),
        ("82/tcp", 1),
        ("82/tcp", 2),
    ]


def test_publish_all_takes_what_is_exposed_and_not_bound() -> None:
    exposed: dict[str, Any] = {"ExposedPorts": {"9/tcp": {}, "53/udp": {}, "80/tcp": {}, "7": {}, "100-102/tcp": {}}}
    asked = host({"80/tcp": [at(port="8080")]}, every=True)
    assert check_published(exposed, asked) == [
        "-P leaves out 53/udp: only TCP ports can be published: "
        "a container's packets reach you as a stream through its agent"
    ]
    assert [entry["port"] for entry in wanted_ports(exposed, asked)] == [
        "80/tcp",
        "7/tcp",
        "9/tcp",
        "100/tcp",
        "101/tcp",
        "102/tcp",
    ]


def test_too_many_ports() -> None:
    with pytest.raises(NotServed, match=f"{MOST_BINDINGS} of one container"):
        check_published({"ExposedPorts": {"1-60000/tcp": {}}}, host(every=True))
    check_published({"ExposedPorts": {f"1-{MOST_BINDINGS}/tcp": {}}}, host(every=True))


@pytest.mark.parametrize(
    ("bindings", "error", "text"),
    [
        ({"x/tcp": [at()]}, InvalidParameter, 'invalid port specification: "x"'),
        ({"0/tcp": [at()]}, InvalidParameter, 'invalid port specification: "0"'),
        ({"99999/tcp": [at()]}, InvalidParameter, 'invalid port specification: "99999"'),
        ({"80/icmp": [at()]}, InvalidParameter, 'invalid port specification: "80"'),
        ({"80/tcp": [at(port="x")]}, InvalidParameter, 'invalid port specification: "x"'),
        ({"80/tcp": [at(port="70000")]}, InvalidParameter, 'invalid port specification: "70000"'),
        ({"80/tcp": [at(port="9-8")]}, InvalidParameter, 'invalid port specification: "9-8"'),
        ({"53/udp": [at()]}, NotServed, "only TCP ports"),
        ({"80/tcp": [at("10.0.0.1")]}, NotServed, "loopback of the client's machine alone"),
        ({"80/tcp": [at("example.com")]}, NotServed, "loopback of the client's machine alone"),
    ],
)
def test_refused_bindings(bindings: dict[str, Any], error: type[DockerError], text: str) -> None:
    with pytest.raises(error) as caught:
        check_bindings(host(bindings), publisher=True)
    assert text in caught.value.message


def test_without_a_publisher() -> None:
    for asked in (host({"80/tcp": [at()]}), host(every=True)):
        with pytest.raises(NotServed, match="use `sockerless connect URL`"):
            check_bindings(asked, publisher=False)
    assert check_bindings(host(), publisher=False) == []
    assert check_bindings(host({"80/tcp": [at()]}, mode="host"), publisher=False) == [
        "Published ports are discarded when using host network mode"
    ]
    assert wanted_ports({}, host({"80/tcp": [at()]}, mode="host")) == []


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.close()


async def dial(world: World, port: str, name: str = "web", tenant: str = TENANT) -> dict[str, Any]:
    path = f"/internal/v1/containers/{name}/dial"
    return await world.services.attachments.ticket(tenant, HijackRequest("POST", path, f"port={port}", None))


async def test_a_start_wants_sockets_first(world: World) -> None:
    container = await world.create(host=PUBLISHES)
    start = world.services.runs.start
    with pytest.raises(NotServed, match="container web publishes ports"):
        await start(TENANT, "web")
    with pytest.raises(PortsWanted) as wanted:
        await start(TENANT, "web", Offer())
    entry = {"port": "80/tcp", "hosts": BOTH, "first": 8080, "last": 8080}
    assert wanted.value.body["ports"] == [entry]
    assert wanted.value.body["container"] == container.id
    assert (await world.get(container)).state.status == "created"
    await start(TENANT, "web", SAID)
    now = await world.get(container)
    assert now.state.status == "running"
    assert now.published is not None
    assert now.published.ports == PORTS
    for offer in (None, Offer(), SAID):
        with pytest.raises(NotModified):
            await start(TENANT, "web", offer)


async def test_a_restart_wants_them_too(world: World) -> None:
    container = await world.create(host=PUBLISHES)
    await world.services.runs.start(TENANT, "web", SAID)
    with pytest.raises(PortsWanted):
        await world.services.runs.restart(TENANT, "web", offer=Offer())
    assert (await world.get(container)).state.run == 1
    await world.services.runs.restart(TENANT, "web", offer=Offer("b" * 32, PORTS))
    now = await world.get(container)
    assert now.state.run == 2
    assert now.published is not None
    assert now.published.publication == "b" * 32


async def test_a_port_that_somebody_has(world: World) -> None:
    container = await world.create(host=PUBLISHES)
    taken = Offer("a" * 32, taken=Taken("127.0.0.1:8080", "port is already allocated"))
    with pytest.raises(ServerError, match=r"endpoint web \(.+\): Bind for 127.0.0.1:8080 failed: port is already all"):
        await world.services.runs.start(TENANT, "web", taken)
    now = await world.get(container)
    assert (now.state.status, now.state.exit_code) == ("created", 128)
    assert now.state.error.endswith("port is already allocated")
    assert now.published is None
    assert world.all_agents == []


@pytest.mark.parametrize(
    "ports",
    [
        {"81/tcp": PORTS["80/tcp"]},
        {"80/tcp": []},
        {**PORTS, "81/tcp": PORTS["80/tcp"]},
        {"80/tcp": [{"HostIp": "10.0.0.1", "HostPort": "8080"}]},
        {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]},
        {"80/tcp": [{"HostIp": "<b>", "HostPort": "1"}]},
    ],
)
async def test_what_a_publisher_may_not_say(world: World, ports: dict[str, Any]) -> None:
    container = await world.create(host=PUBLISHES)
    with pytest.raises(InvalidParameter, match="the publisher"):
        await world.services.runs.start(TENANT, "web", Offer("a" * 32, ports))
    assert (await world.get(container)).state.status == "created"


async def test_containers_without_ports_need_nobody(world: World) -> None:
    container = await world.create(config={"ExposedPorts": {"80/tcp": {}}})
    await world.services.runs.start(TENANT, "web", Offer())
    assert (await world.get(container)).published is None


def _without_agent(container: Container, agentless: bool = True) -> Container:
    assert container.execution is not None
    return container.model_copy(update={"execution": container.execution.model_copy(update={"agentless": agentless})})


def _with_agent(container: Container) -> Container:
    return _without_agent(container, agentless=False)


async def test_dial_tickets_are_for_published_ports_of_running_containers(world: World) -> None:
    await world.create(host=PUBLISHES)
    for port in ("80", ""):
        with pytest.raises(Forbidden, match="is not published"):
            await dial(world, port)
    await world.services.runs.start(TENANT, "web", SAID)
    answer = await dial(world, "80")
    assert (answer["ticket"], answer["relay_url"]) == ("ticket-dial", "http://gw")
    for port in ("8080", "22", "080x", "-80", "999999", "\N{SUPERSCRIPT TWO}", ""):
        with pytest.raises(Forbidden, match="is not published"):
            await dial(world, port)
    with pytest.raises(NotFound):
        await dial(world, "80", tenant="other")
    await world.containers.records.update(TENANT, answer["container"], _without_agent)
    with pytest.raises(Conflict, match="runs without an agent"):
        await dial(world, "80")
    await world.containers.records.update(TENANT, answer["container"], _with_agent)
    await world.services.runs.stop(TENANT, "web", grace=1)
    with pytest.raises(Conflict, match="is not running"):
        await dial(world, "80")
