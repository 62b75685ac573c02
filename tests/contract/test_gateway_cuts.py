"""The docker CLI in direct mode, by certificate, while the way from the gateway to the control plane is cut."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import images
from tests.contract.direct_endpoint import Direct, direct_endpoint
from tests.contract.front_end_proxy import FrontEndProxy
from tests.contract.hosted_process import new_token

_MISSING = [program for program in ("docker", "haproxy", "busybox") if shutil.which(program) is None]
pytestmark = pytest.mark.skipif(bool(_MISSING), reason=f"not installed on this machine: {', '.join(_MISSING)}")
CUT_SECONDS = 0.4
ON_SIGNAL = "trap 'exit {code}' USR1; echo up; while :; do sleep 0.05; done"


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Direct]:
    directory = tmp_path_factory.mktemp("direct")
    with direct_endpoint(directory, FrontEndProxy) as endpoint:
        endpoint.plane.token = new_token(directory, "acme")
        endpoint.out("ci", "load", stdin=images.busybox())
        yield endpoint


@pytest.fixture
def front_end(direct: Direct) -> FrontEndProxy:
    assert isinstance(direct.front_end, FrontEndProxy)
    return direct.front_end


@pytest.fixture
def name(direct: Direct, request: pytest.FixtureRequest) -> Iterator[str]:
    chosen = request.node.name.replace("[", "-").replace("]", "")[:60]
    yield chosen
    direct.plane.docker("rm", "-f", chosen)


def spawn(direct: Direct, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["docker", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=direct.client_environment("ci"),
    )


def up(direct: Direct, name: str) -> None:
    """Its trap is set: a signal has its effect from now on."""
    deadline = time.monotonic() + 20
    while direct.plane.out("logs", name) != "up":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gone(direct: Direct, name: str) -> None:
    deadline = time.monotonic() + 20
    while direct.plane.out("ps", "-aq", "--filter", f"name={name}"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("options", [[], ["--rm"]])
def test_run_has_its_output_and_code_over_cuts(direct: Direct, front_end: FrontEndProxy, options: list[str]) -> None:
    script = "i=0; while [ $i -lt 25 ]; do echo line $i; i=$((i+1)); sleep 0.1; done; exit 17"
    running = spawn(direct, "run", *options, "busybox", "sh", "-c", script)
    assert running.stdout is not None
    assert running.stdout.readline() == b"line 0\n"
    cuts = front_end.cuts
    with front_end.cutting(CUT_SECONDS):
        out, err = running.communicate(timeout=60)
    assert front_end.cuts > cuts + 1
    assert (running.returncode, out.decode(), err) == (17, "".join(f"line {n}\n" for n in range(1, 25)), b"")


def test_wait_tells_what_ended_while_the_way_was_cut(direct: Direct, front_end: FrontEndProxy, name: str) -> None:
    direct.out("ci", "run", "-d", "--name", name, "busybox", "sh", "-c", ON_SIGNAL.format(code=33))
    up(direct, name)
    waiting = spawn(direct, "wait", name)
    time.sleep(2)  # for the wait to be there, also on a busy machine
    with front_end.refusing():
        direct.plane.out("kill", "-s", "USR1", name)
        assert direct.plane.out("wait", name) == "33"
        assert waiting.poll() is None
    out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, out, err) == (0, b"33\n", b"")


def test_wait_for_what_was_removed_meanwhile(direct: Direct, front_end: FrontEndProxy, name: str) -> None:
    direct.out("ci", "run", "-d", "--rm", "--name", name, "busybox", "sh", "-c", ON_SIGNAL.format(code=21))
    up(direct, name)
    waiting = spawn(direct, "wait", name)
    time.sleep(2)
    with front_end.refusing():
        direct.plane.out("kill", "-s", "USR1", name)
        gone(direct, name)
    out, err = waiting.communicate(timeout=30)
    assert (waiting.returncode, out, err) == (0, b"21\n", b"")


def test_followed_logs_lose_and_double_no_line(direct: Direct, front_end: FrontEndProxy, name: str) -> None:
    script = "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); sleep 0.05; done; echo err >&2"
    direct.out("ci", "run", "-d", "--name", name, "busybox", "sh", "-c", script)
    with front_end.cutting(CUT_SECONDS):
        done = direct.docker("ci", "logs", "-f", name)
    assert (done.returncode, done.stdout.decode()) == (0, "".join(f"line {n}\n" for n in range(40)))
    assert done.stderr == b"err\n"


def test_events_come_once(direct: Direct, front_end: FrontEndProxy) -> None:
    listening = spawn(
        direct, "events", "--format", "{{json .}}", "--filter", "event=create", "--filter", "type=container"
    )
    time.sleep(2)
    made = []
    with front_end.cutting(0.15):
        made += [direct.plane.out("create", "busybox") for _ in range(8)]
    with front_end.refusing():
        made.append(direct.plane.out("create", "busybox"))
    assert listening.stdout is not None
    told = [json.loads(listening.stdout.readline())["Actor"]["ID"] for _ in made]
    time.sleep(0.5)
    listening.terminate()
    out, _ = listening.communicate(timeout=10)
    direct.plane.docker("rm", *made)
    assert (told, out) == (made, b"")


def test_a_create_whose_answer_is_lost_makes_one_container(direct: Direct, front_end: FrontEndProxy) -> None:
    with front_end.losing_one_answer(b"/containers/create"):
        made = direct.out("ci", "create", "--label", "once", "busybox")
    assert len(front_end.lost) == 1
    assert direct.plane.out("ps", "-aq", "--no-trunc", "--filter", "label=once") == made
    direct.plane.docker("rm", made)


def test_an_exec_whose_ticket_is_lost_runs_once(direct: Direct, front_end: FrontEndProxy, name: str) -> None:
    direct.out("ci", "run", "-d", "--name", name, "busybox", "sh", "-c", ON_SIGNAL.format(code=0))
    lost = len(front_end.lost)
    with front_end.losing_one_answer(b"/internal/v1/tickets"):
        done = direct.docker("ci", "exec", name, "sh", "-c", "echo one | tee -a /ran; exit 4")
    assert len(front_end.lost) == lost + 1
    assert (done.returncode, done.stdout) == (4, b"one\n")
    assert direct.out("ci", "exec", name, "cat", "/ran") == "one"


def test_refusals_pass_as_they_are(direct: Direct, tmp_path: Path) -> None:
    for arguments in (("wait", "nobody"), ("logs", "-f", "nobody")):
        refused = direct.docker("ci", *arguments)
        assert refused.returncode == 1
        assert b"No such container: nobody" in refused.stderr
    # Another tenant's credentials see nothing of it, whoever asked on the same connections before.
    mine = direct.out("ci", "create", "busybox")
    refused = direct.docker("nobody", "wait", mine, token=direct.token)
    assert b"No such container" in refused.stderr
    assert b"wants a token" in direct.docker("nobody", "wait", mine).stderr
    direct.plane.docker("rm", mine)
