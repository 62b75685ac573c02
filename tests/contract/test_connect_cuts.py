"""The real docker CLI through `sockerless connect`, while everything on the way is cut again and again."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.connect_endpoint import World, connected_world
from tests.contract.connect_http import over_unix
from tests.e2e.terminal import Terminal

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="no docker CLI on this machine")

CUT_SECONDS = 0.4
COUNT = "i=0; while [ $i -lt {n} ]; do echo line $i; i=$((i+1)); sleep {pause}; done; exit {code}"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with connected_world() as started:
        yield started


@pytest.fixture
def name(world: World, request: pytest.FixtureRequest) -> Iterator[str]:
    chosen = request.node.name.replace("[", "-").replace("]", "")[:60]
    yield chosen
    world.near.docker("rm", "-f", chosen)


def numbered(count: int) -> str:
    return "".join(f"line {number}\n" for number in range(count))


def test_run_in_the_foreground_over_cuts(world: World) -> None:
    running = world.near.spawn("run", "busybox", "sh", "-c", COUNT.format(n=30, pause=0.1, code=9))
    assert running.stdout is not None
    assert running.stdout.readline() == b"line 0\n"
    with world.proxy.cutting(CUT_SECONDS):
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out.decode(), err) == (9, numbered(30).removeprefix("line 0\n"), b"")


def test_run_rm_tells_the_code_of_what_is_removed(world: World) -> None:
    running = world.near.spawn("run", "--rm", "busybox", "sh", "-c", "echo begun; sleep 2; echo over; exit 17")
    assert running.stdout is not None
    assert running.stdout.readline() == b"begun\n"
    with world.proxy.cutting(CUT_SECONDS):
        out, _ = running.communicate(timeout=60)
    assert (running.returncode, out) == (17, b"over\n")


def test_exec_with_stdin_and_half_close_over_cuts(world: World, name: str) -> None:
    world.near.out("run", "-d", "--name", name, "busybox", "sleep", "600")
    sent = random.Random(1).randbytes(30_000_000)
    slow = world.near.spawn("exec", "-i", name, "sh", "-c", "cat; echo end >&2; exit 4")
    assert slow.stdin is not None
    slow.stdin.write(sent[:1000])
    slow.stdin.flush()
    time.sleep(0.5)
    with world.proxy.cutting(CUT_SECONDS):
        out, err = slow.communicate(sent[1000:], timeout=60)
    assert slow.returncode == 4
    assert hashlib.sha256(out).digest() == hashlib.sha256(sent).digest()
    assert err == b"end\n"


@pytest.mark.parametrize("options", [[], ["-t"], ["--tail", "3"]])
def test_followed_logs_lose_and_double_no_line(world: World, name: str, options: list[str]) -> None:
    script = COUNT.format(n=40, pause=0.05, code=0) + " & for k in 1 2 3; do echo err $k >&2; sleep 0.5; done; wait"
    world.near.out("run", "-d", "--name", name, "busybox", "sh", "-c", script.replace("; exit 0", ""))
    with world.proxy.cutting(CUT_SECONDS):
        done = world.near.docker("logs", "-f", *options, name)
    assert done.returncode == 0
    whole = world.near.docker("logs", *(["-t"] if "-t" in options else []), name)
    assert whole.stdout.count(b"\n") == 40
    if "--tail" in options:
        assert whole.stdout.endswith(done.stdout)
        assert len(set(done.stdout.splitlines())) == done.stdout.count(b"\n")
    else:
        assert (done.stdout, done.stderr) == (whole.stdout, whole.stderr)


def test_followed_logs_of_a_terminal_and_of_unfinished_and_long_lines(world: World, name: str) -> None:
    script = (
        "head -c 40000 /dev/zero | tr '\\0' x; echo; for k in 1 2 3 4 5 6; do printf 'part %s,' $k; sleep 0.3; done"
    )
    world.near.out("run", "-dt", "--name", name, "busybox", "sh", "-c", script)
    with world.proxy.cutting(CUT_SECONDS):
        done = world.near.docker("logs", "-f", name)
    assert done.stdout == b"x" * 40000 + b"\r\npart 1,part 2,part 3,part 4,part 5,part 6,"


def test_wait_tells_what_ended_while_the_way_was_cut(world: World, name: str) -> None:
    world.near.out(
        "run", "-d", "--name", name, "busybox", "sh", "-c", "while ! test -e /go; do sleep 0.05; done; exit 33"
    )
    waiting = world.near.spawn("wait", name)
    time.sleep(0.3)
    with world.proxy.cutting(0.05):
        world.far.docker("exec", name, "touch", "/go")  # may itself be killed with the container
        time.sleep(0.5)
    out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, out, err) == (0, b"33\n", b"")


@pytest.mark.parametrize("condition", ["next-exit", "not-running"])
def test_wait_tells_the_first_end_of_what_was_started_again(world: World, name: str, condition: str) -> None:
    """It ends and is started again between two connections: the wait is over all the same, with that code."""
    script = (
        "while ! test -e /go; do sleep 0.05; done; rm /go; if test -e /again; then exit 6; fi; touch /again; exit 5"
    )
    world.near.out("run", "-d", "--name", name, "busybox", "sh", "-c", script)
    answers: list[object] = []

    def wait() -> None:
        answers.append(over_unix(world.near.address, "POST", f"/v1.50/containers/{name}/wait?condition={condition}"))

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(2)  # for the wait to be there also on a busy machine: it must have begun before the end
    with world.proxy.refusing():
        world.far.docker("exec", name, "touch", "/go")
        assert world.far.out("wait", name) == "5"
        world.far.out("start", name)
    waiting.join(30)
    assert answers == [(200, {"StatusCode": 5})]
    world.far.docker("exec", name, "touch", "/go")
    assert world.far.out("wait", name) == "6"


def test_wait_for_what_was_removed_meanwhile(world: World, name: str) -> None:
    world.near.out(
        "run", "-d", "--rm", "--name", name, "busybox", "sh", "-c", "while ! test -e /go; do sleep 0.05; done; exit 21"
    )
    waiting = world.near.spawn("wait", name)
    time.sleep(2)
    with world.proxy.refusing():
        world.far.docker("exec", name, "touch", "/go")
        world.far.until("", "ps", "-aq", "--filter", f"name={name}")
    out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, out, err) == (0, b"21\n", b"")


def test_events_come_once(world: World) -> None:
    listening = world.near.spawn(
        "events", "--format", "{{json .}}", "--filter", "event=create", "--filter", "type=container"
    )
    time.sleep(2)  # for it to listen, also on a busy machine
    made = []
    with world.proxy.cutting(0.15):
        for number in range(12):
            made.append(world.far.out("create", "--name", f"event-{number}", "busybox"))
            time.sleep(0.05)
    with world.proxy.refusing():
        made.append(world.far.out("create", "--name", "event-12", "busybox"))
    assert listening.stdout is not None
    told = [json.loads(listening.stdout.readline())["Actor"]["ID"] for _ in made]
    time.sleep(0.5)
    listening.terminate()
    out, _ = listening.communicate(timeout=10)
    world.far.docker("rm", *made)
    assert (told, out) == (made, b"")


def test_attach_and_terminal_over_cuts(world: World, name: str) -> None:
    first = Terminal(world.near, "run", "-it", "--name", name, "busybox", "sh", rows=30, columns=100)
    try:
        first.expect(b"/ # ")
        with world.proxy.cutting(CUT_SECONDS):
            first.send(b"stty size; for i in 1 2 3 4 5 6 7 8; do echo n$i; sleep 0.2; done\r")
            first.expect(b"30 100")
            for number in range(1, 9):
                first.expect(b"n%d\r\n" % number)
            first.send(b"\x10\x11")
            assert first.wait() == 0
            second = Terminal(world.near, "attach", name)
            try:
                second.send(b"echo back-$((40+2))\r")
                second.expect(b"back-42")
                second.send(b"exit 7\r")
                assert second.wait() == 7
            finally:
                second.close()
    finally:
        first.close()


def test_cp_and_load_of_large_archives(world: World, name: str, tmp_path: Path) -> None:
    world.near.out("run", "-d", "--name", name, "busybox", "sleep", "600")
    sent = os.urandom(40 * 1024 * 1024)
    (tmp_path / "big").write_bytes(sent)
    world.near.out("cp", str(tmp_path / "big"), f"{name}:/big")
    assert world.near.out("exec", name, "md5sum", "/big").split()[0] == hashlib.md5(sent).hexdigest()
    world.near.out("cp", f"{name}:/big", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == sent


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_far_side_is_stopped_and_started_again(world: World, name: str, how: str) -> None:
    # The container outlives its exec, however long the far side takes.
    script = COUNT.format(n=100, pause=0.1, code=12).replace("exit", "while ! test -e /go; do sleep 0.05; done; exit")
    world.near.out("run", "-d", "--name", name, "busybox", "sh", "-c", script)
    following = world.near.spawn("logs", "-f", name)
    waiting = world.near.spawn("wait", name)
    beside = world.near.spawn(
        "exec", "-i", name, "sh", "-c", "read a; echo got $a; sleep 3; read b; echo got $b; exit 3"
    )
    assert beside.stdin is not None
    assert beside.stdout is not None
    beside.stdin.write(b"one\n")
    beside.stdin.flush()
    assert beside.stdout.readline() == b"got one\n"
    getattr(world.far, how)()
    beside.stdin.write(b"two\n")
    beside.stdin.flush()
    time.sleep(0.5)
    world.far.start()
    out, err = beside.communicate(timeout=60)
    assert (out, err, beside.returncode) == (b"got two\n", b"", 3)
    world.near.docker("exec", name, "touch", "/go")
    assert waiting.communicate(timeout=60)[0] == b"12\n"
    assert following.communicate(timeout=60)[0].decode() == numbered(100)
