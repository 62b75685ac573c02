"""Things break; what must not break with them. Each test is named for its failure."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import images
from tests.e2e.backends import EACH_BACKEND, missing
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import load_images
from tests.e2e.cutting_proxy import CuttingProxy
from tests.e2e.endpoint import Endpoint, running_endpoint
from tests.free_ports import free_port

STARTING = {"cloudrun": "Jobs.RunJob", "gcf": "Functions.Invoke", "azf": "Sites.Start"}
"""The cloud call that starts a container."""


@pytest.fixture
def own(backend: str) -> Iterator[Endpoint]:
    with running_endpoint("--backend", backend, environment={"SOCKERLESS_GCF_POOL": "0"}) as endpoint:
        load_images(endpoint)
        yield endpoint


def agent_process(container: str) -> int:
    """The host's process id of a container's agent."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            if f"SOCKERLESS_CONTAINER_ID={container}".encode() in (entry / "environ").read_bytes():
                return pid
    raise AssertionError(f"no agent of {container}")


@EACH_BACKEND
def test_relay_restarted_during_an_exec_and_an_attach(own: Endpoint) -> None:
    own.out("run", "-d", "-i", "--name", "box", "busybox", "sh", "-c", "while :; do echo tick; sleep 0.2; done")
    attached = own.spawn("attach", "--no-stdin", "box")
    running = own.spawn("exec", "box", "sh", "-c", "sleep 300")
    time.sleep(2)
    own.kill()
    own.start()
    assert attached.wait(20) != 0
    assert running.wait(20) != 0
    assert own.out("inspect", "-f", "{{.State.Running}}", "box") == "true"
    assert own.out("exec", "box", "echo", "new exec") == "new exec"
    again = own.spawn("attach", "--no-stdin", "box")
    assert again.stdout is not None
    assert again.stdout.readline() == b"tick\n"
    again.kill()
    again.communicate()


