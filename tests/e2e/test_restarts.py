"""`sockerless up` is stopped, or killed with -9: containers, names, exit codes and logs are found again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.e2e.backends import EACH_BACKEND, capabilities, missing
from tests.e2e.conftest import load_images
from tests.e2e.endpoint import Endpoint, running_endpoint

pytestmark = EACH_BACKEND


@pytest.fixture
def own(backend: str) -> Iterator[Endpoint]:
    with running_endpoint("--backend", backend) as endpoint:
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
    assert how == "kill" or "1 container(s) go on running" in own.log.read_text()
    own.start()
    assert set(own.out("ps", "-a", "--format", "{{.Names}}").split()) == {"running", "exited", "created"}
    assert own.out("ps", "-q", "--no-trunc") == running
    assert own.out("inspect", "-f", "{{.State.ExitCode}}", "exited") == "6"
    assert own.out("logs", "exited") == "gone"
    assert own.out("start", "-a", "created") == "later"
    own.docker("exec", "running", "touch", "/go")  # may itself be killed with the container
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


def test_fifty_runs_at_once_while_up_is_killed_and_started_again(own: Endpoint, backend: str) -> None:
    """Clients may lose their connection; no exit code is lost, no process runs twice, nothing stays under way."""
    dice = random.Random(50)
    codes = {f"run-{number}": dice.randrange(256) for number in range(50)}
    shared = [] if missing(backend, "HostConfig.Binds") else ["-v", "runs:/runs"]
    clients = {}
    for name, code in codes.items():
        script = f"mkdir -p /runs; echo once | tee -a /runs/{name}; sleep {dice.random() * 4:.2f}; exit {code}"
        clients[name] = own.spawn("run", "--name", name, *shared, "busybox", "sh", "-c", script)
    _until(lambda: _running(own) >= 8, "eight are running")
    own.kill()
    own.start()
    for name, client in clients.items():
        client.communicate(timeout=60)
        assert client.returncode in {codes[name], 1, 125}, name
    _until(lambda: _ended(own) or _settled(own), "nothing is under way", 90)
    # Some clients may have been cut off before they asked for the start.
    for name in (name for name, state in _states(own).items() if state["Status"] == "created"):
        own.docker("start", "-a", name)
    states = _states(own)
    assert len(states) >= 8
    assert {name: state["ExitCode"] for name, state in states.items()} == {name: codes[name] for name in states}
    assert {name: own.out("logs", name) for name in states} == dict.fromkeys(states, "once")
    if shared:
        counts = own.out("run", *shared, "busybox", "sh", "-c", "cat /runs/* | wc -l; ls /runs | wc -l")
        assert counts.split() == [str(len(states))] * 2


def _ended(endpoint: Endpoint) -> bool:
    return {state["Status"] for state in _states(endpoint).values()} == {"exited"}


def _settled(endpoint: Endpoint) -> bool:
    """Whether for longer than the reconciler's interval nothing runs and nothing is started."""
    before = _states(endpoint)
    if any(state["Status"] not in {"created", "exited"} for state in before.values()):
        return False
    deadline = time.monotonic() + 12
    while time.monotonic() < deadline:
        time.sleep(0.3)
        if _states(endpoint) != before:
            return False
    return True


def _running(endpoint: Endpoint) -> int:
    """How many containers run; quicker than the CLI."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(endpoint.socket)), base_url="http://d") as client:
        return len(client.get("/containers/json", timeout=20).json())


def _until(done: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


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
    _until(lambda: own.docker("exec", "front", "true").returncode == 0, "the last one runs")
    assert own.process is not None
    own.process.send_signal(number)
    own.process.wait(20)
    assert own.process.returncode == 0
    for command, client in zip(commands, clients, strict=True):
        client.communicate(timeout=10)
        # As with moby whose containers outlive it: whoever waits for more is told that it did not come.
        assert client.returncode in {1, 125, 255}, command
    assert "Traceback" not in own.log.read_text()
    own.start()
    assert set(own.out("ps", "--format", "{{.Names}}").split()) == {"box", "front"}


def test_down_leaves_nothing_behind(backend: str) -> None:
    with running_endpoint("--backend", backend) as own:
        load_images(own)
        shared = [] if missing(backend, "HostConfig.Binds") else ["-v", "kept:/v"]
        options = [*shared, "-l", "kept", "-m", "64m"]
        identifiers = [own.out("run", "-d", *options, "busybox", "sleep", "3600") for _ in range(3)]
        own.out("run", "busybox", "true")
        before = _traces(own, identifiers)
        assert {kind for kind, found in before.items() if not found} <= (set() if shared else {"mounts"})
        own.down()
        assert _traces(own, identifiers) == {kind: [] for kind in before}
        ended = datetime.now(UTC).isoformat()
        own.start()
        assert own.out("ps", "-aq", "--no-trunc", "-f", "label=kept").split() == identifiers[::-1]
        _until(lambda: _running(own) == 0, "what `down` ended does not count as running")
        code, finished = own.out("inspect", "-f", "{{.State.ExitCode}} {{.State.FinishedAt}}", identifiers[0]).split()
        assert code == "137"
        # Who keeps no record of runs of its own does not know when one ended.
        assert not capabilities(backend).agentless or finished[:23] < ended
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
