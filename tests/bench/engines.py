"""The two things measured: `sockerless up`, and a real dockerd where one is on the machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import images
from tests.e2e.endpoint import running_endpoint


@dataclass
class Engine:
    """Something that speaks the Docker API on a unix socket."""

    name: str
    socket: Path
    config: Path
    root: int
    """Process whose session's processes are the engine's memory."""

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}
        return kept | {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.config)}

    def docker(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        """Runs the docker CLI; it must succeed."""
        return subprocess.run(
            ["docker", *arguments],
            input=stdin or b"",
            capture_output=True,
            check=True,
            timeout=300,
            env=self.environment(),
        ).stdout

    def memory(self, kind: str) -> int:
        """Bytes (`Rss`: resident, `Pss`: a proportional share of what is shared) of all processes that descend from,
        or were detached by, the engine."""
        return sum(_memory(pid, kind) for pid in self._processes())

    def _processes(self) -> list[int]:
        marks = (str(self.socket.parent).encode(),)
        found: dict[int, int] = {}
        members = {self.root}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                pid = int(entry.name)
                found[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if any(mark in (entry / "cmdline").read_bytes() for mark in marks):
                    members.add(pid)
        while True:
            more = {pid for pid, parent in found.items() if parent in members} - members
            if not more:
                return sorted(members)
            members |= more


def _memory(pid: int, kind: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def sockerless() -> Iterator[Engine]:
    """This project's embedded endpoint."""
    with running_endpoint() as endpoint:
        assert endpoint.process is not None
        endpoint.docker_environment()
        engine = Engine("sockerless", endpoint.socket, endpoint.data / "docker-config", endpoint.process.pid)
        engine.docker("load", stdin=images.busybox())
        yield engine


@contextlib.contextmanager
def dockerd() -> Iterator[Engine | None]:
    """A dockerd of its own state directory; None where the machine has none."""
    program = shutil.which("dockerd")
    if program is None or os.geteuid() != 0:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="dockerd-", ignore_cleanup_errors=True) as directory:
        home = Path(directory)
        (home / "config").mkdir()
        process = subprocess.Popen(
            [
                program, f"--host=unix://{home}/docker.sock", f"--data-root={home}/data", f"--exec-root={home}/exec",
                f"--pidfile={home}/pid", "--bridge=none" if not shutil.which("iptables") else "--ip-forward=true",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=(home / "log").open("wb"),
            start_new_session=True,
        )  # fmt: skip
        engine = Engine("dockerd", home / "docker.sock", home / "config", process.pid)
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    engine.docker("version")
                    break
                except subprocess.CalledProcessError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError((home / "log").read_text()[-3000:]) from None
                    time.sleep(0.1)
            engine.docker("load", stdin=images.busybox())
            yield engine
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                left = engine.docker("ps", "-aq").decode().split()
                if left:
                    engine.docker("rm", "-f", *left)
            process.send_signal(signal.SIGTERM)
            process.wait(30)