def test_link_cut_mid_stream_loses_and_doubles_no_byte() -> None:
    port = free_port()
    with CuttingProxy(port) as proxy:
        environment = {
            "SOCKERLESS_LOCAL_NETWORK": "host",
            "SOCKERLESS_AGENT_LISTEN": f"tcp://127.0.0.1:{port}",
            "SOCKERLESS_CALLBACK_URL": f"http://127.0.0.1:{proxy.port}",
        }
        with running_endpoint(environment=environment) as endpoint:
            load_images(endpoint)
            endpoint.out("run", "-d", "--name", "box", "busybox", "sleep", "3600")
            size = 200 * 1024 * 1024
            outward = endpoint.spawn("exec", "box", "sh", "-c", f"yes 0123456789abcde | head -c {size}")
            inward = endpoint.spawn("exec", "-i", "box", "md5sum")
            sent, received = hashlib.md5(), hashlib.md5()
            assert outward.stdout is not None
            assert inward.stdin is not None
            total = 0
            while chunk := outward.stdout.read(1024 * 1024):
                received.update(chunk)
                total += len(chunk)
                block = random.randbytes(len(chunk))
                sent.update(block)
                inward.stdin.write(block)
                if proxy.cuts < 12 and total > (proxy.cuts + 1) * size // 14:
                    proxy.cut()
            inward.stdin.close()
            assert proxy.cuts >= 10
            assert proxy.broken >= 3 * proxy.cuts  # the link and both streams, each time
            assert outward.wait(30) == 0
            assert total == size
            assert received.hexdigest() == hashlib.md5(b"0123456789abcde\n" * (size // 16)).hexdigest()
            assert inward.stdout is not None
            assert inward.stdout.read().split()[0].decode() == sent.hexdigest()
            assert inward.wait(30) == 0


@EACH_BACKEND
@pytest.mark.parametrize("lost_response", [False, True], ids=["before-the-cloud-heard", "after-the-cloud-had-begun"])
def test_control_plane_killed_between_the_two_writes_of_start(own: Endpoint, backend: str, lost_response: bool) -> None:
    """The process dies after `start` was written down and before the cloud's answer was."""
    shared = [] if missing(backend, "HostConfig.Binds") else ["-v", "runs:/runs"]
    script = "mkdir -p /runs; echo once >> /runs/log; sleep 300"
    box = own.out("create", "--name", "box", *shared, "busybox", "sh", "-c", script)
    Cloud(own).faults({STARTING[backend]: {"delay": 5, "lost_response": lost_response}})
    starting = own.spawn("start", "box")
    Cloud(own).until_called(STARTING[backend])
    time.sleep(1)
    own.kill()
    # With the call carried out, the agent may have told of the start before the cloud did.
    assert starting.wait(20) != 0 or lost_response
    own.start()
    own.until("true", "inspect", "-f", "{{.State.Running}}", "box", timeout=60)
    own.until("once", "exec", "box", "cat", "/runs/log")
    # Its execution is known (again): without its agent there is nobody else to tell the exit code.
    os.kill(agent_process(box), signal.SIGKILL)
    assert own.out("wait", "box") == "137"
    if shared:
        assert own.out("run", "--rm", *shared, "busybox", "cat", "/runs/log") == "once"


@EACH_BACKEND
def test_agent_killed(own: Endpoint) -> None:
    identifier = own.out("run", "-d", "--name", "box", "busybox", "sh", "-c", "echo said; echo aside >&2; sleep 300")
    own.until("said", "logs", "box")
    waiting = own.spawn("wait", "box")
    running = own.spawn("exec", "box", "sleep", "300")
    attached = own.spawn("attach", "--no-stdin", "box")
    following = own.spawn("logs", "-f", "box")
    time.sleep(2)
    os.kill(agent_process(identifier), signal.SIGKILL)
    assert waiting.communicate(timeout=15)[0].strip() == b"137"
    assert running.wait(15) == 137
    assert attached.wait(15) == 137
    assert following.wait(15) == 0
    own.until("said", "logs", "box")
    logs = own.docker("logs", "box")
    assert (logs.stdout, logs.stderr) == (b"said\n", b"aside\n")
    own.out("start", "box")
    assert own.out("exec", "box", "echo", "again") == "again"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs, which takes root")
def test_disk_full(tmp_path: Path) -> None:
    data = tmp_path / "small"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(data)], check=True)
    endpoint = Endpoint(data)
    try:
        endpoint.start()
        load_images(endpoint)
        endpoint.out("run", "-d", "--name", "old", "busybox", "sh", "-c", "while :; do echo tick; sleep 0.1; done")
        endpoint.out("create", "--name", "ready", "busybox", "echo", "late")
        filler = data / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as out:
            while True:
                out.write(b"\0" * 4096)
        for refused in (
            endpoint.docker("run", "--rm", "busybox", "true", timeout=20),
            endpoint.docker("start", "ready", timeout=20),
            endpoint.docker("load", stdin=images.scratch(), timeout=20),
        ):
            assert refused.returncode != 0
            assert b"no space left on device" in refused.stderr, refused.stderr
        # What runs goes on, and can be looked at and entered.
        assert endpoint.out("inspect", "-f", "{{.State.Running}}", "old") == "true"
        assert endpoint.out("exec", "old", "echo", "inside") == "inside"
        assert endpoint.out("logs", "--tail", "1", "old") == "tick"
        assert endpoint.answers()
        # And it can be ended to make room.
        assert endpoint.out("kill", "old") == "old"
        assert endpoint.out("rm", "old") == "old"
        filler.unlink()
        assert endpoint.out("run", "--rm", "busybox", "echo", "room again") == "room again"
        # A start that was refused stays refused: nothing begins behind its user's back.
        assert endpoint.out("inspect", "-f", "{{.State.Status}}", "ready") == "created"
        assert endpoint.out("start", "-a", "ready") == "late"
        log = endpoint.log.read_text()
        assert "Traceback" not in log, log
    finally:
        endpoint.down()
        subprocess.run(["umount", "-l", str(data)], check=False)
