"""`docker run -p` and `-P`: containers' ports on this machine's loopback."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from tests import images
from tests.e2e.backends import EACH_BACKEND
from tests.e2e.conftest import load_images
from tests.e2e.endpoint import Endpoint, running_endpoint
from tests.free_ports import free_port

pytestmark = EACH_BACKEND

ECHO = ("busybox", "nc", "-ll", "-p", "80", "-e", "cat")
"""Sends back what it gets, and half-closes when its client has."""
WEB = ("busybox", "sh", "-c", "echo hello > /index.html; exec httpd -f -p 80 -h /")


def port_of(endpoint: Endpoint, name: str, private: str = "80/tcp") -> int:
    return int(endpoint.out("port", name, private).splitlines()[0].rpartition(":")[2])


def connected(port: int, host: str = "127.0.0.1", timeout: float = 15) -> socket.socket:
    """A connection that the container's process has taken: before it listens they are reset."""
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(ConnectionResetError):
            connection = socket.create_connection((host, port), 10)
            with contextlib.ExitStack() as unless_it_answers:
                unless_it_answers.enter_context(connection)
                connection.sendall(b"?")
                if connection.recv(1) == b"?":
                    unless_it_answers.pop_all()
                    return connection
        assert time.monotonic() < deadline, "nothing answers on the published port"
        time.sleep(0.05)


def fetched(port: int, host: str = "127.0.0.1") -> bytes:
    """`GET /index.html`, once the server is there."""
    deadline = time.monotonic() + 15
    while True:
        client = http.client.HTTPConnection(host, port, timeout=10)
        try:
            client.request("GET", "/index.html")
            return client.getresponse().read()
        except (ConnectionError, http.client.HTTPException):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        finally:
            client.close()


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # taken, and nobody listens in the container
    return False


def until_refuses(port: int) -> None:
    deadline = time.monotonic() + 15
    while not refuses(port):
        assert time.monotonic() < deadline, "the port is still listened for"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def echo(endpoint: Endpoint) -> Iterator[int]:
    """The published port of a container that echoes."""
    identifier = endpoint.out("run", "-d", "-p", "80", *ECHO)
    yield port_of(endpoint, identifier)
    endpoint.docker("rm", "-f", identifier)


def test_http_on_both_loopback_addresses(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "--name", name, "-p", "0:80", *WEB)
    port = port_of(endpoint, name)
    assert fetched(port) == b"hello\n"
    assert fetched(port, "::1") == b"hello\n"
    assert fetched(port, "localhost") == b"hello\n"


def test_what_clients_are_told(endpoint: Endpoint, name: str) -> None:
    asked = free_port()
    endpoint.out("run", "-d", "--name", name, "--expose", "81", "-p", f"{asked}:80", *ECHO)
    ports = json.loads(endpoint.out("inspect", "-f", "{{json .NetworkSettings.Ports}}", name))
    both = [{"HostIp": "127.0.0.1", "HostPort": str(asked)}, {"HostIp": "::1", "HostPort": str(asked)}]
    assert ports == {"80/tcp": both, "81/tcp": None}
    assert endpoint.out("port", name) == f"80/tcp -> 127.0.0.1:{asked}\n80/tcp -> [::1]:{asked}"
    shown = endpoint.out("ps", "--filter", f"publish={asked}", "--format", "{{.Ports}}")
    assert shown == f"81/tcp, 127.0.0.1:{asked}->80/tcp, [::1]:{asked}->80/tcp"
    bindings = json.loads(endpoint.out("inspect", "-f", "{{json .HostConfig.PortBindings}}", name))
    assert bindings == {"80/tcp": [{"HostIp": "", "HostPort": str(asked)}]}
    endpoint.out("stop", name)
    assert endpoint.out("inspect", "-f", "{{json .NetworkSettings.Ports}}", name) == "{}"
    assert endpoint.out("port", name) == ""


@pytest.mark.parametrize(
    ("given", "shown"), [("127.0.0.1", ["127.0.0.1"]), ("0.0.0.0", ["127.0.0.1"]), ("[::]", ["::1"])]
)
def test_an_address_of_its_own(endpoint: Endpoint, given: str, shown: list[str]) -> None:
    identifier = endpoint.out("run", "-d", "-p", f"{given}::80", *ECHO)
    try:
        ports = json.loads(endpoint.out("inspect", "-f", "{{json .NetworkSettings.Ports}}", identifier))
        assert [entry["HostIp"] for entry in ports["80/tcp"]] == shown
        connected(int(ports["80/tcp"][0]["HostPort"]), shown[0]).close()
    finally:
        endpoint.out("rm", "-f", identifier)


