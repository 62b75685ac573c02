"""A hosted endpoint and a connector to it, as processes, with a proxy between them that cuts."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests import images
from tests.contract.connect_far_side import TOKEN
from tests.e2e.cutting_proxy import CuttingProxy
from tests.e2e.endpoint import START_LIMIT, Endpoint
from tests.free_ports import free_port

FAR_SIDE = [sys.executable, "-m", "tests.contract.connect_far_side"]
CONNECT = [sys.executable, "-m", "agent_gateway.connector.cli"]


@dataclass
class FarEndpoint(Endpoint):
    """An endpoint whose Docker API is on a TCP port, for those who have the token; its own socket is for comparison."""

    port: int = 0
    public: str = ""

    def start(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*FAR_SIDE, str(self.data), self.host, str(self.port), self.public],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_LIMIT
        while not (self.answers() and _listens(self.port)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the far side does not answer:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.02)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@dataclass
class Connected(Endpoint):
    """`sockerless connect` in a process; docker commands go through it."""

    url: str = ""
    listen: str = ""
    address: str = ""
    token: str = TOKEN
    arguments: tuple[str, ...] = field(default_factory=tuple)

    @property
    def host(self) -> str:
        return self.address

    def start(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SOCKERLESS_")}
        self.process = subprocess.Popen(
            [*CONNECT, self.url, "--listen", self.listen or f"unix://{self.data}/docker.sock", *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log.open("ab"),
            env=environment | {"SOCKERLESS_TOKEN": self.token, "HOME": str(self.data)},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        self.address = line.strip().removeprefix("export DOCKER_HOST=")
        if not line:
            self.process.wait(10)

    def down(self) -> None:
        self.stop()


_LATER = 1.1
"""Each cut comes so much later than the one before: on the slowest machine there is time for an answer in the end."""


class TimedProxy(CuttingProxy):
    """Cuts everything every so many seconds, as a front end's limit does; never while `seconds` is 0."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.seconds = 0.0
        self._over = threading.Event()
        threading.Thread(target=self._clock, daemon=True).start()

    def _clock(self) -> None:
        while not self._over.wait(self.seconds or 0.1):
            if self.seconds:
                self.cut()
                self.seconds *= _LATER

    @contextlib.contextmanager
    def cutting(self, seconds: float) -> Iterator[None]:
        self.seconds = seconds
        try:
            yield
        finally:
            self.seconds = 0.0

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody gets through."""
        target, self._target = self._target, 1
        self.cut()
        try:
            yield
        finally:
            self._target = target

    def close(self) -> None:
        self._over.set()


@dataclass
class World:
    """Far side, proxy and connector."""

    far: FarEndpoint
    proxy: TimedProxy
    near: Connected


@contextlib.contextmanager
def connected_world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="skls-", ignore_cleanup_errors=True) as directory:
        port = free_port()
        proxy = TimedProxy(port)
        with proxy:
            url = f"http://127.0.0.1:{proxy.port}"
            far = FarEndpoint(Path(directory) / "far", port=port, public=url)
            near = Connected(Path(directory) / "near", url=url)
            try:
                far.start()
                near.start()
                assert b"Loaded image: busybox:latest" in near.docker("load", stdin=images.busybox()).stdout
                yield World(far, proxy, near)
            finally:
                near.down()
                far.down()
                proxy.close()
