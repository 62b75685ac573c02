"""Operations on containers whose results are known beforehand, done while processes of the endpoint are killed."""

from __future__ import annotations

import hashlib
import random
import subprocess
import time

from tests.e2e.endpoint import Endpoint

_LOST = (b"connection", b"lost", b"EOF", b"502", b"503", b"Bad Gateway", b"shutting down", b"unavailable", b"away")
"""Words of a request that must not be done twice and was under way when its control plane was killed."""


class Operations:
    """Each is an operation with a result that is known beforehand; `wrong` says what was another."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.wrong: list[str] = []
        self.refused: list[str] = []

    def do(self, number: int) -> None:
        dice = random.Random(number)
        kinds = (self._run, self._stdin, self._exec, self._wait, self._logs)
        try:
            kinds[number % len(kinds)](f"op-{number}", dice)
        except _NotDone as refused:
            self.refused.append(str(refused))
        except subprocess.TimeoutExpired as stuck:
            self.wrong.append(f"op-{number}: {stuck}")

    def _run(self, name: str, dice: random.Random) -> None:
        code, lines = dice.randrange(1, 120), dice.randrange(10, 40)
        script = f"i=0; while [ $i -lt {lines} ]; do echo $i; i=$((i+1)); sleep 0.1; done; exit {code}"
        self._made(name, "-i", "busybox", "sh", "-c", script)
        self._check(name, self._docker("start", "-a", name), code, b"".join(b"%d\n" % n for n in range(lines)))

    def _stdin(self, name: str, dice: random.Random) -> None:
        sent = dice.randbytes(400_000)
        self._made(name, "-i", "busybox", "sh", "-c", "sleep 1; cat; exit 11")
        self._check(name, self._docker("start", "-ai", name, stdin=sent), 11, sent)

    def _exec(self, name: str, dice: random.Random) -> None:
        code = dice.randrange(1, 120)
        self._made(name, "busybox", "sleep", "300")
        self._started(name)
        sent = dice.randbytes(200_000)
        done = self._docker("exec", "-i", name, "sh", "-c", f"cat; sleep 1; exit {code}", stdin=sent)
        self._check(name, done, code, sent)

    def _wait(self, name: str, dice: random.Random) -> None:
        code = dice.randrange(1, 120)
        self._made(name, "busybox", "sh", "-c", f"sleep {dice.random() * 3:.1f}; exit {code}")
        self._started(name)
        self._check(name, self._docker("wait", name), 0, b"%d\n" % code)

    def _logs(self, name: str, dice: random.Random) -> None:
        lines = dice.randrange(10, 40)
        script = f"i=0; while [ $i -lt {lines} ]; do echo $i; i=$((i+1)); sleep 0.1; done"
        self._made(name, "busybox", "sh", "-c", script)
        self._started(name)
        self._check(name, self._docker("logs", "-f", name), 0, b"".join(b"%d\n" % n for n in range(lines)))

    def _made(self, name: str, *arguments: str) -> None:
        for _ in range(10):
            done = self._docker("create", "--name", name, *arguments)
            # Made, and the answer was lost: what must not be done twice is not asked for again by a connector.
            if done.returncode == 0 or b"is already in use" in done.stderr:
                return
            if not any(word in done.stderr for word in _LOST):
                break
            time.sleep(0.3)
        raise _NotDone(f"create {name}: {done.stderr.decode()}")

    def _started(self, name: str) -> None:
        done = self._docker("start", name)
        if done.returncode != 0:
            self.wrong.append(f"start {name}: {done.returncode} {done.stderr.decode()[:300]}")

    def _docker(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return self._endpoint.docker(*arguments, stdin=stdin, timeout=60)

    def _check(self, name: str, done: subprocess.CompletedProcess[bytes], code: int, out: bytes) -> None:
        if done.returncode != code:
            self.wrong.append(f"{name}: exit {done.returncode}, not {code}: {done.stderr.decode()[:300]}")
        if done.stdout != out:
            seen, wanted = (hashlib.md5(data).hexdigest() for data in (done.stdout, out))
            self.wrong.append(f"{name}: {len(done.stdout)} bytes {seen}, not {len(out)} bytes {wanted}")


class _NotDone(Exception):
    """An operation that was refused in so many words."""
