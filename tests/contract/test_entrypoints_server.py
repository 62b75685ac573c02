"""The control plane as a service of its own: hypercorn, HTTP/1.1 and h2c, a SQLite store, the local cloud."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import images
from tests.contract.hosted_process import (
    GATEWAY,
    ControlPlaneProcess,
    environment,
    gateway_token,
    local_cloud,
    new_token,
)
from tests.contract.otlp_collector import collecting


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlaneProcess]:
    directory = tmp_path_factory.mktemp("hosted")
    with local_cloud(directory) as variables:
        served = ControlPlaneProcess(directory, variables, token=new_token(directory))
        served.start()
        try:
            served.out("load", stdin=images.busybox())
            yield served
        finally:
            served.stop()


def test_plain_docker_commands(served: ControlPlaneProcess) -> None:
    assert "cloudrun: Cloud Run" in served.out("info")
    container = served.out("create", "--name", "plain", "-l", "a=b", "busybox", "echo", "hello")
    assert served.out("ps", "-aq", "--no-trunc") == container
    found = json.loads(served.out("inspect", "plain"))[0]
    assert found["Config"]["Labels"] == {"a": "b"}
    assert served.out("logs", "plain") == ""
    served.out("cp", sys.executable, "plain:/tmp/python")
    served.out("volume", "create", "data")
    served.out("volume", "rm", "data")
    served.out("rm", "plain")
    assert served.docker("inspect", "plain").returncode == 1


def test_containers_get_the_gateway_of_the_settings(served: ControlPlaneProcess) -> None:
    from control_plane.store.sqlite import SqliteStore
    from tests.contract.hosted_process import stored

    container = served.out("create", "busybox")

    async def gateway(store: SqliteStore) -> str:
        return str(next(d.body["gateway"] for d in await store.list("containers") if d.key == container))

    assert stored(served.directory, gateway) == GATEWAY
    served.out("rm", container)


def test_without_a_fixed_gateway_it_is_one_that_has_registered(tmp_path: Path) -> None:
    with local_cloud(tmp_path) as variables:
        served = ControlPlaneProcess(tmp_path, {**variables, "SOCKERLESS_GATEWAY_URL": ""}, token=new_token(tmp_path))
        served.start()
        try:
            served.out("load", stdin=images.busybox())
            refused = served.docker("create", "busybox")
            assert b"no gateway is available" in refused.stderr
            lease = {"instance": "i", "load": 0, "draining": False}
            gateway = {"authorization": f"Bearer {gateway_token()}"}
            registered = httpx.put(f"{served.url}/internal/v1/gateways", json=lease, headers=gateway)
            assert registered.status_code == 200
            time.sleep(2.1)  # so long a reading of the registry serves
            assert served.docker("create", "busybox").returncode == 0
            status = httpx.get(f"{served.url}/internal/v1/status", headers=gateway).json()
            assert [found["Url"] for found in status["Gateways"]] == [GATEWAY]
        finally:
            served.stop()


def test_without_a_token_nothing_is_told(served: ControlPlaneProcess) -> None:
    for path in ("/info", "/containers/json", "/_ping"):
        answer = httpx.get(served.url + path)
        assert answer.status_code == 401
        assert answer.headers["api-version"]
        assert "message" in answer.json()


def test_h2c_with_prior_knowledge(served: ControlPlaneProcess) -> None:
    with httpx.Client(http1=False, http2=True, headers=served.headers(), timeout=20) as client:
        answer = client.get(f"{served.url}/v1.44/containers/json")
        assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
        # More than the 32 MiB that Cloud Run allows an HTTP/1 request.
        layer = images.busybox("large:latest", extra=bytes(40 * 1024 * 1024))
        loaded = client.post(f"{served.url}/images/load", content=io.BytesIO(layer))
        assert (loaded.http_version, loaded.status_code) == ("HTTP/2", 200)
        assert "Loaded image: large:latest" in loaded.text


@pytest.mark.parametrize("http2", [False, True])
def test_a_wait_is_answered_at_once_and_ends_with_the_server(tmp_path: Path, http2: bool) -> None:
    """The platform's SIGTERM: who waits is cut after the time the settings give, not left hanging."""
    served = ControlPlaneProcess(tmp_path, {"SOCKERLESS_GRACEFUL": "0.5"}, token=new_token(tmp_path))
    served.start()
    ended: list[str] = []

    def follow(client: httpx.Client, begun: threading.Event) -> None:
        try:
            with client.stream("GET", f"{served.url}/events") as answer:
                begun.set()
                assert answer.status_code == 200
                for _ in answer.iter_raw():
                    pass
            ended.append("whole")
        except httpx.HTTPError as error:
            ended.append(type(error).__name__)

    with httpx.Client(http1=not http2, http2=http2, headers=served.headers(), timeout=30) as client:
        begun = threading.Event()
        following = threading.Thread(target=follow, args=(client, begun))
        following.start()
        assert begun.wait(20)
        assert served.stop() == 0
        following.join(20)
        assert not following.is_alive()
    assert ended
    with pytest.raises(httpx.ConnectError):
        served.get("/_ping")


