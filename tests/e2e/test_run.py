"""`docker run`, as people and scripts use it."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

from tests.e2e.backends import EACH_BACKEND
from tests.e2e.endpoint import Endpoint
from tests.e2e.terminal import Terminal

pytestmark = EACH_BACKEND


@pytest.mark.parametrize("code", [0, 1, 42, 126, 127, 137, 255])
def test_exit_code_is_the_commands_own(endpoint: Endpoint, code: int) -> None:
    assert endpoint.docker("run", "--rm", "busybox", "sh", "-c", f"exit {code}").returncode == code


def test_killed_by_signal_is_128_plus_n(endpoint: Endpoint) -> None:
    assert endpoint.docker("run", "--rm", "busybox", "sh", "-c", "kill -SEGV $$").returncode == 139


def test_command_not_found_is_127_with_dockers_text(endpoint: Endpoint, name: str) -> None:
    done = endpoint.docker("run", "--name", name, "busybox", "no-such-command")
    assert done.returncode == 127
    assert b'exec: "no-such-command": executable file not found in $PATH' in done.stderr
    assert endpoint.out("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name) == "created 127"


def test_command_not_executable_is_126(endpoint: Endpoint) -> None:
    done = endpoint.docker("run", "--rm", "busybox", "/etc/passwd")
    assert done.returncode == 126
    assert b"permission denied" in done.stderr


def test_output_streams_are_kept_apart(endpoint: Endpoint) -> None:
    done = endpoint.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_large_output_arrives_whole(endpoint: Endpoint) -> None:
    done = endpoint.docker(
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "yes 0123456789abcde | head -c 33554432 | tee /dev/stderr | md5sum > /sum; cat /sum",
        timeout=120,
    )
    expected = hashlib.md5(b"0123456789abcde\n" * (33554432 // 16)).hexdigest()
    assert hashlib.md5(done.stderr).hexdigest() == expected
    assert done.stdout.decode().split()[0] == expected


def test_piped_stdin_comes_back_byte_for_byte(endpoint: Endpoint) -> None:
    sent = os.urandom(10 * 1024 * 1024)
    done = endpoint.docker("run", "--rm", "-i", "busybox", "cat", stdin=sent)
    assert done.returncode == 0
    assert done.stdout == sent


def test_without_i_stdin_is_empty(endpoint: Endpoint) -> None:
    assert endpoint.docker("run", "--rm", "busybox", "wc", "-c", stdin=b"unread").stdout.strip() == b"0"


def test_terminal_with_resize(endpoint: Endpoint) -> None:
    terminal = Terminal(endpoint, "run", "--rm", "-it", "busybox", "sh", rows=30, columns=100)
    try:
        terminal.expect(b"/ # ")
        terminal.send(b"stty size; tty\r")
        terminal.expect(b"30 100")
        terminal.expect(b"/dev/pts/0")
        terminal.expect(b"/ # ")
        time.sleep(0.5)  # the size at the start is told beside other requests, and must not come after this one
        terminal.resize(40, 120)
        terminal.send(b"until stty size | grep -q '40 120'; do sleep 0.1; done; echo now it is\r")
        terminal.expect(b"\nnow it is")
        terminal.send(b"exit 7\r")
        assert terminal.wait() == 7
    finally:
        terminal.close()


def test_terminal_interrupts_the_foreground_process(endpoint: Endpoint) -> None:
    terminal = Terminal(endpoint, "run", "--rm", "-it", "busybox", "sh")
    try:
        terminal.expect(b"/ # ")
        # The shell reads lines with the terminal's signals off; they are on again once the command runs.
        terminal.send(b"echo now; sleep 100\r")
        terminal.expect(b"\r\nnow\r\n")
        terminal.send(b"\x03")
        terminal.expect(b"/ # ")
        terminal.send(b"exit 3\r")
        assert terminal.wait() == 3
    finally:
        terminal.close()


def test_detach_keys_leave_it_running_and_attach_comes_back(endpoint: Endpoint, name: str) -> None:
    first = Terminal(endpoint, "run", "-it", "--name", name, "busybox", "sh")
    try:
        first.expect(b"/ # ")
        first.send(b"\x10\x11")
        assert first.wait() == 0
    finally:
        first.close()
    assert endpoint.out("inspect", "-f", "{{.State.Running}}", name) == "true"
    second = Terminal(endpoint, "attach", name)
    try:
        second.send(b"echo back-$((40+2))\r")
        second.expect(b"back-42")
        second.send(b"exit 0\r")
        assert second.wait() == 0
    finally:
        second.close()


def test_environment_workdir_user_entrypoint_name(endpoint: Endpoint, name: str) -> None:
    printed = endpoint.out(
        "run", "--name", name, "-e", "GREETING=hello", "-w", "/tmp", "-u", "1000:1000", "--entrypoint", "sh", "--hostname", "host-of-test",  # noqa: E501
        "busybox", "-c", "echo $GREETING; pwd; id -u; id -g; hostname; echo $HOME; env",
    ).splitlines()  # fmt: skip
    assert printed[:6] == ["hello", "/tmp", "1000", "1000", "host-of-test", "/home/app"]
    assert not [line for line in printed if line.startswith("SOCKERLESS_")]
    assert endpoint.out("inspect", "-f", "{{.Name}}", name) == f"/{name}"


def test_named_user_and_missing_user(endpoint: Endpoint) -> None:
    assert endpoint.out("run", "--rm", "-u", "app:staff", "busybox", "sh", "-c", "id -un; id -gn") == "app\nstaff"
    done = endpoint.docker("run", "--rm", "-u", "nobody-knows", "busybox", "true")
    assert done.returncode == 125
    assert b"unable to find user nobody-knows: no matching entries in passwd file" in done.stderr


def test_missing_workdir_is_made(endpoint: Endpoint) -> None:
    assert endpoint.out("run", "--rm", "-w", "/made/for/it", "busybox", "pwd") == "/made/for/it"


def test_rm_removes_when_it_is_over(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "--rm", "--name", name, "busybox", "true")
    assert endpoint.docker("inspect", name).returncode == 1


def test_image_with_a_single_static_binary(endpoint: Endpoint) -> None:
    assert endpoint.out("run", "--rm", "single", "echo", "from scratch") == "from scratch"


def test_unknown_image_is_refused(endpoint: Endpoint) -> None:
    done = endpoint.docker("create", "--pull", "never", "no-such-image:1")
    assert done.returncode == 1
    assert b"No such image: no-such-image:1" in done.stderr


def test_name_in_use_is_refused(endpoint: Endpoint, name: str) -> None:
    identifier = endpoint.out("create", "--name", name, "busybox")
    done = endpoint.docker("create", "--name", name, "busybox")
    assert done.returncode == 1
    assert f'The container name "/{name}" is already in use by container "{identifier}"'.encode() in done.stderr


@pytest.mark.parametrize("option", [["--privileged"], ["--device", "/dev/null"], ["--pid", "host"]])
def test_what_the_platform_cannot_do_is_refused_by_name(endpoint: Endpoint, option: list[str]) -> None:
    done = endpoint.docker("create", *option, "busybox")
    assert done.returncode == 1
    assert option[0].lstrip("-").encode() in done.stderr.lower()


def test_memory_and_cpus_are_taken(endpoint: Endpoint, name: str) -> None:
    endpoint.out("run", "--name", name, "-m", "600m", "--cpus", "1.5", "busybox", "true")
    assert (
        endpoint.out("inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", name) == "629145600 1500000000"
    )


def test_read_only_root(endpoint: Endpoint) -> None:
    done = endpoint.docker(
        "run", "--rm", "--read-only", "--tmpfs", "/run", "busybox", "sh", "-c", "echo x > /run/x && ! echo x > /x"
    )
    assert done.returncode == 0, done.stderr


def test_capabilities_are_dockers_default(endpoint: Endpoint) -> None:
    seen = endpoint.out("run", "--rm", "busybox", "grep", "CapEff", "/proc/self/status")
    assert seen.split()[1] == "00000000a80425fb"
    dropped = endpoint.out("run", "--rm", "--cap-drop", "ALL", "busybox", "grep", "CapEff", "/proc/self/status")
    assert dropped.split()[1] == "0000000000000000"


def test_agents_token_is_not_readable_from_inside(endpoint: Endpoint) -> None:
    done = endpoint.docker("run", "--rm", "busybox", "cat", "/proc/1/environ")
    assert b"SOCKERLESS" not in done.stdout
