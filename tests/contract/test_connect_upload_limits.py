"""Uploads beyond what a front end takes: nginx with 32 MiB, which offers HTTP/1.1 alone."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import images
from tests.contract.connect_endpoint import Connected, FarEndpoint
from tests.contract.connect_http import client
from tests.free_ports import free_port
from tests.hosted.fronts import Ports, nginx
from tests.hosted.process import program

SIZE = 40 * 1024 * 1024
SAID = "does not take a body of that size: its front end bounds uploads over HTTP/1.1, and offers no HTTP/2"

pytestmark = [
    pytest.mark.skipif(program(name) is None, reason=f"{name} is not installed") for name in ("nginx", "docker")
]


@pytest.fixture(scope="module")
def near() -> Iterator[Connected]:
    """A connector whose endpoint is behind nginx, with a container `upload`."""
    with tempfile.TemporaryDirectory(prefix="skls-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        inside, ports = free_port(), Ports()
        url = f"http://127.0.0.1:{ports.http1}"
        far = FarEndpoint(directory / "far", port=inside, public=url)
        found = Connected(directory / "near", url=url)
        front = subprocess.Popen(nginx(directory, ports, [f"127.0.0.1:{inside}"]), stderr=subprocess.DEVNULL)
        try:
            far.start()
            found.start()
            assert b"Loaded image" in found.docker("load", stdin=images.busybox()).stdout
            assert found.docker("create", "--name", "upload", "busybox", "true").returncode == 0
            yield found
        finally:
            found.down()
            far.down()
            front.terminate()
            front.wait(10)


@pytest.fixture(scope="module")
def file(near: Connected) -> Path:
    path = near.data / "large"
    path.write_bytes(os.urandom(SIZE))
    return path


def test_load_is_refused_with_the_reason(near: Connected, file: Path) -> None:
    ended = near.docker("load", stdin=file.read_bytes())
    assert ended.returncode == 1
    assert SAID in ended.stderr.decode()


def test_cp_is_refused_with_the_reason(near: Connected, file: Path) -> None:
    ended = near.docker("cp", str(file), "upload:/large")
    assert ended.returncode == 1
    assert SAID in ended.stderr.decode()


def test_cp_below_the_limit_passes(near: Connected, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(os.urandom(SIZE // 2))
    assert near.docker("cp", str(small), "upload:/small").returncode == 0
    assert near.docker("cp", "upload:/small", str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_bytes() == small.read_bytes()


def test_build_context_is_refused(near: Connected, file: Path, tmp_path: Path) -> None:
    """By whoever is first: the front end for the size, or the control plane, which builds nothing."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY large /\n")
    os.link(file, tmp_path / "large")
    ended = subprocess.run(
        ["docker", "build", str(tmp_path)],
        capture_output=True,
        env=near.docker_environment(DOCKER_BUILDKIT="0"),
        timeout=60,
    )
    assert ended.returncode == 1
    said = ended.stderr.decode()
    assert SAID in said or "Sockerless does not build images" in said


def test_a_body_of_known_length_is_refused_at_once(near: Connected) -> None:
    with client(near.address) as connection:
        answer = connection.put("/v1.50/containers/upload/archive?path=/", content=bytes(SIZE))
    assert answer.status_code == 413
    assert SAID in answer.json()["message"]


def test_connector_serves_on_after_refusals(near: Connected, file: Path) -> None:
    for _ in range(3):
        assert near.docker("load", stdin=file.read_bytes()).returncode == 1
    assert near.docker("run", "--rm", "-i", "busybox", "cat", stdin=b"here").stdout == b"here"