def test_readiness_says_whether_the_store_answers(served: ControlPlaneProcess) -> None:
    answer = httpx.get(f"{served.url}/_ready")
    assert answer.status_code == 200
    assert answer.json()["store_milliseconds"] >= 0


def test_metrics_are_for_this_machine_and_for_gateways(served: ControlPlaneProcess) -> None:
    served.out("ps")
    page = httpx.get(f"{served.url}/metrics")
    assert page.status_code == 200
    assert 'route="/containers/json"' in page.text
    through_a_proxy = {"x-forwarded-for": "203.0.113.7"}
    assert httpx.get(f"{served.url}/metrics", headers=through_a_proxy).status_code == 401
    as_user = through_a_proxy | served.headers()
    assert httpx.get(f"{served.url}/metrics", headers=as_user).status_code == 401
    as_gateway = through_a_proxy | {"authorization": f"Bearer {gateway_token()}"}
    assert httpx.get(f"{served.url}/metrics", headers=as_gateway).status_code == 200


def test_the_log_is_json_without_the_token(served: ControlPlaneProcess) -> None:
    name = "logged"
    served.out("create", "--name", name, "-e", "PASSWORD=hunter2hunter2", "busybox")
    served.out("inspect", name)
    served.out("rm", name)
    entries = [json.loads(line) for line in served.log.splitlines()]
    mine = [entry for entry in entries if entry.get("container") == name]
    assert {entry["tenant"] for entry in mine} == {"team"}
    assert all(entry["request"] for entry in mine)
    assert "hunter2" not in served.log
    assert served.token not in served.log
    assert served.token.split("_", 2)[2] not in served.log


def test_status(served: ControlPlaneProcess) -> None:
    def status(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "control_plane.entrypoints.cli", "status", served.url, *options],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env={"PATH": "/usr/bin:/bin", **variables},
        )

    served.out("create", "--name", "counted", "busybox")
    mine = json.loads(status("--json", "--token", served.token).stdout)
    assert mine["Tenant"] == "team"
    assert mine["Containers"] == {"created": 1}
    assert mine["Backends"] == {"cloudrun": "Cloud Run"}
    everything = json.loads(status("--json", SOCKERLESS_KEY=environment(served.directory)["SOCKERLESS_KEY"]).stdout)
    assert everything["Tenant"] is None
    assert "1 created" in status("--token", served.token).stdout
    refused = status()
    assert refused.returncode == 1
    assert "401" in refused.stderr
    served.out("rm", "counted")


def test_settings_that_do_not_allow_a_start_are_one_line(tmp_path: Path) -> None:
    variables = environment(tmp_path, SOCKERLESS_STORE="redis://x")
    done = subprocess.run(
        [sys.executable, "-m", "control_plane.entrypoints.cloud_run"],
        capture_output=True,
        text=True,
        env=variables,
        timeout=30,
        check=False,
    )
    assert done.returncode == 78
    assert done.stderr.startswith("sockerless: SOCKERLESS_STORE: ")
    assert done.stderr.count("\n") == 1


def test_under_hypercorns_own_command(tmp_path: Path) -> None:
    """`hypercorn control_plane.entrypoints.cloud_run:app`, for whoever brings a configuration of their own."""
    from tests.free_ports import free_port

    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}", "control_plane.entrypoints.cloud_run:app"],
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/_ready", timeout=20).status_code == 200
                break
            except httpx.ConnectError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_traces_reach_the_collector_and_go_on_with_the_callers(tmp_path: Path) -> None:
    """OTLP over HTTP: spans are there when the process has ended, and carry the caller's trace."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    with collecting() as collector:
        served = ControlPlaneProcess(tmp_path, collector.variables, token=new_token(tmp_path))
        served.start()
        headers = served.headers() | {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        assert httpx.get(f"{served.url}/containers/json", headers=headers).status_code == 200
        assert served.stop() == 0
    (span,) = [span for span in collector.spans() if span.trace == trace]
    assert (span.service, span.name) == ("sockerless-control-plane", "GET /containers/json")
    assert span.parent == "b7ad6b7169203331"
    assert served.token.encode() not in b"".join(collector.bodies)
    assert trace in served.log
