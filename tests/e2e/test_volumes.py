"""Volumes and bind mounts, where there are any."""

from __future__ import annotations

from pathlib import Path

from tests import images
from tests.e2e.backends import EACH_BACKEND, takes
from tests.e2e.endpoint import Endpoint

pytestmark = EACH_BACKEND


@takes("HostConfig.Binds")
def test_named_volume_outlives_containers(endpoint: Endpoint, name: str) -> None:
    endpoint.out("volume", "create", name)
    try:
        endpoint.out("run", "--rm", "-v", f"{name}:/data", "busybox", "sh", "-c", "echo kept > /data/file")
        assert endpoint.out("run", "--rm", "-v", f"{name}:/elsewhere", "busybox", "cat", "/elsewhere/file") == "kept"
        assert name in endpoint.out("volume", "ls", "-q")
    finally:
        endpoint.out("volume", "rm", name)
    assert name not in endpoint.out("volume", "ls", "-q")


@takes("HostConfig.Binds")
def test_volume_is_shared_live(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "--name", name, "-v", f"{name}-v:/data", "busybox", "sleep", "300")
    try:
        endpoint.out("run", "--rm", "-v", f"{name}-v:/data", "busybox", "sh", "-c", "echo seen > /data/live")
        assert endpoint.out("exec", name, "cat", "/data/live") == "seen"
        in_use = endpoint.docker("volume", "rm", f"{name}-v")
        assert in_use.returncode == 1
        assert b"volume is in use" in in_use.stderr
    finally:
        endpoint.out("rm", "-f", name)
        endpoint.out("volume", "rm", f"{name}-v")


@takes("HostConfig.Binds")
def test_copy_up_of_the_images_content(endpoint: Endpoint, name: str) -> None:
    try:
        assert endpoint.out("run", "--rm", "-v", f"{name}:/home", "busybox", "stat", "-c", "%U", "/home/app") == "app"
        assert endpoint.out("run", "--rm", "-v", f"{name}:/other", "busybox", "ls", "/other") == "app"
    finally:
        endpoint.out("volume", "rm", name)


def test_anonymous_volume_goes_with_rm_v(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "--name", name, "-v", "/data", "busybox", "true")
    volume = endpoint.out("inspect", "-f", "{{(index .Mounts 0).Name}}", name)
    assert volume in endpoint.out("volume", "ls", "-q")
    endpoint.out("rm", "-v", name)
    assert volume not in endpoint.out("volume", "ls", "-q")


def test_image_volumes(endpoint: Endpoint, name: str) -> None:
    endpoint.out("load", stdin=images.busybox("volumed:1", Volumes={"/state": {}}))
    endpoint.out("run", "--name", name, "volumed:1", "sh", "-c", "echo x > /state/x")
    assert endpoint.out("inspect", "-f", "{{(index .Mounts 0).Destination}}", name) == "/state"
    endpoint.out("rm", "-v", name)


@takes("HostConfig.Binds")
def test_bind_mount_is_this_machines_directory(endpoint: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from outside\n")
    printed = endpoint.out(
        "run", "--rm", "-v", f"{tmp_path}:/work", "busybox", "sh", "-c", "cat /work/in; echo from inside > /work/out"
    )
    assert printed == "from outside"
    assert (tmp_path / "out").read_text() == "from inside\n"


@takes("HostConfig.Binds")
def test_bind_mount_of_a_file_and_read_only(endpoint: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("just this\n")
    done = endpoint.docker(
        "run", "--rm", "-v", f"{tmp_path}/one:/etc/one:ro", "busybox", "sh", "-c", "cat /etc/one; echo x > /etc/one"
    )
    assert done.stdout == b"just this\n"
    assert done.returncode == 1
    assert b"Read-only file system" in done.stderr


@takes("HostConfig.Binds")
def test_whole_export_is_not_left_visible(endpoint: Endpoint, tmp_path: Path) -> None:
    listed = endpoint.docker(
        "run",
        "--rm",
        "-v",
        f"{tmp_path}:/work",
        "busybox",
        "sh",
        "-c",
        "ls -A /.sockerless/volumes/* 2>/dev/null; grep -c ' /.sockerless/volumes' /proc/mounts",
    )
    assert listed.stdout.strip().splitlines()[-1] == b"0"


@takes("HostConfig.Binds")
def test_missing_bind_source(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.out("run", "--rm", "-v", f"{tmp_path}/made:/work", "busybox", "touch", "/work/x")
    assert (tmp_path / "made" / "x").exists()
    refused = endpoint.docker(
        "run", "--rm", "--mount", f"type=bind,source={tmp_path}/missing,target=/work", "busybox", "true"
    )
    assert refused.returncode == 125
    assert b"bind source path does not exist" in refused.stderr
