"""Where dockerd 28 and this endpoint must not differ: exit codes, texts and what stays behind, seen through the CLI."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import images
from tests.e2e.backends import EACH_BACKEND
from tests.e2e.endpoint import Endpoint

HELP = "\n\nRun 'docker run --help' for more information\n"


def _told(endpoint: Endpoint, *arguments: str, stdin: bytes | None = None) -> tuple[int, str, str]:
    done = endpoint.docker(*arguments, stdin=stdin)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-u", "nouser"], "unable to find user nouser: no matching entries in passwd file"),
        (["-u", "app:nogrp"], "unable to find group nogrp: no matching entries in group file"),
        (["-w", "/etc/passwd"], "Cannot mkdir: /etc/passwd is not a directory"),
        (
            ["--mount", "type=bind,source=/no/such/path,target=/d"],
            'invalid mount config for type "bind": bind source path does not exist: /no/such/path',
        ),
        (["--network", "nosuch"], "failed to set up container networking: network nosuch not found"),
        (["--network", "container:nosuch"], "joining network namespace of container: No such container: nosuch"),
        (["--cap-add", "BOGUS"], 'invalid CapAdd: unknown capability: "CAP_BOGUS"'),
        (["--tmpfs", "/t:bogus=1"], 'invalid tmpfs option "bogus"'),
        (["--log-driver", "bogus"], 'error looking up logging plugin bogus: plugin "bogus" not found'),
        (
            ["--pull", "never", "--platform", "linux/arm64"],
            "image with reference busybox was found but its platform (linux/amd64) "
            "does not match the specified platform (linux/arm64)",
        ),
    ],
)
def test_a_run_that_cannot_start_says_why_and_nothing_else(endpoint: Endpoint, options: list[str], text: str) -> None:
    expected = (125, "", f"docker: Error response from daemon: {text}{HELP}")
    assert _told(endpoint, "run", "--rm", *options, "busybox", "true") == expected


@EACH_BACKEND
def test_inside_it_looks_like_a_docker_container(endpoint: Endpoint) -> None:
    script = (
        "test -e /.dockerenv && head -1 /etc/mtab | cut -d' ' -f2; cat /proc/self/oom_score_adj; tail -n 2 /etc/hosts"
    )
    told = endpoint.out(
        "run", "--rm", "--oom-score-adj", "300", "--hostname", "web", "--add-host", "db:10.0.0.2", "busybox", "sh", "-c", script,  # noqa: E501
    ).splitlines()  # fmt: skip
    assert told[:3] == ["/", "300", "10.0.0.2\tdb"]
    assert told[3].endswith("\tweb")


@EACH_BACKEND
def test_sysctls_of_its_namespaces(endpoint: Endpoint) -> None:
    script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; echo 0 > /proc/sys/kernel/msgmax || echo kept"
    told = endpoint.docker(
        "run", "--rm", "--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=9999", "busybox", "sh", "-c", script,  # noqa: E501
    )  # fmt: skip
    assert told.stdout == b"1\n9999\nkept\n"


def test_a_network_may_come_after_the_container(endpoint: Endpoint, name: str) -> None:
    endpoint.out("create", "--name", name, "--network", f"{name}-net", "busybox", "echo", "joined")
    code, _, err = _told(endpoint, "start", name)
    assert (code, err.splitlines()[0]) == (
        1, f"Error response from daemon: failed to set up container networking: network {name}-net not found",
    )  # fmt: skip
    assert endpoint.out("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name) == "created 128"
    endpoint.out("network", "create", f"{name}-net")
    assert endpoint.out("start", "-a", name) == "joined"
    address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}|{{len .NetworkID}}|{{.DNSNames}}{{end}}"
    short = endpoint.out("inspect", "-f", "{{slice .Id 0 12}}", name)
    assert endpoint.out("inspect", "-f", address, name) == f"|64|[{name} {short}]"
    endpoint.out("network", "rm", f"{name}-net")
    assert _told(endpoint, "start", name)[0] == 1


def test_unknown_names_are_told_by_every_inspect(endpoint: Endpoint) -> None:
    assert _told(endpoint, "inspect", "no-such-thing") == (1, "[]\n", "Error: No such object: no-such-thing\n")
    assert _told(endpoint, "plugin", "inspect", "nosuch") == (
        1, "[]\n", 'Error response from daemon: plugin "nosuch" not found\n',
    )  # fmt: skip
    assert endpoint.out("plugin", "ls", "-q") == ""


def test_prune_of_everything_ends_well(endpoint: Endpoint) -> None:
    # A filter that nothing meets: the images are everybody's.
    assert endpoint.out("system", "prune", "-f", "--filter", "label=nobody").endswith("Total reclaimed space: 0B")
    assert endpoint.out("builder", "prune", "-f").endswith("Total reclaimed space: 0B")


@EACH_BACKEND
def test_kill_of_a_paused_container(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "--name", name, "busybox", "sleep", "60")
    endpoint.out("pause", name)
    assert endpoint.out("kill", name) == name
    assert endpoint.out("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name) == "exited 137"


@EACH_BACKEND
def test_an_exec_that_cannot_start_says_why_on_its_output(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "--name", name, "busybox", "sleep", "60")
    code, out, _ = _told(endpoint, "exec", name, "no-such-command")
    assert code == 127
    assert out.startswith("OCI runtime exec failed: exec failed: unable to start container process: ")


@EACH_BACKEND
def test_rm_takes_anonymous_volumes_before_it_is_told(endpoint: Endpoint) -> None:
    before = endpoint.out("volume", "ls", "-q")
    for _ in range(5):
        endpoint.out("run", "--rm", "-v", "/data", "busybox", "true")
        assert endpoint.out("volume", "ls", "-q") == before


@EACH_BACKEND
def test_a_log_driver_none_keeps_nothing(endpoint: Endpoint, name: str) -> None:
    assert endpoint.out("run", "--log-driver", "none", "--name", name, "busybox", "echo", "seen") == "seen"
    assert _told(endpoint, "logs", name) == (
        1, "", "Error response from daemon: configured logging driver does not support reading\n",
    )  # fmt: skip


@EACH_BACKEND
def test_log_details(endpoint: Endpoint, name: str) -> None:
    endpoint.out(
        "run", "--name", name, "--log-opt", "labels=a", "--log-opt", "env=B", "-l", "a=1", "-e", "B=2", "busybox", "echo", "x",  # noqa: E501
    )  # fmt: skip
    assert endpoint.out("logs", "--details", name) == "B=2,a=1 x"


@EACH_BACKEND
def test_cp_of_the_whole_root(endpoint: Endpoint, name: str, tmp_path: Path) -> None:
    endpoint.out("run", "-d", "--name", name, "busybox", "sleep", "60")
    endpoint.out("cp", f"{name}:/", str(tmp_path / "root"))
    found = {path.name for path in (tmp_path / "root").iterdir()}
    assert {"bin", "etc", "proc", "sys", "dev", ".dockerenv"} <= found
    assert ".sockerless" not in found
    assert list((tmp_path / "root/proc").iterdir()) == []
    code, _, err = _told(endpoint, "cp", f"{name}:/proc/version", str(tmp_path / "v"))
    assert (code, err) == (
        1, f"Error response from daemon: Could not find the file /proc/version in container {name}\n",
    )  # fmt: skip


@EACH_BACKEND
def test_cp_forms(endpoint: Endpoint, name: str, tmp_path: Path) -> None:
    """The table of `docker cp`'s documentation."""
    (tmp_path / "t/sub").mkdir(parents=True)
    (tmp_path / "t/f").write_text("1")
    (tmp_path / "t/link").symlink_to("f")
    endpoint.out("run", "-d", "--name", name, "busybox", "sleep", "60")

    def inside(path: str) -> list[str]:
        return sorted(endpoint.out("exec", name, "find", path).split())

    endpoint.out("cp", str(tmp_path / "t"), f"{name}:/new")
    endpoint.out("cp", str(tmp_path / "t"), f"{name}:/tmp")
    endpoint.out("cp", f"{tmp_path}/t/.", f"{name}:/root")
    assert inside("/new") == ["/new", "/new/f", "/new/link", "/new/sub"]
    assert inside("/tmp") == ["/tmp", "/tmp/t", "/tmp/t/f", "/tmp/t/link", "/tmp/t/sub"]
    assert inside("/root") == ["/root", "/root/f", "/root/link", "/root/sub"]
    assert _told(endpoint, "cp", str(tmp_path / "t/f"), f"{name}:/none/")[2].endswith("no such directory\n")
    assert "cannot copy directory" in _told(endpoint, "cp", str(tmp_path / "t"), f"{name}:/new/f")[2]
    endpoint.out("cp", "-L", str(tmp_path / "t/link"), f"{name}:/followed")
    assert endpoint.out("exec", name, "stat", "-c", "%F", "/followed") == "regular file"
    endpoint.out("cp", f"{name}:/new/link", str(tmp_path / "out"))
    assert (tmp_path / "out").is_symlink()
    tar = subprocess.run(["tar", "c", "-C", str(tmp_path / "t"), "f"], capture_output=True, check=True).stdout
    endpoint.out("cp", "-", f"{name}:/new/sub", stdin=tar)
    assert "/new/sub/f" in inside("/new")


