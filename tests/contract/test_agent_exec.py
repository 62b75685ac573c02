"""Exec sessions of the agent."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from tests.contract.agent_container import agent, spec
from tests.contract.agent_peer import CallRefused

EXEC = "OCI runtime exec failed: exec failed: unable to start container process: "


async def test_exec_runs_in_the_containers_environment(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000", env=["A=container", "B=container"], workdir="/work"))
        fields = {"env": ["B=exec"], "user": "app"}
        code, out = await peer.exec_output("sh", "-c", "echo $A $B $HOME; pwd; id -u; exit 6", **fields)
        assert (code, out) == (6, b"container exec /home/app\n/work\n1000\n")


async def test_exit_is_recorded_before_the_stream_closes(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000"))
        end = await peer.exec("sh", "-c", "echo x; echo y >&2; exit 3", exec="e1").end()
        assert [e["type"] for e in peer.events if e.get("exec") == "e1"] == ["exec_started", "exec_exited"]
        assert peer.events[-1]["code"] == 3
        assert end.demultiplexed() == (b"x\n", b"y\n")
        assert (end.exit_code, end.close_code) == (3, 1000)


async def test_the_stream_stays_open_while_the_control_plane_has_not_heard_of_the_exit(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000"))
        peer.ack_events = False
        stream = peer.exec("sh", "-c", "echo x; exit 3", exec="e1")
        exited = await peer.event("exec_exited", exec="e1")
        await asyncio.sleep(2.5)
        assert not stream.ended
        assert stream.exit_code is None
        peer.tell({"type": "ack", "seq": exited["seq"]})
        assert (await stream.end()).exit_code == 3


@pytest.mark.parametrize(
    ("argv", "fields", "code", "message"),
    [
        (["x"], {}, 127, EXEC + 'exec: "x": executable file not found in $PATH: unknown'),
        (["/etc/passwd"], {}, 126, EXEC + 'exec: "/etc/passwd": permission denied: unknown'),
        (
            ["true"],
            {"workdir": "/no"},
            127,
            EXEC + 'chdir to cwd ("/no") set in config.json failed: no such file or directory: unknown',
        ),
        (["true"], {"user": "ghost"}, 126, "unable to find user ghost: no matching entries in passwd file"),
    ],
)
async def test_an_exec_that_cannot_start(
    tmp_path: Path, argv: list[str], fields: dict[str, object], code: int, message: str
) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000"))
        end = await peer.exec(*argv, exec="e1", **fields).end()
        assert end.error == {"status": 400, "message": message}
        assert (await peer.event("exec_exited", exec="e1"))["code"] == code


async def test_exec_without_a_process_is_refused(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        peer.tell({"type": "welcome", "action": "wait", "streams": []})
        end = await peer.exec("true").end()
        assert end.error
        assert end.error["status"] == 409


async def test_stdin_goes_through_a_process_byte_for_byte(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000"))
        end = peer.exec("cat", stdin=True)
        data = hashlib.shake_128(b"stdin").digest(10_000_000)
        await end.send(data)
        end.eof()
        await end.end()
        out, _ = end.demultiplexed()
        assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()
        assert end.exit_code == 0


async def test_a_process_that_leaves_stdin_unread_does_not_hold_the_client_up(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000"))
        end = peer.exec("sh", "-c", "exec <&-; sleep 0.2; echo done", stdin=True)
        await end.send(bytes(8 << 20))
        assert (await end.end()).exit_code == 0
        assert end.demultiplexed()[0] == b"done\n"


async def test_a_terminal_in_an_exec(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000"))
        end = peer.exec("sh", exec="e1", tty=True, stdin=True, rows=7, cols=8)
        await end.send(b"stty size; tty; echo $TERM\n")
        await end.output(b"7 8\r\n")
        await end.output(b"/dev/pts/")
        await end.output(b"xterm\r\n")
        await peer.call("resize", exec="e1", rows=9, cols=10)
        await end.send(b"stty size\n")
        await end.output(b"9 10\r\n")
        await end.send(b"\x10\x11")
        await end.end()
        assert end.exit_code is None
        assert "e1" not in [e.get("exec") for e in peer.events if e["type"] == "exec_exited"]


async def test_a_client_that_leaves_does_not_end_the_process(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        await peer.start(spec("sleep", "1000"))
        end = peer.exec("sh", "-c", "sleep 0.1; yes | head -c 5000000; echo over > /tmp/over; exit 5", exec="e1")
        await peer.event("exec_started")
        end.close()
        assert (await peer.event("exec_exited", exec="e1"))["code"] == 5
        assert (container.root / "tmp/over").read_text() == "over\n"


async def test_output_held_open_by_a_background_child_does_not_keep_the_exec(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000"))
        end = await peer.exec("sh", "-c", "sleep 500 & echo started").end(timeout=10)
        assert (end.exit_code, end.demultiplexed()[0]) == (0, b"started\n")


async def test_detached_exec_by_call(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        await peer.start(spec("sleep", "1000"))
        params = {"env": [], "workdir": "", "user": "", "tty": False, "privileged": False}
        result = await peer.call("exec", exec="e1", argv=["sh", "-c", "echo hi > /tmp/x; exit 2"], **params)
        assert result["pid"] > 1
        assert (await peer.event("exec_exited", exec="e1"))["code"] == 2
        assert (container.root / "tmp/x").read_text() == "hi\n"
        with pytest.raises(CallRefused) as refused:
            await peer.call("exec", exec="e2", argv=["nosuch"], **params)
        assert "executable file not found in $PATH" in refused.value.message
        assert (await peer.event("exec_exited", exec="e2"))["code"] == 127


async def test_privileged_exec_has_the_agents_capabilities(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000", cap_drop=["ALL"]))
        show = ["grep", "CapEff", "/proc/self/status"]
        _, plain = await peer.exec_output(*show)
        _, privileged = await peer.exec_output(*show, privileged=True)
        assert int(plain.split()[1], 16) == 0
        assert int(privileged.split()[1], 16) > 1 << 30


async def test_many_execs_at_once(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000"))
        ends = [peer.exec("sh", "-c", f"echo {i}; exit {i}") for i in range(30)]
        for i, end in enumerate(ends):
            await end.end()
            assert (end.exit_code, end.demultiplexed()[0]) == (i, f"{i}\n".encode())
