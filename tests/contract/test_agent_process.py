"""The agent's main process: stdio, exit codes, Docker's texts, users, terminals, signals, restarts."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.contract.agent_container import agent, spec
from tests.contract.agent_peer import CallRefused

CREATE = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: error during container init: "
)


async def test_attach_before_start_carries_stdin_stdout_stderr_and_the_exit_code(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        hello = await peer.hello()
        assert (hello["container"], hello["run"], hello["running"], hello["exit"]) == ("c0ffee", 0, False, None)
        end = peer.attach()
        script = "echo out; echo err >&2; cat; exit 42"
        started = await peer.start(spec("sh", "-c", script, open_stdin=True, stdin_once=True), [end.id])
        assert started["type"] == "started"
        await end.send(b"from the client\n")
        end.eof()
        await end.end()
        assert end.demultiplexed() == (b"out\nfrom the client\n", b"err\n")
        assert (end.exit_code, end.close_code) == (42, 1000)
        assert (await peer.event("exited"))["code"] == 42
        assert await container.exit_code() == 42


async def test_stdin_sent_before_the_start_reaches_the_process(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.hello()
        end = peer.attach()
        await end.send(b"early\n")
        end.eof()
        mounts = [{"type": "tmpfs", "target": f"/t{i}"} for i in range(50)]  # the start takes a while
        await peer.start(spec("cat", open_stdin=True, stdin_once=True, mounts=mounts), [end.id])
        await end.end()
        assert (end.exit_code, end.demultiplexed()[0]) == (0, b"early\n")


async def test_output_is_copied_to_the_platform_as_structured_lines(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        script = r"""printf 'a "b"\n'; printf '\377\n' >&2; printf end"""
        await peer.start(spec("sh", "-c", script))
        await container.exit_code()
        out = [json.loads(line) for line in container.stdout.read_text().splitlines()]
        assert [(x["message"], x["sockerless"]) for x in out] == [
            ('a "b"', {"run": 1, "partial": False}),
            ("end", {"run": 1, "partial": True}),
        ]
        [err] = [json.loads(line) for line in container.stderr.read_text().splitlines()]
        assert "message" not in err
        assert err["base64"] == "/w=="


@pytest.mark.parametrize(
    ("argv", "fields", "code", "message"),
    [
        (["nosuch"], {}, 127, CREATE + 'exec: "nosuch": executable file not found in $PATH: unknown'),
        (["/nosuch"], {}, 127, CREATE + 'exec: "/nosuch": stat /nosuch: no such file or directory: unknown'),
        (["/etc/passwd"], {}, 126, CREATE + 'exec: "/etc/passwd": permission denied: unknown'),
        (["/etc"], {}, 126, CREATE + 'exec: "/etc": is a directory: unknown'),
        (["true"], {"user": "ghost"}, 128, "unable to find user ghost: no matching entries in passwd file"),
        (["true"], {"user": "app:ghost"}, 128, "unable to find group ghost: no matching entries in group file"),
        (["true"], {"workdir": "/etc/passwd"}, 125, "Cannot mkdir: /etc/passwd is not a directory"),
        (["true"], {"cap_add": ["NOPE"]}, 125, 'invalid capability: "NOPE"'),
    ],
)
async def test_a_command_that_cannot_start_fails_with_dockers_text(
    tmp_path: Path, argv: list[str], fields: dict[str, object], code: int, message: str
) -> None:
    async with agent(tmp_path) as (peer, container):
        end = peer.attach()
        failed = await peer.start(spec(*argv, **fields), [end.id])
        assert (failed["type"], failed["code"], failed["message"]) == ("failed", code, message)
        assert (await end.end()).exit_code == code
        assert await container.exit_code() == code


async def test_a_file_that_is_no_program_is_an_exit_with_255_and_a_line_on_stderr(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        script = container.root / "script"
        script.write_text("#!/no/such/interpreter\n")
        script.chmod(0o755)
        end = peer.attach()
        assert (await peer.start(spec("/script"), [end.id]))["type"] == "started"
        await end.end()
        assert end.demultiplexed() == (b"", b"exec /script: no such file or directory\n")
        assert end.exit_code == 255


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 1", 1), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
async def test_exit_codes_are_exact(tmp_path: Path, script: str, code: int) -> None:
    async with agent(tmp_path) as (peer, container):
        await peer.start(spec("sh", "-c", script))
        assert (await peer.event("exited"))["code"] == code
        assert await container.exit_code() == code


async def test_user_groups_workdir_and_environment(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        end = peer.attach()
        fields = {"user": "app", "groups": ["video"], "workdir": "/new/place", "env": ["A=b", "EMPTY=", "PATH=/bin"]}
        await peer.start(spec("sh", "-c", "id; pwd; env; umask", **fields), [end.id])
        out, err = (await end.end()).demultiplexed()
        lines = out.decode().splitlines()
        assert err == b""
        assert lines[0] == "uid=1000(app) gid=1001(app) groups=44(video),63(audio),1001(app)"
        assert lines[1] == "/new/place"
        assert lines[-1] == "0022"
        environment = set(lines[2:-1])
        assert {"A=b", "EMPTY=", "PATH=/bin", "HOSTNAME=c0ffee", "HOME=/home/app"} <= environment
        assert not any(line.startswith("SOCKERLESS") for line in environment)


async def test_the_process_cannot_read_the_agents_token(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        end = peer.attach()
        await peer.start(spec("sh", "-c", "cat /proc/1/environ || echo denied"), [end.id])
        out, _ = (await end.end()).demultiplexed()
        assert out == b"denied\n"


async def test_a_terminal_has_its_size_is_resized_and_echoes(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        end = peer.attach()
        fields = {"tty": True, "open_stdin": True, "stdin_once": True, "rows": 24, "cols": 80}
        script = "stty size; echo $TERM; while read -r x; do eval $x; done"
        await peer.start(spec("sh", "-c", script, **fields), [end.id])
        await end.output(b"24 80\r\nxterm\r\n")
        end.resize(50, 132)
        await end.send(b"stty size\n")
        await end.output(b"50 132\r\n")
        await peer.call("resize", rows=10, cols=20)
        await end.send(b"stty size\n")
        await end.output(b"10 20\r\n")
        await end.send(b"exit 3\n")
        assert (await end.end()).exit_code == 3


async def test_detach_keys_leave_a_terminal_and_attach_comes_back_with_the_log(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        first = peer.attach(detach_keys="ctrl-a,x")
        await peer.start(spec("sh", "-c", "echo ready; read x; echo got $x", tty=True, open_stdin=True), [first.id])
        await first.output(b"ready\r\n")
        await first.send(b"\x01")
        await first.send(b"x")
        await first.end()
        assert first.exit_code is None
        assert first.eof_received
        second = peer.attach(logs=True)
        await second.output(b"ready\r\n")
        await second.send(b"more\n")
        await second.output(b"got more\r\n")
        assert (await second.end()).exit_code == 0


async def test_bad_detach_keys_are_refused(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        end = await peer.attach(detach_keys="ctrl-1").end()
        assert end.error == {"status": 400, "message": "Invalid detach keys (ctrl-1) provided"}


async def test_several_attachments_see_the_same_output(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        ends = [peer.attach(stdin=i == 0, stderr=i < 2) for i in range(3)]
        fields = {"open_stdin": True, "stdin_once": True}
        await peer.start(spec("sh", "-c", "cat; echo err >&2", **fields), [e.id for e in ends])
        data = bytes(range(256)) * 4000
        await ends[0].send(data)
        ends[0].eof()
        for i, end in enumerate(ends):
            await end.end()
            assert end.demultiplexed() == (data, b"err\n" if i < 2 else b"")


async def test_without_stdin_once_the_end_of_stdin_detaches_and_the_process_goes_on(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        end = peer.attach()
        await peer.start(spec("sh", "-c", "read a; echo $a; read b; echo $b; exit 7", open_stdin=True), [end.id])
        await end.send(b"one\n")
        await end.output(b"one\n")
        end.eof()
        assert (await end.end()).exit_code is None
        again = peer.attach()
        await again.send(b"two\n")
        await again.output(b"two\n")
        assert (await again.end()).exit_code == 7


async def test_a_signal_reaches_the_process_and_the_rest_of_the_container_dies_with_it(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        end = peer.attach()
        await peer.start(spec("sh", "-c", "trap 'echo usr; exit 5' USR1; sleep 1000 & echo up; wait"), [end.id])
        session = peer.exec("sleep", "1000")
        await end.output(b"up\n")
        await peer.event("exec_started")
        await peer.call("signal", signal=int(signal.SIGUSR1))
        await end.end()
        assert end.exit_code == 5
        assert (await session.end()).exit_code == 137
        assert await container.exit_code() == 5


async def test_the_platforms_sigterm_becomes_the_stop_signal_and_ends_a_lingering_agent(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        end = peer.attach()
        script = "trap 'exit 9' INT; echo up; while :; do sleep 0.01; done"
        await peer.start(spec("sh", "-c", script, stop_signal=2, linger_seconds=-1), [end.id])
        await end.output(b"up\n")
        container.signal(signal.SIGTERM)
        assert await container.exit_code() == 9


async def test_lingering_serves_a_second_run_and_ends_by_shutdown(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        await peer.start(spec("sh", "-c", "echo 1 > /kept; exit 3", linger_seconds=-1))
        await peer.event("exited", run=1)
        with pytest.raises(CallRefused) as refused:
            await peer.call("signal", signal=15)
        assert refused.value.status == 409
        end = peer.attach()
        await peer.call("start", spec=spec("sh", "-c", "cat /kept; exit 4", run=2, linger_seconds=-1), streams=[end.id])
        assert (await end.end()).demultiplexed()[0] == b"1\n"
        assert (await peer.event("exited", run=2))["code"] == 4
        await peer.call("shutdown", kill=True)
        assert await container.exit_code() == 4


async def test_shutdown_kills_what_runs(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        await peer.start(spec("sleep", "1000", linger_seconds=-1))
        await peer.call("shutdown", kill=True)
        assert (await peer.event("exited"))["code"] == 137
        assert await container.exit_code() == 137


async def test_orphans_are_reaped(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        end = peer.attach()
        script = "for i in 1 2 3; do (sh -c 'sleep 0.05 &' &) ; done; sleep 0.3; ps -o stat,comm | grep -c ^Z; true"
        await peer.start(spec("sh", "-c", script), [end.id])
        assert (await end.end()).demultiplexed()[0] == b"0\n"


async def test_an_agent_without_a_gateway_gives_up_with_125(tmp_path: Path) -> None:
    async with agent(tmp_path, timeout=0.3) as (peer, container):
        assert peer.link
        peer._server.close()  # type: ignore[union-attr]
        peer.link.cut()
        assert await container.exit_code() == 125


async def test_scratch_with_one_static_binary(tmp_path: Path) -> None:
    async with agent(tmp_path, scratch="echo") as (peer, container):
        end = peer.attach()
        await peer.start(spec("/echo", "hello", "scratch"), [end.id])
        assert (await end.end()).demultiplexed() == (b"hello scratch\n", b"")
        assert await container.exit_code() == 0