@EACH_BACKEND
def test_partial_failures_of_several_names(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "-d", "--name", name, "busybox", "sleep", "60")
    for verb, other in (("stop", "No such container: nosuch"), ("rm", "No such container: nosuch")):
        code, out, err = _told(endpoint, verb, *(["-t", "0"] if verb == "stop" else []), "nosuch", name)
        assert (code, out.strip(), err) == (1, name, f"Error response from daemon: {other}\n")
    code, _, err = _told(endpoint, "kill", "nosuch")
    assert (code, err) == (1, "Error response from daemon: cannot kill container: nosuch: No such container: nosuch\n")
    assert _told(endpoint, "wait", "nosuch")[0] == 1


@EACH_BACKEND
def test_an_images_configuration_and_what_clears_it(endpoint: Endpoint) -> None:
    full = images.busybox(
        "full:1", Entrypoint=["/bin/echo", "ep"], Cmd=["cmd 1"], User="app", WorkingDir="/home/app", Env=["PATH=/bin"]
    )
    endpoint.out("load", stdin=full)
    assert endpoint.out("run", "--rm", "full:1") == "ep cmd 1"
    assert endpoint.out("run", "--rm", "full:1", "other") == "ep other"
    assert endpoint.out("run", "--rm", "--entrypoint", "pwd", "full:1") == "/home/app"
    assert endpoint.out("run", "--rm", "--entrypoint", "", "full:1", "id", "-un") == "app"
    code, _, err = _told(endpoint, "run", "--rm", "--entrypoint", "", "full:1")
    assert (code, err) == (125, f"docker: Error response from daemon: no command specified{HELP}")
    endpoint.out("rmi", "full:1")


