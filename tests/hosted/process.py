"""One process of a hosted endpoint: started, killed with -9, started again on the same port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

START_LIMIT = 40.0
ROOT = Path(__file__).parents[2]


_PLACES = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin"


def program(name: str) -> str | None:
    """Where a program is, also for users who have no `sbin` in their PATH."""
    return shutil.which(name, path=_PLACES)


@dataclass
class Process:
    """`command` listens on `host`:`port` when it is up; its output is appended to `log`."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    directory: Path
    port: int
    host: str = "127.0.0.1"
    child: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def launch(self) -> None:
        """Starts it and does not wait. It ends with the test run, however that ends."""
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with self.log.open("ab") as out:
            self.child = subprocess.Popen(
                [*guard, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=dict(self.environment),
                cwd=ROOT,
            )

    def start(self) -> None:
        """Starts it and waits until it listens."""
        self.launch()
        self.until_up()

    def until_up(self) -> None:
        """Waits until it listens."""
        assert self.child is not None
        deadline = time.monotonic() + START_LIMIT
        while True:
            with socket.socket() as attempt:
                if attempt.connect_ex((self.host, self.port)) == 0:
                    return
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """kill -9."""
        if self.child is not None:
            self.child.kill()
            self.child.wait()

    def terminate(self) -> None:
        """SIGTERM, and -9 for what does not end."""
        if self.child is None or self.child.poll() is not None:
            return
        self.child.terminate()
        try:
            self.child.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
