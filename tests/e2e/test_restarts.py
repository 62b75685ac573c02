"""`sockerless up` is stopped, or killed with -9: containers, names, exit codes and logs are found again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import load_images
from tests.e2e.endpoint import Endpoint, running_endpoint


@pytest.fixture
def own() -> Iterator[Endpoint]:
    with running_endpoint() as endpoint:
        load_images(endpoint)
        yield endpoint


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_everything_is_found_again(own: Endpoint, how: str) -> None:
    running = own.out(
        "run",
        "-d",
        "--name",
        "running",
        "busybox",
        "sh",
        "-c",
        "echo before; while ! test -e /go; do sleep 0.1; done; echo after; exit 8",
    )
    own.docker("run", "--name", "exited", "busybox", "sh", "-c", "echo gone; exit 6")
    own.out("create", "--name", "created", "busybox", "echo", "later")
    own.until("before", "logs", "running")
    getattr(own, how)()
    own.start()
    assert set(own.out("ps", "-a", "--format", "{{.Names}}").split()) == {"running", "exited", "created"}
    assert own.out("ps", "-q", "--no-trunc") == running
    assert own.out("inspect", "-f", "{{.State.ExitCode}}", "exited") == "6"
    assert own.out("logs", "exited") == "gone"
    assert own.out("start", "-a", "created") == "later"
    own.out("exec", "running", "touch", "/go")
    assert own.out("wait", "running") == "8"
    assert own.out("logs", "running") == "before\nafter"
    assert "busybox" in own.out("images", "--format", "{{.Repository}}")


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_what_ended_meanwhile_has_its_real_code(own: Endpoint, how: str) -> None:
    own.out("run", "-d", "--name", "short", "busybox", "sh", "-c", "sleep 1; echo last words; exit 23")
    getattr(own, how)()
    time.sleep(2)
    own.start()
    assert own.out("wait", "short") == "23"
    assert own.out("logs", "short") == "last words"


def test_fifty_runs_at_once_while_up_is_killed_and_started_again(own: Endpoint) -> None:
    """Clients may lose their connection; no container may lose its exit code, and nothing stays under way."""
    dice = random.Random(50)
    codes = {f"run-{number}": dice.randrange(256) for number in range(50)}
    clients = {
        name: own.spawn("run", "--name", name, "busybox", "sh", "-c", f"sleep {dice.random() * 4:.2f}; exit {code}")
        for name, code in codes.items()
    }
    deadline = time.monotonic() + 30
    while len(_states(own)) < 25:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    own.kill()
    time.sleep(0.5)
    own.start()
    for name, client in clients.items():
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.communicate(timeout=60)
        assert client.returncode is not None, f"{name}: its client hangs"
        assert client.returncode in {codes[name], 1, 125}, name
    deadline = time.monotonic() + 60
    while under_way := {name: s for name, s in _states(own).items() if s["Status"] not in {"exited", "created"}}:
        assert time.monotonic() < deadline, under_way
        time.sleep(0.2)
    states = _states(own)
    assert len(states) >= 25
    for name, state in states.items():
        if state["Status"] == "exited":
            assert state["ExitCode"] == codes[name], (name, state)
        else:
            # Its client was cut off before it asked for the start.
            assert state["StartedAt"].startswith("0001-"), (name, state)
            assert state["ExitCode"] == 0, (name, state)
            own.docker("start", name)
            assert own.out("wait", name) == str(codes[name])


def _states(endpoint: Endpoint) -> dict[str, dict[str, object]]:
    """Each container's state by its name."""
    listed = endpoint.docker("ps", "-aq").stdout.decode().split()
    if not listed:
        return {}
    shown = json.loads(endpoint.docker("inspect", *listed).stdout)
    return {one["Name"].lstrip("/"): one["State"] for one in shown}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_open_streams_do_not_keep_up_from_ending(own: Endpoint, number: signal.Signals) -> None:
    own.out("run", "-d", "-i", "--name", "box", "busybox", "sh", "-c", "while :; do echo tick; sleep 0.2; done")
    commands = [
        ("wait", "box"),
        ("logs", "-f", "box"),
        ("events",),
        ("attach", "--no-stdin", "box"),
        ("exec", "-i", "box", "cat"),
        ("run", "-i", "--name", "front", "busybox", "cat"),
    ]
    clients = [own.spawn(*command) for command in commands]
    deadline = time.monotonic() + 20
    while own.docker("exec", "front", "true").returncode != 0:
        assert time.monotonic() < deadline
    assert own.process is not None
    own.process.send_signal(number)
    own.process.wait(3)
    assert own.process.returncode == 0
    for command, client in zip(commands, clients, strict=True):
        client.communicate(timeout=10)
        # As with moby whose containers outlive it: whoever waits for more is told that it did not come.
        assert client.returncode in {1, 125, 255}, command
    assert "Traceback" not in own.log.read_text()
    own.start()
    assert set(own.out("ps", "--format", "{{.Names}}").split()) == {"box", "front"}


def test_down_leaves_nothing_behind() -> None:
    with running_endpoint() as own:
        load_images(own)
        identifiers = [own.out("run", "-d", "-v", "kept:/v", "-m", "64m", "busybox", "sleep", "3600") for _ in range(3)]
        own.out("run", "busybox", "true")
        before = _traces(own, identifiers)
        assert {kind for kind, found in before.items() if not found} == set()
        own.down()
        assert _traces(own, identifiers) == {kind: [] for kind in before}
        own.start()
        assert own.out("ps", "-aq", "--no-trunc", "-f", "volume=kept").split() == identifiers[::-1]
        deadline = time.monotonic() + 20
        while own.out("ps", "-q"):
            assert time.monotonic() < deadline, "containers that `down` ended count as running"
            time.sleep(0.1)
        assert own.out("inspect", "-f", "{{.State.ExitCode}}", identifiers[0]) == "137"
        own.out("start", identifiers[0])
        assert own.out("exec", identifiers[0], "echo", "again") == "again"


def _traces(endpoint: Endpoint, identifiers: list[str]) -> dict[str, list[str]]:
    """What an endpoint and its containers leave on a machine."""
    runtime = (endpoint.data / "cloud" / "runtime").resolve()
    key = hashlib.sha256(str(runtime).encode()).hexdigest()[:8]
    processes, mounts = [], set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            marks = (str(endpoint.data), *(f"SOCKERLESS_CONTAINER_ID={one}" for one in identifiers))
            said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            if any(mark.encode() in said for mark in marks) and entry.name != "self":
                processes.append(said.partition(b"\0")[0].decode())
            mounts |= {line for line in (entry / "mountinfo").read_text().splitlines() if str(endpoint.data) in line}
    return {
        "processes": processes,
        "mounts": sorted(mounts),
        "links": [path.name for path in Path("/sys/class/net").iterdir() if key in path.name],
        "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/sockerless-{key}")],
    }