def test_binds_of_sockets_and_through_symlinks(endpoint: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/f").write_text("1")
    (tmp_path / "absolute").symlink_to(tmp_path / "real")
    (tmp_path / "relative").symlink_to("real")
    (tmp_path / "socket").symlink_to(endpoint.socket)
    for link in ("absolute", "relative"):
        assert endpoint.out("run", "--rm", "-v", f"{tmp_path}/{link}:/d", "busybox", "ls", "/d") == "f"
    for source in (endpoint.socket, tmp_path / "socket"):
        bind = f"{source}:/var/run/docker.sock"
        endpoint.out("run", "--rm", "-v", bind, "busybox", "test", "-S", "/var/run/docker.sock")
    endpoint.out("run", "--rm", "-v", f"{tmp_path}/absolute/new/deep:/d", "busybox", "touch", "/d/made")
    assert (tmp_path / "real/new/deep/made").exists()


def test_a_volumes_symlinks_stay_in_it(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "--rm", "-v", f"{name}:/v", "busybox", "ln", "-s", "/etc", "/v/out")
    subpath = f"type=volume,source={name},target=/d,volume-subpath=out"
    code, _, err = _told(endpoint, "run", "--rm", "--mount", subpath, "busybox", "ls", "/d")
    assert code != 0, err
    endpoint.out("volume", "rm", name)
