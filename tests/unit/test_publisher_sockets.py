"""A publisher's sockets, and its memory."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from agent_gateway.publisher.memory import Memory, Publication
from agent_gateway.publisher.sockets import Taken, again, reserve

BOTH = ["127.0.0.1", "::1"]


def wanted(first: int = 0, last: int = 0, port: str = "80/tcp", hosts: list[str] | None = None) -> dict[str, Any]:
    return {"port": port, "hosts": hosts or BOTH, "first": first, "last": last or first}


@pytest.fixture
def other() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_any_port_is_the_same_on_both_addresses() -> None:
    with closing(reserve([wanted(), wanted(port="81/tcp")])) as sockets:
        for key in ("80/tcp", "81/tcp"):
            assert [entry["HostIp"] for entry in sockets.ports[key]] == BOTH
            assert len({entry["HostPort"] for entry in sockets.ports[key]}) == 1
        assert [port for port, _ in sockets.by_port] == [80, 80, 81, 81]


def test_a_taken_port_leaves_nothing_behind(other: int) -> None:
    with closing(reserve([wanted()])) as probe:
        free = int(probe.ports["80/tcp"][0]["HostPort"])
    with pytest.raises(Taken) as taken:
        reserve([wanted(free), wanted(other)])
    assert (taken.value.address, taken.value.reason) == (f"127.0.0.1:{other}", "port is already allocated")
    reserve([wanted(free)]).close()


def test_a_port_that_is_taken_on_the_other_address() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        number = server.getsockname()[1]
        with pytest.raises(Taken) as taken:
            reserve([wanted(number)])
    assert taken.value.address == f"[::1]:{number}"
    reserve([wanted(number)]).close()


def test_the_first_free_one_of_a_range(other: int) -> None:
    with closing(reserve([wanted(other, other + 20)])) as sockets:
        assert other < int(sockets.ports["80/tcp"][0]["HostPort"]) <= other + 20
    with ExitStack() as stack:
        with suppress(OSError):  # somebody else has it: as good
            stack.enter_context(socket.create_server(("127.0.0.1", other + 1)))
        with pytest.raises(Taken, match="all ports are allocated"):
            reserve([wanted(other, other + 1)])


def test_certain_ports_go_before_any() -> None:
    with closing(reserve([wanted()])) as probe:
        free = int(probe.ports["80/tcp"][0]["HostPort"])
    with closing(reserve([wanted(), wanted(free, port="81/tcp")])) as sockets:
        assert sockets.ports["81/tcp"][0]["HostPort"] == str(free)


@pytest.mark.parametrize("hosts", [["0.0.0.0"], ["127.0.0.1", "10.0.0.1"], ["::"], ["name"]])
def test_nothing_but_loopback(hosts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"loopback|address"):
        reserve([wanted(hosts=hosts)])


def test_again_tells_what_is_missing(other: int) -> None:
    with closing(reserve([wanted()])) as sockets:
        ports = {**sockets.ports, "81/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(other)}]}
    found, missing = again(ports)
    with closing(found):
        assert found.ports == sockets.ports
        assert [taken.address for taken in missing] == [f"127.0.0.1:{other}"]


def test_memory(tmp_path: Path) -> None:
    path = tmp_path / "a" / "ports.json"
    kept = {"c": Publication("p", {"80/tcp": [{"HostIp": "::1", "HostPort": "1"}]})}
    Memory(path).write(kept)
    assert Memory(path).read() == kept
    assert path.stat().st_mode & 0o777 == 0o600
    for broken in ("", "[]", '{"c": 5}', '{"c": {"id": "p", "ports": {"80/tcp": [5]}}}'):
        path.write_text(broken)
        assert Memory(path).read() == {}
    assert Memory(tmp_path / "absent").read() == {}
    assert Memory(None).read() == {}
    unwritable = Memory(Path("/proc/1/x/y"))
    unwritable.write(kept)
    assert unwritable.read() == {}


def test_memory_of_foreign_addresses_is_not_listened_for() -> None:
    found, missing = again({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "0"}]})
    found.close()
    assert (found.ports, len(missing)) == ({}, 1)
