"""`docker cp`, in and out, whatever the container's state."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from tests.e2e.backends import EACH_BACKEND
from tests.e2e.endpoint import Endpoint

pytestmark = EACH_BACKEND


@pytest.fixture(params=["created", "running", "exited"])
def box(request: pytest.FixtureRequest, endpoint: Endpoint, name: str) -> str:
    """A container in each of the states in which `cp` must work."""
    if request.param == "created":
        endpoint.out("create", "--name", name, "busybox", "sh", "-c", "cat /in/* | md5sum")
    else:
        command = ["sleep", "3600"] if request.param == "running" else ["true"]
        endpoint.out("run", "-d", "--name", name, "busybox", *command)
        if request.param == "exited":
            endpoint.out("wait", name)
    return name


def test_file_directory_and_symlink_there_and_back(endpoint: Endpoint, box: str, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "sub").mkdir(parents=True)
    (source / "file").write_bytes(b"content")
    (source / "file").chmod(0o640)
    (source / "sub" / "other").write_bytes(b"x" * 100_000)
    (source / "link").symlink_to("file")
    endpoint.out("cp", str(source), f"{box}:/")
    back = tmp_path / "back"
    back.mkdir()
    endpoint.out("cp", f"{box}:/tree", str(back))
    assert (back / "tree" / "file").read_bytes() == b"content"
    assert (back / "tree" / "file").stat().st_mode & 0o777 == 0o640
    assert (back / "tree" / "sub" / "other").read_bytes() == b"x" * 100_000
    assert os.readlink(back / "tree" / "link") == "file"
    endpoint.out("cp", str(source / "file"), f"{box}:/tmp/renamed")
    endpoint.out("cp", f"{box}:/tmp/renamed", str(tmp_path / "renamed"))
    assert (tmp_path / "renamed").read_bytes() == b"content"


def test_256_megabytes(endpoint: Endpoint, name: str, tmp_path: Path) -> None:
    endpoint.out("run", "-d", "--name", name, "busybox", "sleep", "3600")
    block = os.urandom(1024 * 1024)
    big = tmp_path / "big"
    digest = hashlib.md5()
    with big.open("wb") as out:
        for _ in range(256):
            out.write(block)
            digest.update(block)
    endpoint.docker("cp", str(big), f"{name}:/big", timeout=120, check=True)
    assert endpoint.out("exec", name, "md5sum", "/big").split()[0] == digest.hexdigest()
    big.unlink()
    endpoint.docker("cp", f"{name}:/big", str(big), timeout=120, check=True)
    assert hashlib.md5(big.read_bytes()).hexdigest() == digest.hexdigest()


def test_into_a_created_container_is_there_at_the_start(endpoint: Endpoint, name: str, tmp_path: Path) -> None:
    endpoint.out("create", "--name", name, "busybox", "sh", "-c", "cat /etc/one /etc/two")
    for part in ("one", "two"):
        (tmp_path / part).write_text(f"{part}\n")
        endpoint.out("cp", str(tmp_path / part), f"{name}:/etc/")
    assert endpoint.out("start", "-a", name) == "one\ntwo"


def test_out_of_an_exited_container(endpoint: Endpoint, name: str, tmp_path: Path) -> None:
    endpoint.out("run", "--name", name, "busybox", "sh", "-c", "echo result > /result")
    endpoint.out("cp", f"{name}:/result", str(tmp_path / "result"))
    assert (tmp_path / "result").read_text() == "result\n"


def test_tar_from_stdin_to_stdout(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "--name", name, "busybox", "sleep", "3600")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("piped")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    endpoint.docker("cp", "-", f"{name}:/tmp", stdin=out.getvalue(), check=True)
    back = endpoint.docker("cp", f"{name}:/tmp/piped", "-", check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(back)) as tar:
        taken = tar.extractfile("piped")
        assert taken is not None
        assert taken.read() == b"abc"


def test_missing_paths(endpoint: Endpoint, name: str, tmp_path: Path) -> None:
    endpoint.out("run", "-d", "--name", name, "busybox", "sleep", "3600")
    missing = endpoint.docker("cp", f"{name}:/no/such", str(tmp_path))
    assert missing.returncode == 1
    assert b"Could not find the file /no/such in container" in missing.stderr
    (tmp_path / "f").write_text("x")
    nowhere = endpoint.docker("cp", str(tmp_path / "f"), f"{name}:/no/such/dir/")
    assert nowhere.returncode == 1
