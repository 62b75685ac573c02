"""`docker exec`: a second process in a running container."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import pytest

from tests.e2e.backends import EACH_BACKEND
from tests.e2e.endpoint import Endpoint
from tests.e2e.terminal import Terminal

pytestmark = EACH_BACKEND


@pytest.fixture(scope="module")
def box(endpoint: Endpoint) -> Iterator[str]:
    identifier = endpoint.out("run", "-d", "-e", "FROM_CREATE=1", "busybox", "sleep", "3600")
    yield identifier
    endpoint.docker("rm", "-f", identifier)


@pytest.mark.parametrize("code", [0, 1, 42, 126, 127, 255])
def test_exit_code(endpoint: Endpoint, box: str, code: int) -> None:
    assert endpoint.docker("exec", box, "sh", "-c", f"exit {code}").returncode == code


def test_command_not_found(endpoint: Endpoint, box: str) -> None:
    done = endpoint.docker("exec", box, "no-such-command")
    assert done.returncode == 127
    assert b'exec: "no-such-command": executable file not found in $PATH' in done.stderr + done.stdout


def test_environment_workdir_user(endpoint: Endpoint, box: str) -> None:
    printed = endpoint.out(
        "exec", "-e", "MORE=2", "-w", "/tmp", "-u", "app", box, "sh", "-c", "echo $FROM_CREATE$MORE; pwd; id -un"
    )
    assert printed.splitlines() == ["12", "/tmp", "app"]


def test_stdin_both_ways(endpoint: Endpoint, box: str) -> None:
    sent = os.urandom(10 * 1024 * 1024)
    done = endpoint.docker("exec", "-i", box, "cat", stdin=sent)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(sent).digest()


def test_half_close_lets_the_command_finish(endpoint: Endpoint, box: str) -> None:
    assert endpoint.docker("exec", "-i", box, "wc", "-c", stdin=b"12345").stdout.strip() == b"5"


def test_streams_apart(endpoint: Endpoint, box: str) -> None:
    done = endpoint.docker("exec", box, "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_terminal(endpoint: Endpoint, box: str) -> None:
    terminal = Terminal(endpoint, "exec", "-it", box, "sh", rows=33, columns=99)
    try:
        terminal.expect(b"/ # ")
        terminal.send(b"stty size\r")
        terminal.expect(b"33 99")
        terminal.send(b"exit 11\r")
        assert terminal.wait() == 11
    finally:
        terminal.close()


def test_detached(endpoint: Endpoint, box: str) -> None:
    endpoint.out("exec", "-d", box, "sh", "-c", "echo done > /detached")
    endpoint.until("done", "exec", box, "cat", "/detached")


def test_not_running(endpoint: Endpoint, name: str) -> None:
    identifier = endpoint.out("create", "--name", name, "busybox")
    done = endpoint.docker("exec", name, "true")
    assert done.returncode == 1
    assert f"container {identifier} is not running".encode() in done.stderr.lower()


def test_many_in_a_row(endpoint: Endpoint, box: str) -> None:
    assert [endpoint.out("exec", box, "echo", str(n)) for n in range(30)] == [str(n) for n in range(30)]


def test_dies_with_the_container(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "--name", name, "busybox", "sleep", "3600")
    running = endpoint.spawn("exec", name, "sleep", "3600")
    endpoint.until("2", "exec", name, "sh", "-c", "ps | grep -c '[s]leep 3600'")
    endpoint.out("kill", name)
    assert running.wait(20) == 137
