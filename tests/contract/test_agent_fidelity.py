"""What a container finds inside, and what `docker cp` and `docker logs` get of it, as with dockerd 28."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.contract.agent_container import agent, spec
from tests.contract.agent_peer import AgentPeer, CallRefused, ClientEnd

KEPT = {"linger_seconds": -1}


async def _out(tmp_path: Path, script: str, platform_hosts: str = "", **fields: object) -> str:
    async with agent(tmp_path) as (peer, container):
        if platform_hosts:
            (container.root / "etc/hosts").write_text(platform_hosts)
        end = peer.attach()
        event = await peer.start(spec("sh", "-c", script, **fields), [end.id])
        assert event["type"] == "started", event
        return (await end.end()).demultiplexed()[0].decode()


async def _logs(peer: AgentPeer, **params: object) -> ClientEnd:
    base = {"stdout": True, "stderr": True, "follow": False, "timestamps": False, "since": "", "until": "", "tail": -1}
    return await peer.open("logs", **{**base, **params}).end()


async def test_programs_can_tell_that_they_are_in_a_container(tmp_path: Path) -> None:
    out = await _out(tmp_path, "stat -c %s /.dockerenv; readlink /etc/mtab; grep -c ' / ' /etc/mtab")
    assert out.split() == ["0", "/proc/mounts", "1"]


async def test_an_images_own_mark_is_not_followed(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        (container.root / ".dockerenv").symlink_to("work/planted")
        await peer.start(spec("true", **KEPT))
        await peer.event("exited")
        assert not (container.root / "work/planted").exists()


async def test_the_hosts_file_is_moby_s_and_keeps_the_platforms_names(tmp_path: Path) -> None:
    platform = "127.0.0.1 localhost\n10.0.0.5 localhost\n169.254.169.254 metadata.internal"
    out = await _out(tmp_path, "cat /etc/hosts", platform, extra_hosts=["db:10.0.0.2"], hostname="web")
    lines = out.splitlines()
    assert lines[:6] == [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::\tip6-localnet",
        "ff00::\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
    ]
    assert lines[6:8] == ["169.254.169.254 metadata.internal", "10.0.0.2\tdb"]
    assert lines[8].split()[1:] == ["web"]
    assert len(lines) == 9


async def test_the_oom_score_is_that_of_the_command_and_its_execs(tmp_path: Path) -> None:
    out = await _out(tmp_path, "cat /proc/self/oom_score_adj", oom_score_adj=500)
    assert out == "500\n"


async def test_without_a_log_only_attachments_see_the_output(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        end = peer.attach()
        await peer.start(spec("echo", "secret", log_max_bytes=-1, **KEPT), [end.id])
        assert (await end.end()).demultiplexed()[0] == b"secret\n"
        await peer.event("exited")
        assert (await _logs(peer)).received == b""
        assert b"secret" not in container.stdout.read_bytes()


async def test_details_stand_between_time_and_line(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("printf", "a\\nb\\n", **KEPT))
        await peer.event("exited")
        assert (await _logs(peer, details="x=1 ")).demultiplexed()[0] == b"x=1 a\nx=1 b\n"
        first = (await _logs(peer, details=" ", timestamps=True)).demultiplexed()[0].splitlines()[0]
        assert first.endswith(b"Z  a")


async def test_each_line_has_a_frame_of_its_own(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("printf", "a\\nb\\nlast", **KEPT))
        await peer.event("exited")
        frames = [b"\1\0\0\0" + len(line).to_bytes(4, "big") + line for line in (b"a\n", b"b\n", b"last")]
        assert bytes((await _logs(peer)).received) == b"".join(frames)


async def test_the_kernels_files_and_the_agents_are_no_part_of_an_archive(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        (container.root / ".sockerless").mkdir()
        (container.root / ".sockerless/agent").write_text("x")
        peer.tell({"type": "welcome", "action": "wait", "streams": []})
        for path in ("/proc/version", "/dev/null", "/.sockerless", "/.sockerless/agent", "/work/../proc/1/environ"):
            with pytest.raises(CallRefused, match="Could not find the file"):
                await peer.call("archive_stat", path=path)
        assert (await peer.call("archive_stat", path="/proc"))["name"] == "proc"
        end = await peer.open("archive_get", path="/").end()
        assert end.error is None
        with tarfile.open(fileobj=io.BytesIO(bytes(end.received))) as tar:
            names = tar.getnames()
        assert {"/proc", "/dev", "/etc/passwd"} <= {"/" + name.strip("/") for name in names}
        assert not [name for name in names if name.strip("/").startswith(("proc/", "dev/", ".sockerless"))]


async def test_a_path_through_a_file_is_told_as_moby_does(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        peer.tell({"type": "welcome", "action": "wait", "streams": []})
        for path in ("/etc/passwd/", "/etc/passwd/x"):
            with pytest.raises(CallRefused, match=f"lstat {path}: not a directory"):
                await peer.call("archive_stat", path=path)
