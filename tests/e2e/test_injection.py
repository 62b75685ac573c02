"""How the agent gets into containers: each way with the docker CLI, and refused at create where it cannot work."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.cloud.run_v2 import JobsClient
from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport

from agent_gateway.agent import binary
from tests import images
from tests.e2e.conftest import load_images
from tests.e2e.endpoint import SOCKERLESS, Endpoint, running_endpoint
from tests.e2e.test_failures import agent_process
from tests.registry import running_registry

WITHOUT = {
    "startup_command": {"single": b"the image has no /bin/sh", "user": b"user is not root"},
    "image_layer": {},
    "volume": {"user": b"user is not root"},
    "unwritable": {
        "single": b"image_layer: the registry is not writable (SOCKERLESS_GCR_REGISTRY_WRITABLE); volume: no bucket is "
        b"named for the agent (SOCKERLESS_GCR_AGENT_VOLUME); startup_command: the image has no /bin/sh",
    },
}


def environment(way: str) -> dict[str, str]:
    if way == "unwritable":
        return {"SOCKERLESS_GCR_REGISTRY_WRITABLE": "false"}
    return {"SOCKERLESS_GCR_INJECTION": way}


@pytest.fixture(scope="module", params=list(WITHOUT))
def way(request: pytest.FixtureRequest) -> Iterator[tuple[str, Endpoint]]:
    with running_endpoint(environment=environment(request.param)) as endpoint:
        load_images(endpoint)
        endpoint.out("load", stdin=images.busybox("user:latest", User="app"))
        yield request.param, endpoint


@pytest.fixture
def box(way: tuple[str, Endpoint]) -> Iterator[Endpoint]:
    yield way[1]
    way[1].docker("rm", "-f", "-v", "box")


def test_run_exec_logs_and_stdin(box: Endpoint) -> None:
    done = box.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    echoed = box.docker("run", "--rm", "-i", "busybox", "cat", stdin=b"x" * 300_000)
    assert (echoed.returncode, echoed.stdout) == (0, b"x" * 300_000)
    box.out("run", "-d", "--name", "box", "busybox", "sh", "-c", "echo logged; echo $PPID; sleep 300")
    box.until("logged\n1", "logs", "box")
    assert box.docker("exec", "-u", "app", "box", "sh", "-c", "id -u; exit 4").returncode == 4
    box.out("kill", "box")
    assert box.out("inspect", "-f", "{{.State.ExitCode}}", "box") == "137"


@pytest.mark.parametrize(
    ("image", "said"), [("single", "hello from scratch"), ("user", "app")], ids=["scratch", "another user"]
)
def test_where_it_cannot_work_create_says_why(way: tuple[str, Endpoint], box: Endpoint, image: str, said: str) -> None:
    name = way[0]
    reason = WITHOUT[name].get(image)
    command = [] if image == "single" else ["whoami"]
    if reason is None and not (name == "unwritable" and image == "user"):
        assert box.out("run", "--rm", image, *command) == said
        return
    refused = box.docker("create", "--name", "box", image, *command)
    assert refused.returncode == 1
    assert (reason or b"user is not root") in refused.stderr
    assert b"SOCKERLESS_GCR_INJECTION=none" in refused.stderr
    assert box.out("ps", "-aq") == ""


def test_starting_many_at_once(box: Endpoint) -> None:
    running = [box.spawn("run", "--rm", "-i", "busybox", "cat") for _ in range(8)]
    for number, one in enumerate(running):
        assert one.communicate(b"%d" % number, timeout=30)[0] == b"%d" % number


# --- without agent ---


def test_none_runs_the_command_alone_and_says_so() -> None:
    with running_endpoint(environment={"SOCKERLESS_GCR_INJECTION": "none"}) as endpoint:
        load_images(endpoint)
        done = endpoint.docker("run", "--name", "box", "busybox", "sh", "-c", "echo out; exit 3", timeout=15)
        assert done.returncode == 3
        assert b"WARNING: this endpoint runs containers without agent" in done.stderr
        assert endpoint.docker("logs", "box").stdout == b"out\n"
        assert endpoint.docker("run", "--rm", "single", timeout=15).returncode == 0
        endpoint.out("load", stdin=images.busybox("user:latest", User="app"))
        endpoint.docker("run", "--name", "me", "user", "whoami", timeout=15)
        assert endpoint.out("logs", "me") == "app"
        for option, reason in (("-i", b"stdin"), ("-t", b"terminal"), ("--read-only", b"--read-only")):
            refused = endpoint.docker("create", option, "busybox")
            assert refused.returncode == 1
            assert reason in refused.stderr


# --- the agent itself ---


def pinned(agent: bytes) -> bytes:
    """An image with an agent in its lower layer, and something else above it."""
    layers = []
    for name, content in ((".sockerless/agent", agent), ("readme", b"pinned")):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
        layers.append(out.getvalue())
    return images.archive("pinned:1", layers, {})


@pytest.mark.parametrize("injection", ["image_layer", "volume"])
def test_a_pinned_agent_takes_the_built_in_ones_place(injection: str) -> None:
    # Bytes after the end of an executable change nothing but its digest.
    agent = binary.path("amd64").read_bytes() + b"pinned"
    with running_registry() as registry:
        digest = registry.push("team/agent:1", pinned(agent))
        settings = {"SOCKERLESS_GCR_AGENT_IMAGE": f"{registry.host}/team/agent@{digest}"}
        with running_endpoint(environment=settings | {"SOCKERLESS_GCR_INJECTION": injection}) as endpoint:
            load_images(endpoint)
            box = endpoint.out("run", "-d", "busybox", "sleep", "300")
            assert Path(f"/proc/{agent_process(box)}/exe").read_bytes() == agent


@pytest.mark.parametrize(
    ("agent", "reason"),
    [(b"#!/bin/sh\n", b"is not an executable for amd64"), (None, b"cannot be fetched")],
    ids=["no executable", "no image"],
)
def test_a_pinned_agent_that_cannot_be_had_is_named(agent: bytes | None, reason: bytes) -> None:
    with running_registry() as registry:
        if agent is not None:
            registry.push("team/agent:1", pinned(agent))
        settings = {
            "SOCKERLESS_GCR_AGENT_IMAGE": f"{registry.host}/team/agent:1",
            "SOCKERLESS_GCR_INJECTION": "image_layer",
        }
        with running_endpoint(environment=settings) as endpoint:
            load_images(endpoint)
            refused = endpoint.docker("run", "--rm", "busybox", "true", timeout=20)
            assert refused.returncode == 125
            assert b"/team/agent:1" in refused.stderr
            assert reason in refused.stderr


# --- settings ---


def test_sizes_and_time_limit_come_from_the_environment() -> None:
    settings = {"SOCKERLESS_GCR_MEMORY": "600Mi", "SOCKERLESS_GCR_CPU": "2", "SOCKERLESS_GCR_TIMEOUT": "2"}
    with running_endpoint(environment=settings) as endpoint:
        load_images(endpoint)
        endpoint.out("run", "-d", "--name", "box", "busybox", "sleep", "300")
        assert job_limits(endpoint) == {"cpu": "2", "memory": "600Mi"}
        assert endpoint.out("wait", "box", timeout=30) == "143"


def job_limits(endpoint: Endpoint) -> dict[str, str]:
    """What the local cloud's one job was sold."""
    ports = json.loads((endpoint.data / "cloud" / "ports.json").read_text())
    with grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
        jobs = JobsClient(transport=JobsGrpcTransport(channel=channel))
        (job,) = jobs.list_jobs(parent="projects/local/locations/us-central1")
        return dict(job.template.template.containers[0].resources.limits)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SOCKERLESS_GCR_PROJECT", "mine", "the local cloud is the project 'local'"),
        ("SOCKERLESS_ENDPOINT_URL", "http://127.0.0.1:1", "brings its own local cloud"),
        ("SOCKERLESS_GCR_SERVICE_ACCOUNT", "x@y", "no identity"),
        ("SOCKERLESS_GCR_VPC_CONNECTOR", "c", "no VPC"),
        ("SOCKERLESS_GCR_INJECTION", "magic", "SOCKERLESS_GCR_INJECTION"),
        ("SOCKERLESS_GCR_AGENT_IMAGE", "Not Valid", "SOCKERLESS_GCR_AGENT_IMAGE"),
        ("SOCKERLESS_GCR_AGENT_TOKEN", "short", "at least 32 characters"),
        ("SOCKERLESS_BIND_RULES", "nonsense", "SOCKERLESS_BIND_RULES"),
    ],
)
def test_up_refuses_what_it_would_not_follow(
    tmp_path_factory: pytest.TempPathFactory, variable: str, value: str, said: str
) -> None:
    data = tmp_path_factory.mktemp("d")
    endpoint = Endpoint(data, environment={variable: value})
    with contextlib.suppress(RuntimeError):
        endpoint.start()
    try:
        assert endpoint.process is not None
        assert endpoint.process.wait(20) == 1
        (line,) = endpoint.log.read_text().splitlines()
        assert line.startswith("sockerless: ")
        assert variable in line
        assert said in line
    finally:
        subprocess.run([*SOCKERLESS, "down", "--data", str(data)], check=False, capture_output=True, timeout=30)