def test_megabytes_both_ways_and_half_close(echo: int) -> None:
    sent = os.urandom(24 * 1024 * 1024)
    with connected(echo) as connection:

        def send() -> None:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        got = hashlib.sha256()
        while piece := connection.recv(1 << 20):
            got.update(piece)
        sender.join()
    assert got.digest() == hashlib.sha256(sent).digest()


def test_a_reader_that_stops_holds_the_container_up_and_loses_nothing(endpoint: Endpoint, name: str) -> None:
    script = "head -c 1; dd if=/dev/zero bs=1M count=30 2>/dev/null; echo over >&2"
    served = ("busybox", "nc", "-ll", "-p", "80", "-e", "sh", "-c", script)
    endpoint.out("run", "-d", "--name", name, "-p", "80", *served)
    with connected(port_of(endpoint, name)) as connection:
        time.sleep(0.5)
        assert "over" not in endpoint.docker("logs", name).stderr.decode()
        got = 0
        while piece := connection.recv(1 << 20):
            got += len(piece)
    assert got == 30 << 20


def test_many_connections_at_once(echo: int) -> None:
    connections = [connected(echo) for _ in range(20)]
    for number, connection in enumerate(connections):
        connection.sendall(b"%03d" % number)
    assert [connection.recv(3) for connection in reversed(connections)] == [b"%03d" % n for n in reversed(range(20))]
    for connection in connections:
        connection.close()


def test_a_port_on_which_nothing_listens(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "--name", name, "-p", "80", "busybox", "sleep", "600")
    port = port_of(endpoint, name)
    with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.recv(1)


def test_a_process_on_one_of_the_containers_other_addresses(endpoint: Endpoint, name: str) -> None:
    own = r"$(ip -4 -o addr show scope global | sed 's/.*inet \([0-9.]*\).*/\1/;q')"
    script = f"echo hello > /index.html; exec httpd -f -p {own}:80 -h /"
    endpoint.out("run", "-d", "--name", name, "-p", "80", "busybox", "sh", "-c", script)
    assert fetched(port_of(endpoint, name)) == b"hello\n"


def test_publish_all(endpoint: Endpoint, name: str) -> None:
    endpoint.docker("load", stdin=images.busybox("exposes:latest", ExposedPorts={"80/tcp": {}, "53/udp": {}}))
    done = endpoint.docker("run", "-d", "--name", name, "-P", "--expose", "82", "exposes", *ECHO[1:], check=True)
    assert b"-P leaves out 53/udp" in done.stderr
    ports = json.loads(endpoint.out("inspect", "-f", "{{json .NetworkSettings.Ports}}", name))
    assert ports["53/udp"] is None
    assert len(ports["82/tcp"]) == len(ports["80/tcp"]) == 2
    connected(int(ports["80/tcp"][0]["HostPort"])).close()


def test_a_range_and_several_bindings(endpoint: Endpoint, name: str) -> None:
    first = free_port()
    with socket.create_server(("127.0.0.1", first)):
        endpoint.out(
            "run", "-d", "--name", name, "-p", f"{first}-{first + 9}:80", "-p", "127.0.0.1::80", "-p", "81", *ECHO
        )
        entries = json.loads(endpoint.out("inspect", "-f", "{{json .NetworkSettings.Ports}}", name))["80/tcp"]
    numbers = {int(entry["HostPort"]) for entry in entries}
    assert len(numbers) == 2
    assert any(first < number <= first + 9 for number in numbers)
    for number in numbers:
        connected(number).close()


