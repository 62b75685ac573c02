"""The functions on Google Cloud, each run by functions-framework in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.model import AgentLink, Container, Execution, RunState
from control_plane.store.sqlite import SqliteStore
from tests.contract.hosted_process import (
    GATEWAY,
    START_LIMIT,
    ControlPlaneProcess,
    environment,
    local_cloud,
    new_token,
    stored,
)
from tests.free_ports import free_port

SOURCE = "control_plane/entrypoints/gcp_functions.py"
PARENT = "projects/local/locations/us-central1/jobs/sockerless-abc"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with local_cloud(tmp_path_factory.mktemp("functions-cloud")) as variables:
        yield variables


@contextlib.contextmanager
def function(target: str, directory: Path, kind: str = "http", **variables: str) -> Iterator[str]:
    """`functions-framework --target=…`; its URL."""
    port = free_port()
    log = directory / f"{target}.log"
    command = [sys.executable, "-m", "functions_framework", "--source", SOURCE, "--target", target]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--signature-type", kind, "--host", "127.0.0.1", "--port", str(port)],
            stdout=out,
            stderr=out,
            env=environment(directory, **variables),
        )
    try:
        deadline = time.monotonic() + START_LIMIT
        while True:
            with contextlib.suppress(httpx.ConnectError):
                httpx.get(f"http://127.0.0.1:{port}/favicon.ico")
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text()[-4000:])
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def container(name: str, execution: str, *, connected: bool) -> Container:
    return Container(
        id=name * 64,
        tenant="team",
        name=f"container-{name}",
        created_at="2026-01-01T00:00:00Z",
        image="busybox",
        image_id="sha256:" + "0" * 64,
        config={"Labels": {}, "Tty": False, "OpenStdin": False},
        host_config={"RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": False},
        backend="cloudrun",
        gateway=GATEWAY,
        state=RunState(status="running", run=1, started_at="2026-01-01T00:00:00Z"),
        execution=Execution(
            name=f"{PARENT}/executions/{execution}",
            job="sockerless-abc",
            first_run=1,
            created_at="2026-01-01T00:00:00Z",
        ),
        agent=AgentLink(boot="boot", gateway=GATEWAY, connected=connected),
    )


def put(directory: Path, *containers: Container) -> None:
    async def write(store: SqliteStore) -> None:
        for one in containers:
            await store.create("containers", one.tenant, one.id, one.model_dump(mode="json"))

    stored(directory, write)


def statuses(directory: Path) -> dict[str, str]:
    async def read(store: SqliteStore) -> dict[str, str]:
        return {d.body["name"]: d.body["state"]["status"] for d in await store.list("containers")}

    return stored(directory, read)


def until(directory: Path, wanted: dict[str, str]) -> None:
    deadline = time.monotonic() + 15
    while (seen := statuses(directory)) != wanted:
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)


def audit_event(execution: str) -> dict[str, Any]:
    """A system event of Cloud Run's audit log, as Eventarc sends it."""
    return {
        "logName": "projects/local/logs/cloudaudit.googleapis.com%2Fsystem_event",
        "resource": {"type": "cloud_run_job", "labels": {"job_name": "sockerless-abc", "location": "us-central1"}},
        "protoPayload": {
            "@type": "type.googleapis.com/google.cloud.audit.AuditLog",
            "serviceName": "run.googleapis.com",
            "methodName": "/Jobs.RunJob",
            "resourceName": f"namespaces/local/executions/{execution}",
            "response": {"kind": "Execution", "metadata": {"name": execution}},
        },
    }


def send(url: str, data: dict[str, Any]) -> httpx.Response:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-type": "google.cloud.audit.log.v1.written",
        "ce-source": "//cloudaudit.googleapis.com/projects/local/logs/system_event",
        "content-type": "application/json",
    }
    return httpx.post(url, headers=headers, content=json.dumps(data), timeout=60)


def test_the_event_of_an_ended_execution_ends_its_container(cloud: dict[str, str], tmp_path: Path) -> None:
    """The local cloud has no such execution any more: what Cloud Run says of one it has deleted."""
    others = container("b", "other-2", connected=False), container("c", "gone-3", connected=True)
    put(tmp_path, container("a", "gone-1", connected=False), *others)
    with function("execution_finished", tmp_path, "cloudevent", **cloud) as url:
        assert send(url, audit_event("gone-3")).status_code == 200  # its agent is connected, and will tell
        assert send(url, audit_event("gone-1")).status_code == 200
        until(tmp_path, {"container-a": "exited", "container-b": "running", "container-c": "running"})
        assert send(url, audit_event("gone-1")).status_code == 200  # Eventarc may say it twice
        assert send(url, audit_event("nobodys")).status_code == 200
        assert send(url, {"protoPayload": {"resourceName": "namespaces/local/services/x"}}).status_code == 200
    assert statuses(tmp_path) == {"container-a": "exited", "container-b": "running", "container-c": "running"}


def test_a_scheduled_pass_and_sweep(cloud: dict[str, str], tmp_path: Path) -> None:
    put(tmp_path, container("a", "gone-1", connected=False), container("b", "gone-2", connected=True))
    with function("reconcile", tmp_path, **cloud) as url:
        assert httpx.post(url, timeout=60).status_code == 200
        # The other one's agent is connected, and is believed.
        until(tmp_path, {"container-a": "exited", "container-b": "running"})
    with function("sweep", tmp_path, **cloud) as url:
        assert httpx.post(url, timeout=60).text == "done\n"


def test_the_api_for_short_calls(cloud: dict[str, str], tmp_path: Path) -> None:
    token, known = new_token(tmp_path), "a" * 64
    put(tmp_path, container("a", "gone-1", connected=True))
    with function("api", tmp_path, **cloud) as url:
        docker = ControlPlaneProcess(tmp_path, cloud, port=int(url.rpartition(":")[2]), token=token)
        assert docker.out("ps", "--format", "{{.Names}}") == "container-a"
        assert "Server Version" in docker.out("info")
        assert json.loads(docker.out("inspect", known))[0]["State"]["Status"] == "running"
        assert httpx.get(f"{url}/containers/json").status_code == 401
        for forged in ("X-Sockerless-Client-Certificate", "X-Sockerless-Attested", "x_sockerless_attested"):
            status = httpx.get(f"{url}/containers/json", headers={forged: "CN=ci"}).status_code
            assert status == (401 if "_" in forged else 403)
        for arguments in (("events",), ("logs", "-f", known), ("wait", known), ("pull", "busybox")):
            refused = docker.docker(*arguments)
            assert refused.returncode != 0
            assert GATEWAY in refused.stderr.decode()
        attached = docker.docker("exec", known, "true")
        assert attached.returncode != 0
        answer = httpx.post(f"{url}/v1.44/containers/x/attach", headers=docker.headers())
        assert answer.status_code == 501
        assert GATEWAY in answer.json()["message"]
