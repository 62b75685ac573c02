"""`docker logs`: of running containers, of exited ones, followed, cut and stamped."""

from __future__ import annotations

import re
import time

from tests.e2e.backends import EACH_BACKEND
from tests.e2e.endpoint import Endpoint

pytestmark = EACH_BACKEND


def test_streams_are_kept_apart(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "--name", name, "busybox", "sh", "-c", "echo out; sleep 0.1; echo err >&2")
    done = endpoint.docker("logs", name)
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_follow_ends_with_the_container(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "--name", name, "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done")
    followed = endpoint.spawn("logs", "-f", name)
    assert followed.communicate(timeout=20)[0] == b"1\n2\n3\n4\n5\n"


def test_timestamps_since_until_and_tail(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "--name", name, "busybox", "sh", "-c", "echo 1; sleep 1; echo 2; sleep 1; echo 3")
    stamped = endpoint.out("logs", "-t", name).splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z \d$", line) for line in stamped)
    second = stamped[1].split()[0]
    assert endpoint.out("logs", "--since", second, name) == "2\n3"
    assert endpoint.out("logs", "--until", second, name) in {"1", "1\n2"}
    assert endpoint.out("logs", "--tail", "1", name) == "3"
    assert endpoint.out("logs", "--tail", "0", name) == ""


def test_created_container_has_none(endpoint: Endpoint, name: str) -> None:
    endpoint.out("create", "--name", name, "busybox")
    assert endpoint.out("logs", name) == ""


def test_follow_a_quiet_container_until_it_speaks(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "--name", name, "busybox", "sh", "-c", "sleep 1; echo late; sleep 300")
    followed = endpoint.spawn("logs", "-f", name)
    assert followed.stdout is not None
    assert followed.stdout.readline() == b"late\n"
    followed.kill()
    followed.communicate()


def test_terminal_output_is_raw(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "-t", "--name", name, "busybox", "echo", "tty")
    endpoint.out("wait", name)
    assert endpoint.docker("logs", name).stdout == b"tty\r\n"


def test_bytes_survive(endpoint: Endpoint, name: str) -> None:
    endpoint.docker(
        "run", "--name", name, "busybox", "sh", "-c", r"""printf '\377\000\n{"a":1}\nlast without newline'"""
    )
    assert endpoint.docker("logs", name).stdout == b'\xff\x00\n{"a":1}\nlast without newline'


def test_from_the_archive_once_the_agent_is_gone(endpoint: Endpoint, name: str) -> None:
    """The agent of a container is killed by its platform; the lines come from Cloud Logging then."""
    endpoint.out("run", "-d", "--name", name, "busybox", "sh", "-c", "echo kept; echo apart >&2; sleep 300")
    endpoint.until("kept", "logs", name)
    endpoint.out("kill", name)
    before = endpoint.docker("logs", "-t", name)
    time.sleep(0.1)
    after = endpoint.docker("logs", "-t", name)
    assert (before.stdout, before.stderr) == (after.stdout, after.stderr)
