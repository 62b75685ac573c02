"""The parts of the runtime that need no namespaces."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from local_cloud.runtime import netlink
from local_cloud.runtime.api import MountSpec, RunSpec, RuntimeRefused, _launch
from local_cloud.runtime.cgroups import Cgroups
from local_cloud.runtime.container import Refused, find_program
from local_cloud.runtime.frames import MAX_FRAME, FrameError, Frames, encode
from local_cloud.runtime.layer_tar import HostileLayer, _clean
from local_cloud.runtime.machine import PUBLIC_RESOLVERS, resolvers
from local_cloud.runtime.spawn import command
from local_cloud.runtime.trash import empty_directory, remove_tree
from local_cloud.runtime.users import UnknownUser, resolve

PASSWD = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\napp:x:1000:2000::/home/app:\n5:x:77:78::/five:\n"
PASSWD += "huge:x:99999999999:1::/:\n"
GROUP = "root:x:0:\nstaff:x:50:app,other\nwheel:x:60:other\n5:x:79:\n"


@pytest.fixture
def accounts(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "passwd").write_text(PASSWD)
    (tmp_path / "group").write_text(GROUP)
    return str(tmp_path / "passwd"), str(tmp_path / "group")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (0, 0, [], "/root")),
        ("root", (0, 0, [], "/root")),
        ("app", (1000, 2000, [50], "/home/app")),
        ("1000", (1000, 2000, [50], "/home/app")),
        ("app:wheel", (1000, 60, [], "/home/app")),
        ("app:3", (1000, 3, [], "/home/app")),
        ("4242", (4242, 0, [], "/")),
        ("4242:5", (4242, 79, [], "/")),
        ("5", (77, 78, [], "/five")),
    ],
)
def test_user_texts(accounts: tuple[str, str], user: str, expected: tuple[object, ...]) -> None:
    found = resolve(user, *accounts)
    assert (found.uid, found.gid, found.groups, found.home) == expected


@pytest.mark.parametrize("user", ["none", "app:none", "huge", "99999999999", "-1", "app:-1", "0x0"])
def test_unknown_users_are_refused(accounts: tuple[str, str], user: str) -> None:
    with pytest.raises(UnknownUser):
        resolve(user, *accounts)


def test_an_image_without_accounts_has_numbers_only(tmp_path: Path) -> None:
    assert resolve("7:8", str(tmp_path / "no"), str(tmp_path / "no")).uid == 7
    assert resolve("", str(tmp_path / "no"), str(tmp_path / "no")).home == "/"
    with pytest.raises(UnknownUser, match="no matching entries in passwd file"):
        resolve("app", str(tmp_path / "no"), str(tmp_path / "no"))


def test_frames_survive_any_cut_and_refuse_what_is_none() -> None:
    whole = encode({"text": "ü" * 100}) + encode({"n": 1})
    for cut in range(len(whole)):
        frames = Frames()
        assert [*frames.feed(whole[:cut]), *frames.feed(whole[cut:])] == [{"text": "ü" * 100}, {"n": 1}]
    for bad in (struct.pack(">I", MAX_FRAME + 1), struct.pack(">I", 2) + b"[]", struct.pack(">I", 1) + b"{"):
        with pytest.raises(FrameError):
            Frames().feed(bad)
    with pytest.raises(FrameError):
        encode({"text": "x" * (MAX_FRAME + 1)})


@pytest.mark.parametrize(
    ("name", "path"), [("./", "/"), ("a//b/./c/", "/a/b/c"), ("/abs", "/abs"), ("..a/b..", "/..a/b..")]
)
def test_names_in_tars(name: str, path: str) -> None:
    assert _clean(name) == path


@pytest.mark.parametrize("name", ["..", "a/../b", "/..", "a/..", "../../etc/passwd", "a\0b"])
def test_names_that_leave_the_layer(name: str) -> None:
    with pytest.raises(HostileLayer):
        _clean(name)


def test_resolvers_on_a_loopback_are_replaced_in_an_own_network(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("search example.test\nnameserver 127.0.0.53\noptions ndots:2\n")
    paths = (str(first), str(second))
    assert resolvers(False, paths) == first.read_text()
    public = "".join(f"nameserver {address}\n" for address in PUBLIC_RESOLVERS)
    assert resolvers(True, paths) == "search example.test\noptions ndots:2\n" + public
    second.write_text("nameserver 192.0.2.53\nsearch example.test\n")
    assert resolvers(True, paths) == second.read_text()
    first.write_text("nameserver ::1\nnameserver 192.0.2.1\n")
    assert resolvers(True, paths) == "nameserver 192.0.2.1\n"


def test_programs_are_found_as_docker_finds_them(tmp_path: Path) -> None:
    (tmp_path / "no").mkdir()
    (tmp_path / "no/tool").write_text("")
    (tmp_path / "tool").write_text("")
    (tmp_path / "tool").chmod(0o755)
    (tmp_path / "no/tool").chmod(0o644)
    path = f"{tmp_path}/no:{tmp_path}"
    assert find_program("tool", path) == f"{tmp_path}/tool"
    assert find_program(f"{tmp_path}/tool", "") == f"{tmp_path}/tool"
    for name, where, text in (
        ("tool", f"{tmp_path}/no", "permission denied"),
        ("none", path, "executable file not found in $PATH"),
        ("/none", path, "stat /none: no such file or directory"),
        (str(tmp_path), path, "is a directory"),
    ):
        with pytest.raises(Refused, match="exec: ") as caught:
            find_program(name, where)
        assert str(caught.value).endswith(text)


def _spec(**fields: object) -> RunSpec:
    values: dict[str, object] = {
        "id": "x", "layers": (), "argv": ("true",), "env": {}, "workdir": "", "user": "", "hostname": "", "mounts": (),
        "memory_bytes": 0, "cpus": 0, "stdout": Path("o"), "stderr": Path("e"),
    }  # fmt: skip
    return RunSpec(**{**values, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"id": ""}, {"id": "A"}, {"id": "x" * 101}, {"id": "a/b"}, {"argv": ()}, {"argv": ("",)}, {"argv": ("a\0b",)},
        {"workdir": "x"}, {"mounts": (MountSpec(Path("/"), "relative"),)}, {"env": {"": "x"}}, {"env": {"a=b": "x"}},
        {"env": {"a": "x\0"}}, {"hostname": "ü" * 33}, {"network": "none"}, {"memory_bytes": -1}, {"cpus": -0.5},
    ],
)  # fmt: skip
def test_specs_that_no_execution_can_have(fields: dict[str, object]) -> None:
    with pytest.raises(RuntimeRefused) as caught:
        _launch(_spec(**fields))
    assert caught.value.kind == "spec"


def test_trees_are_removed_whatever_their_modes_and_depth_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    tree = tmp_path / "trash/tree"
    deep = tree
    for _ in range(300):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    (tree / "link").symlink_to(outside)
    (tree / "closed").mkdir()
    (tree / "closed/file").touch()
    (tree / "closed").chmod(0)
    (tmp_path / "trash/link").symlink_to(outside)
    assert empty_directory(str(tmp_path / "trash"))
    assert os.listdir(tmp_path / "trash") == []
    assert (outside / "kept").exists()
    remove_tree(str(tmp_path / "not-there"))


def test_netlink_attributes_are_padded_and_counted() -> None:
    assert netlink._attribute(3, b"abcde") == struct.pack("=HH", 9, 3) + b"abcde\0\0\0"
    assert len(netlink._text(3, "eth0")) == 12


def test_cgroup_names_of_two_data_directories_differ() -> None:
    one, two = Cgroups("test-one"), Cgroups("test-two")
    try:
        assert bool(one.version) == (not one.missing)
        assert not set(one.groups("x")) & set(two.groups("x"))
    finally:
        one.remove_bases()
        two.remove_bases()


def test_the_launcher_loads_nothing_heavy() -> None:
    """Each container begins as a fork of it, and it stays while containers run."""
    program = command("launcher")[-1].partition("import main;")[0] + "import main; print(*sys.modules)"
    done = subprocess.run([*command("launcher")[:3], "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"asyncio", "typing", "dataclasses", "pathlib", "subprocess", "tarfile", "logging", "shutil", "inspect"}
    assert not loaded & heavy
    ours = {name for name in loaded if name.startswith(("control_plane", "agent_gateway", "local_cloud."))}
    assert ours
    assert all(name == "local_cloud.runtime" or name.startswith("local_cloud.runtime.") for name in ours)


def test_programs_do_not_depend_on_the_place_they_are_started_in(tmp_path: Path) -> None:
    done = subprocess.run(command("trial", str(tmp_path)), capture_output=True, cwd="/", env={}, check=False)
    assert done.stdout.startswith(b"{"), done.stderr
    assert command("trial")[0] == sys.executable
