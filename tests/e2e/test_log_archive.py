"""`docker logs` after the agent is gone: what the platform's log archive gives back is what the agent gave."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.backends import EACH_BACKEND
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import load_images
from tests.e2e.endpoint import Endpoint, running_endpoint
from tests.e2e.test_failures import agent_process

pytestmark = EACH_BACKEND

# Several lines, both streams, bytes that are no UTF-8, JSON, a line longer than an entry, a last line without an end.
SCRIPT = r"""
for i in 1 2 3 4 5; do echo line $i; done
sleep 0.05; echo aside >&2; sleep 0.05
printf '\377\000\n{"a":1,"severity":"ERROR"}\n\n"quoted"\ttab\r\n'
yes 0123456789abcde | head -c 100000 | tr '\n' x; echo
sleep 0.05; printf 'err without end' >&2; sleep 0.05
printf 'last without newline'
exit 6
"""
ENVIRONMENT = {"SOCKERLESS_LINGER": "3", "SOCKERLESS_GCF_POOL": "0"}
CUTS = [[], ["--tail", "0"], ["--tail", "1"], ["--tail", "3"], ["--tail", "100"], ["-f"]]


@pytest.fixture(scope="module")
def brief(backend: str) -> Iterator[Endpoint]:
    """Agents leave soon after the process has ended."""
    with running_endpoint("--backend", backend, environment=ENVIRONMENT) as endpoint:
        load_images(endpoint)
        yield endpoint


def logs(endpoint: Endpoint, *options: str) -> tuple[bytes, bytes]:
    done = endpoint.docker("logs", *options, "box", timeout=15, check=True)
    return done.stdout, done.stderr


def reads(endpoint: Endpoint) -> int:
    return sum(n for name, n in Cloud(endpoint).calls().items() if "Log" in name or name == "Monitor.Query")


def until_gone(endpoint: Endpoint) -> None:
    """The linger time passes; from then on logs are read from the platform's archive."""
    deadline = time.monotonic() + 15
    before = reads(endpoint)
    while reads(endpoint) == before:
        assert time.monotonic() < deadline, "the agent is still there"
        time.sleep(0.2)
        logs(endpoint, "--tail", "1")


@pytest.fixture
def box(brief: Endpoint) -> Iterator[Endpoint]:
    yield brief
    brief.docker("rm", "-f", "-v", "box")


@pytest.mark.parametrize("terminal", [False, True], ids=["streams", "terminal"])
def test_the_archive_is_byte_for_byte_and_stamp_for_stamp_what_the_agent_gave(box: Endpoint, terminal: bool) -> None:
    options = ["-t"] if terminal else []
    box.out("run", "-d", *options, "--name", "box", "busybox", "sh", "-c", SCRIPT)
    assert box.out("wait", "box") == "6"
    plain = {tuple(cut): logs(box, *cut) for cut in CUTS}
    stamped = logs(box, "-t")
    moments = [line.split(b" ")[0].decode() for line in stamped[0].splitlines() if line.startswith(b"20")]
    spans = [
        ["--since", moments[2]],
        ["--until", moments[2]],
        ["--since", moments[1], "--until", moments[3], "--tail", "99"],
    ]
    spanned = [logs(box, "-t", *span) for span in spans]
    assert len({*spanned, stamped}) == 4
    until_gone(box)
    assert logs(box, "-t") == stamped
    assert {tuple(cut): logs(box, *cut) for cut in CUTS} == plain
    assert [logs(box, "-t", *span) for span in spans] == spanned


def test_its_file_system_is_gone_too_and_a_start_makes_a_new_one(box: Endpoint) -> None:
    box.out("run", "--name", "box", "busybox", "sh", "-c", "cat /mark || echo fresh; echo used > /mark")
    until_gone(box)
    refused = box.docker("cp", "box:/mark", "-", timeout=15)
    assert refused.returncode == 1
    assert b"linger time passed" in refused.stderr
    started = box.docker("start", "-a", "box", timeout=15)
    assert started.stdout == b"fresh\n"
    assert box.out("cp", "box:/mark", "-") != ""


def test_followers_read_on_when_the_agent_is_killed(box: Endpoint) -> None:
    identifier = box.out("run", "-d", "--name", "box", "busybox", "sh", "-c", "echo one; echo two >&2; sleep 300")
    box.until("one", "logs", "box")
    before = logs(box, "-t")
    followed = box.spawn("logs", "-f", "-t", "box")
    assert followed.stdout is not None
    assert followed.stdout.readline() == before[0]
    os.kill(agent_process(identifier), signal.SIGKILL)
    out, err = followed.communicate(timeout=40)
    assert (out, err) == (b"", before[1])
    assert box.out("wait", "box", timeout=40) == "137"
    assert logs(box, "-t") == before
    assert logs(box, "-f", "-t") == before
