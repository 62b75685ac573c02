"""Containers whose agent never connects: they run, end with their real exit code, and say what cannot be had."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.e2e.backends import EACH_BACKEND, capabilities
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import load_images
from tests.e2e.endpoint import Endpoint, running_endpoint

LONELY = {
    "SOCKERLESS_CALLBACK_URL": "http://127.0.0.1:9",
    "SOCKERLESS_LOCAL_NETWORK": "host",
    "SOCKERLESS_AGENT_CONNECT_TIMEOUT": "0.5",
}
"""Agents are told to dial where nobody listens."""


@pytest.fixture(scope="module")
def lonely() -> Iterator[Endpoint]:
    with running_endpoint(environment=LONELY) as endpoint:
        load_images(endpoint)
        yield endpoint


@pytest.fixture
def box(lonely: Endpoint) -> Iterator[Endpoint]:
    yield lonely
    lonely.docker("rm", "-f", "-v", "box")


def test_the_exit_code_is_the_commands(box: Endpoint) -> None:
    box.out("run", "-d", "--name", "box", "busybox", "sh", "-c", "exit 7")
    assert box.out("wait", "box", timeout=10) == "7"
    state = json.loads(box.out("inspect", "-f", "{{json .State}}", "box"))
    assert (state["Status"], state["ExitCode"], state["Error"]) == ("exited", 7, "")


def test_foreground_ends_with_the_exit_code_and_says_where_the_output_is(box: Endpoint) -> None:
    done = box.docker("run", "--name", "box", "busybox", "sh", "-c", "echo out; exit 5", timeout=10)
    assert (done.returncode, done.stdout) == (5, b"")
    assert re.fullmatch(rb"container [0-9a-f]{12} runs without an agent: .* `docker logs`\n", done.stderr)
    assert box.docker("logs", "box").stdout == b"out\n"


def test_a_terminal_is_done_without(box: Endpoint) -> None:
    done = box.docker("run", "--rm", "-t", "busybox", "sh", "-c", "exit 9", timeout=10)
    assert done.returncode == 9
    assert done.stdout.endswith(b"its output is in the platform's log\r\n")


def test_logs_come_from_cloud_logging(box: Endpoint) -> None:
    script = "echo one; sleep 0.1; echo two >&2; sleep 1; echo three; exit 3"
    box.out("run", "-d", "--name", "box", "busybox", "sh", "-c", script)
    followed = box.spawn("logs", "-f", "-t", "box")
    out, err = followed.communicate(timeout=15)
    stamped = [line.split(b" ", 1) for line in out.splitlines()]
    assert [text for _, text in stamped] == [b"one", b"three"]
    assert all(re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", at) for at, _ in stamped)
    assert err.endswith(b" two\n")
    logs = box.docker("logs", "box")
    assert (logs.stdout, logs.stderr) == (b"one\nthree\n", b"two\n")
    assert box.out("logs", "--since", stamped[1][0].decode(), "box") == "three"
    assert box.docker("logs", "--tail", "2", "box").stdout == b"three\n"
    assert box.docker("logs", "--tail", "2", "box").stderr == b"two\n"
    assert box.out("wait", "box") == "3"


@pytest.mark.parametrize(
    "command",
    [
        ["exec", "box", "true"], ["cp", "box:/etc/passwd", "-"], ["top", "box"], ["pause", "box"],
        ["kill", "-s", "USR1", "box"],
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_what_takes_an_agent_is_refused_with_the_reason(box: Endpoint, command: list[str]) -> None:
    box.out("run", "-d", "--name", "box", "busybox", "sleep", "300")
    refused = box.docker(*command, timeout=15)
    assert refused.returncode == 1
    assert re.search(rb"without an agent|agent never connected", refused.stderr)
    assert box.out("inspect", "-f", "{{.State.Running}}", "box") == "true"


def test_attach_is_refused(box: Endpoint) -> None:
    box.out("run", "-d", "--name", "box", "busybox", "sleep", "300")
    refused = box.docker("attach", "box", timeout=15)
    assert refused.returncode != 0
    assert b"409" in refused.stderr or b"without an agent" in refused.stderr


def test_stop_is_the_platforms(box: Endpoint) -> None:
    script = "trap 'exit 21' TERM; echo ready; while :; do sleep 0.05; done"
    box.out("run", "-d", "--name", "box", "busybox", "sh", "-c", script)
    box.until("ready", "logs", "box")
    box.out("stop", "box", timeout=12)
    assert box.out("inspect", "-f", "{{.State.ExitCode}}", "box") == "21"
    box.out("start", "box")
    assert box.out("inspect", "-f", "{{.State.Running}}", "box") == "true"


@pytest.mark.parametrize(
    ("options", "reason"),
    [(["-i"], b"-i: nothing can be sent"), (["-u", "app"], b"--user"), (["--read-only"], b"--read-only")],
    ids=["stdin", "user", "read-only"],
)
def test_what_would_be_dropped_silently_is_not_run(box: Endpoint, options: list[str], reason: bytes) -> None:
    done = box.docker("run", "--name", "box", *options, "busybox", "cat", stdin=b"script\n", timeout=10)
    assert done.returncode == 125
    assert b"cannot run without agent" in done.stderr
    assert reason in done.stderr


def test_files_copied_in_before_the_start_are_not_left_out(box: Endpoint) -> None:
    box.out("create", "--name", "box", "busybox", "true")
    box.out("cp", str(box.log), "box:/tmp/x")
    refused = box.docker("start", "box", timeout=10)
    assert refused.returncode == 1
    assert b"docker cp before the start" in refused.stderr


def test_restart_policy_goes_by_the_real_exit_code(box: Endpoint) -> None:
    box.out("run", "-d", "--restart", "on-failure:1", "--name", "box", "busybox", "sh", "-c", "exit 4")
    box.until("exited 4 1", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", "box")


@EACH_BACKEND
def test_where_there_is_no_run_without_an_agent_the_start_says_so(backend: str) -> None:
    with running_endpoint("--backend", backend, environment=LONELY | {"SOCKERLESS_GCF_POOL": "0"}) as own:
        load_images(own)
        done = own.docker("run", "--name", "box", "busybox", "sh", "-c", "exit 7", timeout=60)
        if capabilities(backend).agentless:
            assert done.returncode == 7
            return
        assert done.returncode == 125
        assert b"agent" in done.stderr
        assert own.out("inspect", "-f", "{{.State.Running}}", "box") == "false"
        own.out("rm", "box")
        Cloud(own).until_left({})


def test_an_endpoint_killed_meanwhile_still_learns_the_exit_codes() -> None:
    with running_endpoint(environment=LONELY | {"SOCKERLESS_AGENT_CONNECT_TIMEOUT": "1"}) as own:
        load_images(own)
        own.out("run", "-d", "--name", "running", "busybox", "sh", "-c", "echo a; sleep 3; echo b; exit 8")
        starting = own.spawn("run", "--name", "starting", "busybox", "sh", "-c", "exit 9")
        own.until("starting", "ps", "-a", "--filter", "name=starting", "--format", "{{.Names}}")
        own.kill()
        assert starting.wait(20) in (1, 125)  # by the call that was cut
        own.start()
        assert own.out("wait", "running", timeout=20) == "8"
        assert own.out("logs", "running") == "a\nb"
        if own.out("inspect", "-f", "{{.State.Status}}", "starting") != "created":
            own.until("9", "inspect", "-f", "{{.State.ExitCode}}", "starting")
