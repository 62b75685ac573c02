"""`sockerless up` as a separate process, and the real docker CLI pointed at it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SOCKERLESS = [sys.executable, "-m", "control_plane.entrypoints.cli"]
START_LIMIT = 20.0
Connection = socket.socket


@dataclass
class Endpoint:
    """One embedded endpoint with a data directory of its own."""

    data: Path
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.data / "docker.sock"

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    @property
    def log(self) -> Path:
        return self.data / "up.log"

    @property
    def local_cloud(self) -> str:
        """URL of the local cloud's plain HTTP face, whose `/_local/` tells and sets what tests need."""
        ports = json.loads((self.data / "cloud" / "ports.json").read_text())
        return f"http://127.0.0.1:{ports['http']}"

    def start(self) -> None:
        """Starts `up` and waits until it answers `_ping`."""
        self.data.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*SOCKERLESS, "up", "--data", str(self.data), "--listen", self.host, *self.options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | dict(self.environment),
                start_new_session=True,
            )
        deadline = time.monotonic() + START_LIMIT
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"`sockerless up` does not answer:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether `GET /_ping` is answered."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(str(self.socket))
            connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
            return b" 200 " in connection.recv(200)
        return False

    def stop(self) -> None:
        """Stops `up` as Ctrl-C does; containers go on."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)

    def kill(self) -> None:
        """kill -9: nothing is said, nothing is written."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def down(self) -> None:
        """Ends the endpoint, its containers and its local cloud."""
        self.stop()
        subprocess.run([*SOCKERLESS, "down", "--data", str(self.data)], check=False, capture_output=True, timeout=60)

    def docker_environment(self, **more: str) -> dict[str, str]:
        """The environment of a docker client that uses this endpoint and no other configuration of the machine."""
        config = self.data / "docker-config"
        config.mkdir(exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}
        return kept | {"DOCKER_HOST": self.host, "DOCKER_CONFIG": str(config)} | more

    def sdk_options(self) -> dict[str, Any]:
        """What a `docker.DockerClient` of this endpoint is made with; `DOCKER_CONFIG` is to be the CLI's."""
        return {"base_url": self.host}

    def connection(self) -> Connection:
        """A connection of its own for requests written by hand."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(30)
        connection.connect(self.host.removeprefix("unix://"))
        return connection

    def docker(
        self, *arguments: str, stdin: bytes | None = None, timeout: float = 60, check: bool = False
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs the docker CLI to its end."""
        done = subprocess.run(
            ["docker", *arguments],
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=timeout,
            env=self.docker_environment(),
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"docker {' '.join(arguments)}: exit {done.returncode}\n{done.stderr.decode()}")
        return done

    def spawn(self, *arguments: str, **options: object) -> subprocess.Popen[bytes]:
        """Starts a docker CLI that goes on beside the test; its three streams are pipes."""
        return subprocess.Popen(
            ["docker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.docker_environment(),
        )

    def out(self, *arguments: str, stdin: bytes | None = None, timeout: float = 60) -> str:
        """What a docker command prints; the command must succeed."""
        return self.docker(*arguments, stdin=stdin, timeout=timeout, check=True).stdout.decode().strip()

    def until(self, wanted: str, *arguments: str, timeout: float = 15) -> None:
        """Repeats a docker command until it prints `wanted`."""
        deadline = time.monotonic() + timeout
        while (seen := self.docker(*arguments).stdout.decode().strip()) != wanted:
            if time.monotonic() > deadline:
                raise AssertionError(f"docker {' '.join(arguments)}: {seen!r}, not {wanted!r}")
            time.sleep(0.05)


@contextlib.contextmanager
def running_endpoint(*options: str, environment: Mapping[str, str] | None = None) -> Iterator[Endpoint]:
    """An endpoint in a directory with a short name (unix sockets' paths are bounded), ended and removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="skls-", ignore_cleanup_errors=True) as directory:
        endpoint = Endpoint(Path(directory) / "d", options, environment or {})
        endpoint.start()
        try:
            yield endpoint
        finally:
            endpoint.down()
