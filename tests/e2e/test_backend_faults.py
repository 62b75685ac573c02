"""The cloud fails: calls are refused, answers are lost, operations fail or take long, quotas are exhausted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.cloud.run_v2 import ExecutionsClient
from google.cloud.run_v2.services.executions.transports import ExecutionsGrpcTransport

from tests.e2e.backends import EACH_BACKEND, missing
from tests.e2e.cloud import TEMPLATES, Cloud, Fault
from tests.e2e.conftest import load_images
from tests.e2e.endpoint import Endpoint, running_endpoint

MANY = {"cloudrun": 40, "gcf": 30, "azf": 30}
AT_ONCE = 8
UNRELIABLE: dict[str, list[Fault]] = {
    "*": [{"status": "UNAVAILABLE", "probability": 0.1}, {"lost_response": True, "probability": 0.1}],
}
MAKING = {"cloudrun": "Jobs.CreateJob", "gcf": "Functions.CreateFunction", "azf": "Sites.CreateOrUpdate"}
"""The cloud call that makes what a container runs in."""


@pytest.mark.timeout(400)
def test_a_hundred_containers_while_a_fifth_of_all_calls_fails() -> None:
    with running_endpoint(environment={"SOCKERLESS_GCF_POOL": "0"}) as own:
        load_images(own)
        cloud = Cloud(own)
        runs = {f"{backend}-{n}": (backend, n * 7 % 256) for backend, count in MANY.items() for n in range(count)}

        def run(name: str) -> tuple[int, bytes, bytes]:
            backend, code = runs[name]
            shared = [] if missing(backend, "HostConfig.Binds") else ["-v", "ledger:/ledger"]
            script = f"mkdir -p /ledger; echo {name} | tee -a /ledger/lines; exit {code}"
            done = own.docker(
                "run", "--name", name, "--runtime", backend, *shared, "busybox", "sh", "-c", script, timeout=200
            )
            return done.returncode, done.stdout, done.stderr

        def remove(name: str) -> tuple[int, bytes]:
            done = own.docker("rm", name, timeout=200)
            return done.returncode, done.stderr

        with ThreadPoolExecutor(AT_ONCE) as clients:
            cloud.reset()
            with cloud.failing(UNRELIABLE):
                told = dict(zip(runs, clients.map(run, runs), strict=True))
            assert told == {name: (code, f"{name}\n".encode(), b"") for name, (_, code) in runs.items()}
            made = cloud.settled()
            assert sum(made[method] for method in MAKING.values()) > 62, (
                made
            )  # some were made twice, or asked for again
            there = cloud.resources()
            assert {kind: there.get(kind) for kind in ("functions", "run.services", "web.sites", "web.plans")} == {
                "functions": 30, "run.services": 30, "web.sites": 30, "web.plans": 30,
            }, there  # fmt: skip
            assert len(executions(own)) == MANY["cloudrun"]
            ledger = own.out("run", "--rm", "-v", "ledger:/ledger", "busybox", "cat", "/ledger/lines").split()
            with_ledger = {backend for backend in MANY if not missing(backend, "HostConfig.Binds")}
            assert sorted(ledger) == sorted(name for name, (backend, _) in runs.items() if backend in with_ledger)
            with cloud.failing(UNRELIABLE):
                assert dict(zip(runs, clients.map(remove, runs), strict=True)) == dict.fromkeys(runs, (0, b""))
        assert own.out("ps", "-aq") == ""
        own.out("volume", "rm", "ledger")
        cloud.until_left({}, limit=60)
        # One template for the image with the agent's layer; one for where it could not be pushed.
        assert cloud.resources().get(TEMPLATES) in {1, 2}
        log = own.log.read_text()
        assert "Traceback" not in log, log[-6000:]


def executions(endpoint: Endpoint) -> list[str]:
    """All executions of Cloud Run jobs there ever were."""
    ports = json.loads((endpoint.data / "cloud" / "ports.json").read_text())
    with grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
        client = ExecutionsClient(transport=ExecutionsGrpcTransport(channel=channel))
        return [one.name for one in client.list_executions(parent="projects/local/locations/us-central1/jobs/-")]


@pytest.fixture(scope="module")
def own(backend: str) -> Iterator[Endpoint]:
    settings = {"SOCKERLESS_GCF_POOL": "0", "SOCKERLESS_START_TIMEOUT": "10", "SOCKERLESS_GCF_START_TIMEOUT": "10"}
    with running_endpoint("--backend", backend, environment=settings) as endpoint:
        load_images(endpoint)
        yield endpoint


@pytest.fixture
def cloud(own: Endpoint, backend: str) -> Iterator[Cloud]:
    """Whatever a test does to the cloud, its containers can be removed and leave nothing."""
    cloud = Cloud(own)
    yield cloud
    cloud.faults({})
    own.docker("rm", "-f", "box")
    cloud.until_left({})


@EACH_BACKEND
def test_an_exhausted_quota_is_told(own: Endpoint, cloud: Cloud, backend: str) -> None:
    with cloud.failing({MAKING[backend]: {"status": "RESOURCE_EXHAUSTED"}}):
        done = own.docker("run", "--name", "box", "-m", "1g", "busybox", "sh", "-c", "exit 4", timeout=60)
    assert done.returncode == 125
    assert b"quota" in done.stderr, done.stderr
    assert own.out("inspect", "-f", "{{.State.Status}}", "box") == "created"
    assert own.docker("start", "-a", "box", timeout=100).returncode == 4


@EACH_BACKEND
def test_an_operation_that_fails_is_told_and_can_be_tried_again(own: Endpoint, cloud: Cloud, backend: str) -> None:
    with cloud.failing({MAKING[backend]: {"operation_error": "INTERNAL"}}):
        done = own.docker("run", "--name", "box", "-m", "2g", "busybox", "sh", "-c", "exit 4", timeout=100)
    assert done.returncode == 125
    assert b"Error response from daemon: " in done.stderr
    assert own.docker("start", "-a", "box", timeout=100).returncode == 4


@EACH_BACKEND
def test_a_slow_operation_is_waited_for(own: Endpoint, cloud: Cloud, backend: str) -> None:
    with cloud.failing({MAKING[backend]: {"operation_delay": 4}}):
        done = own.docker(
            "run", "--name", "box", "-m", "3g", "--cpus", "2", "busybox", "sh", "-c", "exit 4", timeout=100
        )
    assert (done.returncode, done.stderr) == (4, b"")


@EACH_BACKEND
def test_removed_while_it_is_being_made(own: Endpoint, cloud: Cloud, backend: str) -> None:
    cloud.reset()
    with cloud.failing({MAKING[backend]: {"operation_delay": 3}}):
        own.out("create", "--name", "box", "-m", "4g", "--cpus", "2", "busybox")
        if backend != "cloudrun":
            cloud.until_called(MAKING[backend])
        own.out("rm", "box")
        cloud.settled(4)
    assert own.docker("inspect", "box").returncode == 1