def test_a_taken_port(endpoint: Endpoint, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = endpoint.docker("run", "-d", "--name", name, "-p", f"{port}:80", *ECHO)
        assert done.returncode == 125
        wanted = f"driver failed programming external connectivity on endpoint {name} ("
        assert wanted in done.stderr.decode()
        assert f"): Bind for 127.0.0.1:{port} failed: port is already allocated" in done.stderr.decode()
        state = json.loads(endpoint.out("inspect", "-f", "{{json .State}}", name))
        assert (state["Status"], state["ExitCode"]) == ("created", 128)
        assert "port is already allocated" in state["Error"]
    endpoint.out("start", name)
    connected(port).close()


def test_the_end_of_a_container_closes_its_port(endpoint: Endpoint, name: str) -> None:
    port = free_port()
    endpoint.out("run", "-d", "--name", name, "-p", f"{port}:80", *ECHO)
    held = connected(port)
    endpoint.out("stop", "-t", "1", name)
    assert refuses(port)
    assert held.recv(1) == b""
    held.close()
    endpoint.out("start", name)
    connected(port).close()
    endpoint.out("rm", "-f", name)
    assert refuses(port)
    endpoint.out("run", "-d", "--rm", "--name", name, "-p", f"{port}:80", "busybox", "sleep", "1")
    assert not refuses(port)
    until_refuses(port)


def test_restart_and_restart_policy(endpoint: Endpoint, name: str) -> None:
    port = free_port()
    endpoint.out("run", "-d", "--name", name, "--restart", "always", "-p", f"{port}:80", *ECHO)
    connected(port).close()
    endpoint.out("restart", "-t", "1", name)
    connected(port).close()
    endpoint.docker("exec", name, "killall", "nc")
    endpoint.until("1", "inspect", "-f", "{{.RestartCount}}", name)
    connected(port).close()
    assert port_of(endpoint, name) == port


def test_as_testcontainers_wait(endpoint: Endpoint) -> None:
    """Create with a random port, start, look it up, poll until it answers, remove."""
    client: Any = docker.DockerClient(base_url=endpoint.host)  # type: ignore[attr-defined,no-untyped-call]
    try:
        container = client.containers.run(WEB[0], list(WEB[1:]), ports={"80/tcp": None}, detach=True)
        try:
            container.reload()
            port = int(container.attrs["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"])
            assert fetched(port) == b"hello\n"
        finally:
            container.remove(force=True)
        assert refuses(port)
    finally:
        client.close()


def test_containers_on_this_machines_network(backend: str) -> None:
    with running_endpoint("--backend", backend, environment={"SOCKERLESS_LOCAL_NETWORK": "host"}) as own:
        load_images(own)
        same, other = free_port(), free_port()
        script = f"echo hello > /index.html; httpd -p 127.0.0.1:{other} -h /; exec httpd -f -p {same} -h /"
        own.out("run", "-d", "-p", f"{same}:{same}", "-p", f"{other}", "--name", "web", "busybox", "sh", "-c", script)
        assert own.out("port", "web", f"{same}").splitlines()[0] == f"127.0.0.1:{same}"
        until_served = fetched(port_of(own, "web", f"{other}/tcp"))
        assert until_served == fetched(same) == b"hello\n"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_another_up_listens_again(backend: str, end: str) -> None:
    with running_endpoint("--backend", backend) as own:
        load_images(own)
        own.out("run", "-d", "--name", "stays", "-p", "80", *ECHO)
        own.out("run", "-d", "--name", "blocked", "-p", "80", *ECHO)
        own.out("run", "-d", "--name", "ends", "-p", "80", "busybox", "sleep", "1")
        port, blocked, ended = (port_of(own, each) for each in ("stays", "blocked", "ends"))
        connected(port).close()
        getattr(own, end)()
        assert refuses(port)
        time.sleep(1)
        with socket.create_server(("127.0.0.1", blocked)):
            own.start()
            connected(port).close()
            assert port_of(own, "stays") == port
            until_refuses(ended)
            assert f"127.0.0.1:{blocked}: port is already allocated" in own.log.read_text()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["-p", "53:53/udp"], "only TCP ports can be published"),
        (["-p", "192.0.2.1:80:80"], "loopback of the client's machine alone"),
    ],
)
def test_what_cannot_be_published(endpoint: Endpoint, options: list[str], reason: str) -> None:
    done = endpoint.docker("create", *options, "busybox")
    assert done.returncode == 1
    assert reason in done.stderr.decode()


def test_host_networking_discards_published_ports(endpoint: Endpoint, name: str) -> None:
    done = endpoint.docker("run", "-d", "--name", name, "--network", "host", "-p", "80:80", "busybox", "sleep", "60")
    assert b"Published ports are discarded when using host network mode" in done.stderr
    assert endpoint.out("port", name) == ""


def test_a_port_of_the_agents_own(endpoint: Endpoint, backend: str) -> None:
    done = endpoint.docker("create", "-p", "34117:34117", "busybox")
    if backend == "cloudrun":
        assert done.returncode == 0
        endpoint.out("rm", done.stdout.decode().strip())
    else:
        assert b"34117 is the agent's own port" in done.stderr
