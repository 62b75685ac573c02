"""What people do first, on a hosted endpoint: through `sockerless connect`, and with the docker CLI alone."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
import time
from pathlib import Path

import pytest

from tests.e2e.endpoint import Endpoint
from tests.e2e.live_events import until_destroyed
from tests.e2e.terminal import Terminal
from tests.hosted.deployment import LIMIT


@pytest.mark.parametrize("code", [0, 42, 255])
def test_run_has_the_commands_exit_code_and_streams(endpoint: Endpoint, code: int) -> None:
    done = endpoint.docker("run", "--rm", "busybox", "sh", "-c", f"echo out; echo err >&2; exit {code}")
    assert (done.returncode, done.stdout, done.stderr) == (code, b"out\n", b"err\n")


def test_stdin_comes_back(endpoint: Endpoint) -> None:
    sent = random.Random(7).randbytes(3_000_000)
    done = endpoint.docker("run", "--rm", "-i", "busybox", "cat", stdin=sent)
    assert (done.returncode, hashlib.sha256(done.stdout).digest()) == (0, hashlib.sha256(sent).digest())


def test_terminal(endpoint: Endpoint) -> None:
    terminal = Terminal(endpoint, "run", "--rm", "-it", "busybox", "sh", rows=33, columns=101)
    try:
        terminal.expect(b"# ")
        terminal.send(b"stty size\n")
        terminal.expect(b"33 101")
        terminal.send(b"exit 9\n")
        assert terminal.wait() == 9
    finally:
        terminal.close()


def test_exec_and_attach(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "-i", "--name", name, "busybox", "sh", "-c", "read line; echo got $line; exit 5")
    done = endpoint.docker("exec", "-i", name, "sh", "-c", "cat; echo err >&2; exit 3", stdin=b"in\n")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"in\n", b"err\n")
    attached = endpoint.spawn("attach", name)
    assert attached.stdin is not None
    assert attached.stdout is not None
    attached.stdin.write(b"this\n")
    attached.stdin.flush()
    with attached:
        assert attached.stdout.read() == b"got this\n"
    assert attached.wait(20) == 5


def test_logs_are_followed_to_the_end(endpoint: Endpoint, name: str) -> None:
    script = "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done; echo err >&2"
    endpoint.out("run", "-d", "--name", name, "busybox", "sh", "-c", script)
    done = endpoint.docker("logs", "-f", name)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n2\n3\n4\n5\n", b"err\n")


def test_copy_in_and_out(endpoint: Endpoint, name: str, tmp_path: Path) -> None:
    content = random.Random(3).randbytes(2_000_000)
    (tmp_path / "in").write_bytes(content)
    endpoint.out("run", "-d", "--name", name, "busybox", "sleep", "300")
    endpoint.out("cp", str(tmp_path / "in"), f"{name}:/tmp/there")
    archive = endpoint.docker("cp", f"{name}:/tmp/there", "-", check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found = tar.extractfile("there")
        assert found is not None
        assert found.read() == content


def test_stop_kill_restart_pause_wait_rm(endpoint: Endpoint, name: str) -> None:
    script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    endpoint.out("run", "-d", "--name", name, "busybox", "sh", "-c", script)
    endpoint.until("ready", "logs", name)
    endpoint.out("pause", name)
    assert endpoint.out("inspect", "-f", "{{.State.Status}}", name) == "paused"
    endpoint.out("unpause", name)
    waiting = endpoint.spawn("wait", name)
    time.sleep(1)
    endpoint.out("stop", name)
    assert waiting.communicate(timeout=20)[0] == b"3\n"
    endpoint.out("start", name)
    endpoint.out("restart", "-t", "5", name)
    endpoint.until("running", "inspect", "-f", "{{.State.Status}}", name)
    assert b"container is running" in endpoint.docker("rm", name).stderr
    endpoint.out("kill", name)
    assert endpoint.out("wait", name) == "137"
    endpoint.out("rm", name)
    assert endpoint.docker("inspect", name).returncode == 1


def test_events(endpoint: Endpoint, name: str) -> None:
    live = endpoint.spawn("events", "--filter", f"container={name}", "--format", "{{.Action}}")
    time.sleep(2)  # for it to listen, also on a busy machine
    assert endpoint.docker("run", "--rm", "--name", name, "busybox", "sh", "-c", "exit 6").returncode == 6
    assert until_destroyed(live) == ["create", "start", "die", "destroy"]


def test_a_stream_outlives_the_limit(endpoint: Endpoint, name: str) -> None:
    """Longer than any request lives here: run and its wait, and what follows the logs, go on byte for byte."""
    lines = int(LIMIT * 1.6 / 0.1)
    script = f"i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); sleep 0.1; done; exit 17"
    running = endpoint.spawn("run", "--name", name, "busybox", "sh", "-c", script)
    assert running.stdout is not None
    assert running.stdout.readline() == b"line 0\n"
    following = endpoint.spawn("logs", "-f", name)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 17, err
    told = [f"line {n}" for n in range(lines)]
    assert out.decode().splitlines() == told[1:]
    assert following.communicate(timeout=20)[0].decode().splitlines() == told
    assert following.returncode == 0
