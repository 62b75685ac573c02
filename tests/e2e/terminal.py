"""A docker CLI on a pseudo-terminal, as a person has it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

from tests.e2e.endpoint import Endpoint


class Terminal:
    """Runs `docker …` with a terminal of the given size; `expect` waits for text on it."""

    def __init__(self, endpoint: Endpoint, *arguments: str, rows: int = 24, columns: int = 80) -> None:
        self._controller, terminal = pty.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen(
            ["docker", *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env=endpoint.docker_environment(TERM="xterm"),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(terminal)
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._controller, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if hasattr(self, "process"):
            self.process.send_signal(signal.SIGWINCH)

    def send(self, text: bytes) -> None:
        os.write(self._controller, text)

    def expect(self, wanted: bytes, timeout: float = 15) -> bytes:
        """Reads until `wanted` was seen; returns what came up to and with it, and drops it."""
        deadline = time.monotonic() + timeout
        while wanted not in self.seen:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._controller], [], [], left)[0]:
                raise AssertionError(f"{wanted!r} not seen in {self.seen[-2000:]!r}")
            try:
                got = os.read(self._controller, 65536)
            except OSError:  # the terminal's other end is closed
                got = b""
            if not got:
                raise AssertionError(f"the terminal ended; {wanted!r} not seen in {self.seen[-2000:]!r}")
            self.seen += got
        end = self.seen.index(wanted) + len(wanted)
        taken, self.seen = self.seen[:end], self.seen[end:]
        return taken

    def wait(self, timeout: float = 15) -> int:
        """The CLI's exit code, reading the terminal empty meanwhile."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self._controller], [], [], 0.05)[0]:
                try:
                    self.seen += os.read(self._controller, 65536)
                except OSError:
                    break
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._controller)
