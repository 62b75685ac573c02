"""kill -9 of a control plane or a gateway every few seconds, while containers are worked with through connectors."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.cloud import TEMPLATES
from tests.e2e.endpoint import Endpoint
from tests.hosted.deployment import RECONCILE, Deployment

OPERATIONS = 60
AT_ONCE = 4
EVERY = 4.0
_LOST = (b"connection", b"lost", b"EOF", b"502", b"503", b"Bad Gateway", b"shutting down", b"unavailable", b"away")
"""Words of a request that must not be done twice and was under way when its control plane was killed."""


class Killer(threading.Thread):
    """Kills one process after the other, and starts it again at once."""

    def __init__(self, deployment: Deployment, dice: random.Random) -> None:
        super().__init__(daemon=True)
        self._kinds = (deployment.planes, deployment.gateways)
        self._dice = dice
        self._over = threading.Event()
        self.kills: list[str] = []

    def run(self) -> None:
        while not self._over.wait(EVERY):
            victim = self._dice.choice(self._kinds[len(self.kills) % 2])
            victim.kill()
            victim.launch()
            self.kills.append(victim.name)

    def stop(self) -> None:
        self._over.set()
        self.join(20)
        for process in (*self._kinds[0], *self._kinds[1]):
            process.until_up()


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


def _states(endpoint: Endpoint) -> dict[str, str]:
    names = endpoint.out("ps", "-aq").split()
    found = json.loads(endpoint.out("inspect", *names)) if names else []
    return {container["Name"]: container["State"]["Status"] for container in found}


@pytest.mark.timeout(300)
def test_nothing_is_lost_while_processes_are_killed(deployment: Deployment) -> None:
    both = [Operations(deployment.connects[tenant]) for tenant in ("red", "blue")]
    killer = Killer(deployment, random.Random(4))
    killer.start()
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda number: both[number % 2].do(number), range(OPERATIONS)))
    finally:
        killer.stop()
    assert set(killer.kills) & {plane.name for plane in deployment.planes}
    assert set(killer.kills) & {gateway.name for gateway in deployment.gateways}
    wrong = [line for operations in both for line in (*operations.wrong, *operations.refused)]
    assert not wrong, "\n".join(wrong)
    for tenant in ("red", "blue"):
        _settled(deployment.connects[tenant])
    _until_the_cloud_is_empty(deployment)


def _settled(endpoint: Endpoint) -> None:
    """After the reconciler's turn nothing is under way but what sleeps; then all of it is removed."""
    deadline = time.monotonic() + 20 * RECONCILE
    while not set(states := _states(endpoint).values()) <= {"exited", "running"}:
        assert time.monotonic() < deadline, states
        time.sleep(0.3)
    names = endpoint.out("ps", "-aq").split()
    if names:
        endpoint.out("rm", "-f", *names)
    assert _states(endpoint) == {}


def _until_the_cloud_is_empty(deployment: Deployment) -> None:
    """But for templates (kept for the next container of their image), and buckets."""
    deadline = time.monotonic() + 60
    while left := {kind: n for kind, n in deployment.resources().items() if kind != TEMPLATES}:
        assert time.monotonic() < deadline, left
        time.sleep(0.3)
