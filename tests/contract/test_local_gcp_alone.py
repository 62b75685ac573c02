"""The local cloud as a process of its own, with the real runtime: images really run, and kill -9 loses nothing."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from local_cloud.runtime.api import Runtime, RuntimeRefused
from tests.contract.local_gcp_fixtures import PARENT, Sdk, job, push
from tests.contract.test_local_gcp_logging import texts
from tests.images import busybox_layer


@contextmanager
def process(data: Path) -> Iterator[tuple[subprocess.Popen[str], Sdk, str]]:
    """`python -m local_cloud.server`, clients for it, and its HTTP address."""
    command = [sys.executable, "-m", "local_cloud.server", "--data", str(data)]
    with (data.parent / "server.log").open("a") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            pytest.fail((data.parent / "server.log").read_text()[-3000:])
        ports = dict(part.split("=", 1) for part in line.split())
        yield server, Sdk(ports["grpc"]), ports["http"]
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
        server.wait(10)
        if server.stdout is not None:
            server.stdout.close()


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """A data directory whose containers are ended after the test; skips where this machine cannot run containers."""
    directory = tmp_path / "data"
    directory.mkdir()
    runtime = Runtime(directory / "runtime")
    try:
        await runtime.start()
    except RuntimeRefused as refusal:
        pytest.skip(f"this machine cannot run containers: {refusal}")
    await runtime.close()
    return directory


async def end(data: Path) -> None:
    runtime = Runtime(data / "runtime")
    await runtime.start()
    await runtime.shutdown()


def layer_with(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


async def test_an_image_runs_in_its_own_file_system(data: Path) -> None:
    layers = [busybox_layer(), layer_with("etc/greeting", b"hello from the image\n")]
    try:
        with process(data) as (_, sdk, url):
            image = await push(
                url,
                layers=layers,
                Entrypoint=["/bin/sh", "-c"],
                Cmd=["cat /etc/greeting; id -u; pwd; exit 3"],
                User="1000",
                WorkingDir="/tmp",
            )
            await sdk.create("tool", job(image))
            ended = await sdk.ended((await sdk.run("tool")).name)
            assert (await sdk.task(ended.name)).last_attempt_result.exit_code == 3
            assert await texts(sdk, "") == ["hello from the image", "1000", "/tmp"]
            await sdk.channel.close(None)
    finally:
        await end(data)


async def test_kill_9_loses_neither_the_execution_nor_its_exit_code_nor_a_line(data: Path) -> None:
    gate = data.parent / "gate"
    gate.mkdir()
    task = {"volumes": [{"name": "gate", "nfs": {"server": "localhost", "path": str(gate)}}]}
    container = {"volume_mounts": [{"name": "gate", "mount_path": "/gate"}]}
    script = "seq 1 2000; while [ ! -e /gate/open ]; do sleep 0.02; done; seq 2001 4000; exit 42"
    try:
        with process(data) as (server, sdk, url):
            image = await push(url, layers=[busybox_layer()])
            await sdk.create("tool", job(image, "/bin/sh", "-c", script, container=container, task=task))
            running, ending = (await sdk.run("tool")).name, (await sdk.run("tool")).name
            for _ in range(1000):
                if len(await texts(sdk, "", page_size=1000)) == 4000:
                    break
                await asyncio.sleep(0.01)
            await sdk.channel.close(None)
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
        (gate / "open").touch()
        await asyncio.sleep(0.3)  # both end while nobody watches
        with process(data) as (_, sdk, again):
            assert again == url
            for name in (running, ending):
                assert (await sdk.ended(name)).failed_count == 1
                assert (await sdk.task(name)).last_attempt_result.exit_code == 42
                only = f'labels."run.googleapis.com/execution_name"="{name.rpartition("/")[2]}"'
                assert list(map(int, await texts(sdk, only, page_size=1000))) == list(range(1, 4001))
            await sdk.channel.close(None)
    finally:
        await end(data)


async def test_blobs_and_layers_of_deleted_images_go_at_the_next_start(data: Path) -> None:
    try:
        with process(data) as (_, sdk, url):
            for name in ("kept", "gone"):
                content = layer_with(name, b"x" * 1000)
                await sdk.create(
                    name, job(await push(url, f"local/apps/{name}:latest", [busybox_layer(), content], Cmd=[name]))
                )
            async with httpx.AsyncClient(base_url=url) as client:
                digest = (await client.head("/v2/local/apps/gone/manifests/latest")).headers["docker-content-digest"]
                assert (await client.delete(f"/v2/local/apps/gone/manifests/{digest}")).status_code == 202
            await sdk.channel.close(None)
        blobs = [path for path in (data / "registry/blobs").rglob("*") if path.is_file()]
        with process(data) as (_, sdk, url):
            await sdk.jobs.get_job(name=f"{PARENT}/jobs/kept")
            left = [path for path in (data / "registry/blobs").rglob("*") if path.is_file()]
            assert len(blobs) - len(left) == 2  # its config and its own layer
            image = f"{url.removeprefix('http://')}/local/apps/kept:latest"
            await sdk.create("again", job(image, "/bin/true"))
            assert (await sdk.ended((await sdk.run("again")).name)).succeeded_count == 1
            await sdk.channel.close(None)
    finally:
        await end(data)


def test_importing_the_server_loads_no_sdk() -> None:
    loaded = "[n for n in sys.modules if n.startswith(('google.cloud.', 'google.api', 'google.protobuf', 'grpc'))]"
    script = f"import sys, local_cloud.server; print({loaded})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
