"""Published ports through `sockerless connect`: they appear beside the user, and outlive cuts and the connector."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.contract.connect_endpoint import World, connected_world
from tests.contract.connect_far_side import TOKEN
from tests.e2e.test_published_ports import ECHO, connected, port_of, refuses, until_refuses
from tests.free_ports import free_port

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="no docker CLI on this machine")

CUT_SECONDS = 0.4


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with connected_world() as started:
        yield started


@pytest.fixture
def name(world: World, request: pytest.FixtureRequest) -> Iterator[str]:
    chosen = request.node.name.replace("[", "-").replace("]", "")[:60]
    yield chosen
    world.near.docker("rm", "-f", chosen)


def test_ports_appear_at_the_connector(world: World, name: str) -> None:
    world.near.out("run", "-d", "--name", name, "-p", "0:80", *ECHO)
    port = port_of(world.near, name)
    connected(port).close()
    connected(port, "::1").close()
    assert f"127.0.0.1:{port}->80/tcp" in world.near.out("ps", "--format", "{{.Ports}}")
    world.near.out("stop", "-t", "1", name)
    assert refuses(port)


def test_megabytes_both_ways_over_cuts(world: World, name: str) -> None:
    world.near.out("run", "-d", "--name", name, "-p", "80", *ECHO)
    sent = os.urandom(16 * 1024 * 1024)
    with connected(port_of(world.near, name)) as connection:
        connection.settimeout(60)

        def send() -> None:
            for at in range(0, len(sent), 1 << 20):
                connection.sendall(sent[at : at + (1 << 20)])
                time.sleep(0.1)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        got = hashlib.sha256()
        with world.proxy.cutting(CUT_SECONDS):
            sender.start()
            while piece := connection.recv(1 << 20):
                got.update(piece)
            sender.join()
    assert got.digest() == hashlib.sha256(sent).digest()


def test_a_start_over_cuts(world: World, name: str) -> None:
    """The answer may be lost, and the request be sent again."""
    port = free_port()
    world.near.out("create", "--name", name, "-p", f"{port}:80", *ECHO)
    for _ in range(5):
        with world.proxy.cutting(CUT_SECONDS / 2):
            world.near.out("start", name)
        connected(port).close()
        world.near.out("stop", "-t", "1", name)
        assert refuses(port)


def test_an_end_during_a_cut_is_noticed(world: World, name: str) -> None:
    world.near.out("run", "-d", "--name", name, "-p", "80", *ECHO)
    port = port_of(world.near, name)
    connected(port).close()
    with world.proxy.refusing():
        world.far.out("rm", "-f", name)
        assert not refuses(port)
    until_refuses(port)


def test_a_container_that_another_front_door_starts_again_is_its(world: World, name: str) -> None:
    world.near.out("run", "-d", "--name", name, "-p", "80", *ECHO)
    port = port_of(world.near, name)
    world.far.out("restart", "-t", "1", name)
    until_refuses(port)
    other = port_of(world.near, name)
    assert other != port
    connected(other).close()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_another_connector_listens_again(world: World, name: str, end: str) -> None:
    world.near.out("run", "-d", "--name", name, "-p", "80", *ECHO)
    world.near.out("run", "-d", "--name", f"{name}-2", "-p", "80", *ECHO)
    port, ended = port_of(world.near, name), port_of(world.near, f"{name}-2")
    getattr(world.near, end)()
    assert refuses(port)
    world.far.out("rm", "-f", f"{name}-2")
    world.near.start()
    connected(port).close()
    until_refuses(ended)
    assert port_of(world.near, name) == port
    world.near.out("rm", "-f", name)
    assert refuses(port)


def test_a_way_in_without_a_publisher_is_told_so(world: World, name: str) -> None:
    """Plain HTTP to the endpoint: nothing of ours is beside the client."""
    world.near.out("create", "--name", name, "-p", "80", *ECHO)
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{world.far.port}", headers=headers) as plain:
        asked = {"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "0"}]}}}
        created = plain.post("/v1.47/containers/create", json=asked)
        assert (created.status_code, "use `sockerless connect URL`" in created.text) == (501, True)
        started = plain.post(f"/v1.47/containers/{name}/start")
        assert (started.status_code, f"container {name} publishes ports" in started.text) == (501, True)
        exposed = plain.post("/v1.47/containers/create", json={"Image": "busybox", "ExposedPorts": {"80/tcp": {}}})
        assert exposed.status_code == 201
        plain.delete(f"/v1.47/containers/{exposed.json()['Id']}")
        dialled = plain.post(
            "/internal/v1/tickets",
            json={"method": "POST", "path": f"/internal/v1/containers/{name}/dial", "query": "port=22"},
        )
        assert (dialled.status_code, "is not published" in dialled.text) == (403, True)
    inspected = json.loads(world.near.out("inspect", "-f", "{{json .State}}", name))
    assert inspected["Status"] == "created"
