"""What the agent does around the process: mounts, files of /etc, capabilities, limits, pause, top, health."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent_gateway.agent import binary
from tests.contract.agent_container import agent, spec
from tests.contract.agent_peer import CallRefused

DOCKER_CAPS = 0xA80425FB


async def _run(tmp_path: Path, script: str, prepare: str = "", **fields: Any) -> tuple[str, Path]:
    async with agent(tmp_path) as (peer, container):
        if prepare:
            process = await asyncio.create_subprocess_exec("sh", "-ec", prepare, cwd=container.root)
            assert await process.wait() == 0
        end = peer.attach()
        event = await peer.start(spec("sh", "-c", script, **fields), [end.id])
        assert event["type"] == "started", event
        out, err = (await end.end()).demultiplexed()
        assert err == b""
        return out.decode(), container.root


async def test_capabilities_are_dockers(tmp_path: Path) -> None:
    out, _ = await _run(tmp_path, "grep ^Cap /proc/self/status")
    caps = {line.split(":")[0]: int(line.split()[1], 16) for line in out.splitlines()}
    expected = {"CapInh": 0, "CapPrm": DOCKER_CAPS, "CapEff": DOCKER_CAPS, "CapBnd": DOCKER_CAPS, "CapAmb": 0}
    assert caps == expected


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        (["NET_ADMIN"], [], DOCKER_CAPS | 1 << 12),
        ([], ["CAP_CHOWN"], DOCKER_CAPS & ~1),
        (["CHOWN"], ["ALL"], 1),
        ([], ["all"], 0),
        (["ALL"], ["CHOWN"], None),
    ],
)
async def test_capabilities_added_and_dropped(
    tmp_path: Path, add: list[str], drop: list[str], expected: int | None
) -> None:
    out, _ = await _run(tmp_path, "grep ^CapEff /proc/self/status", cap_add=add, cap_drop=drop)
    effective = int(out.split()[1], 16)
    if expected is None:
        assert effective > DOCKER_CAPS
        assert not effective & 1
    else:
        assert effective == expected


async def test_another_user_has_no_capabilities_and_may_use_its_stdout(tmp_path: Path) -> None:
    out, _ = await _run(tmp_path, "grep ^CapEff /proc/self/status; echo again > /proc/self/fd/1", user="app")
    assert out.splitlines() == ["CapEff:\t0000000000000000", "again"]


async def test_ulimits_umask_and_no_new_privileges(tmp_path: Path) -> None:
    limits = [{"name": "nofile", "soft": 100, "hard": 200}, {"name": "core", "soft": -1, "hard": -1}]
    script = "ulimit -Sn; ulimit -Hn; ulimit -c; umask; id -u; pwd; grep -E 'NoNewPrivs|CapEff' /proc/self/status"
    fields: dict[str, Any] = {"no_new_privileges": True, "user": "1000", "workdir": "/work"}
    out, _ = await _run(tmp_path, script, ulimits=limits, umask=0o77, **fields)
    lines = out.split("\n")[:-1]
    assert lines == ["100", "200", "unlimited", "0077", "1000", "/work", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"]


async def test_ulimits_keep_dockers_capabilities_and_texts(tmp_path: Path) -> None:
    limits = [{"name": "nofile", "soft": 100, "hard": 200}]
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000", ulimits=limits))
        code, out = await peer.exec_output("sh", "-c", "ulimit -n; grep CapEff /proc/self/status")
        assert (code, out.split()) == (0, [b"100", b"CapEff:", b"00000000a80425fb"])
        end = await peer.exec("nosuch").end()
        assert end.error
        assert 'exec: "nosuch": executable file not found in $PATH' in end.error["message"]


async def test_volumes_are_bound_filled_once_and_their_exports_detached(tmp_path: Path) -> None:
    source = "/.sockerless/volumes/0"
    prepare = f"""
      mkdir -p .{source}/sub data/deep; echo image > data/f; chown 7:8 data/f; chmod 604 data/f; ln -s f data/l
      echo inner > data/deep/g; chown 5:6 data; chmod 751 data"""
    mounts = [
        {"type": "bind", "source": source, "subpath": "sub", "target": "/data", "copy_up": True, "create": True},
        {"type": "bind", "source": source, "subpath": "sub", "target": "/made/ro", "read_only": True, "create": True},
        {"type": "bind", "source": source, "subpath": "new/er", "target": "/new", "create": True},
    ]
    script = """
      cat /data/f /data/l /data/deep/g; stat -c '%u %g %a' /data /data/f; echo more > /data/more; cat /made/ro/more
      touch /made/ro/x 2>/dev/null || echo refused; touch /new/x; ls /.sockerless/volumes"""
    out, root = await _run(tmp_path, script, prepare, mounts=mounts)
    assert out.splitlines() == ["image", "image", "inner", "5 6 751", "7 8 604", "more", "refused", "0"]
    assert (root / f".{source}/sub/f").read_text() == "image\n"
    assert (root / f".{source}/new/er/x").exists()


async def test_a_volume_with_content_is_not_filled(tmp_path: Path) -> None:
    prepare = "mkdir -p v data; echo old > v/f; echo image > data/f"
    mounts = [{"type": "bind", "source": "/v", "subpath": "", "target": "/data", "copy_up": True}]
    out, _ = await _run(tmp_path, "cat /data/f", prepare, mounts=mounts)
    assert out == "old\n"


async def test_a_subpath_cannot_leave_its_volume(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        (container.root / "v").mkdir()
        (container.root / "v/evil").symlink_to("/etc")
        mounts = [{"type": "bind", "source": "/v", "subpath": "evil", "target": "/data", "create": True}]
        failed = await peer.start(spec("true", mounts=mounts))
        assert (failed["type"], failed["code"]) == ("failed", 125)
        # The link begins at the volume's root, where there is no /etc.
        assert failed["message"].endswith("bind source path does not exist: /evil")


async def test_a_missing_bind_source_is_refused_as_moby_does(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        (container.root / "v").mkdir()
        mounts = [{"type": "bind", "source": "/v", "subpath": "home/me", "target": "/data", "create": False}]
        failed = await peer.start(spec("true", mounts=mounts))
        text = 'invalid mount config for type "bind": bind source path does not exist: /home/me'
        assert (failed["code"], failed["message"]) == (125, text)


async def test_tmpfs_read_only_root_and_shm(tmp_path: Path) -> None:
    mounts = [{"type": "tmpfs", "target": "/run", "options": "size=64k,exec"}]
    script = """
      touch /run/x && echo writable; touch /x 2>/dev/null || echo read-only
      grep ' /run ' /proc/mounts | cut -d' ' -f4; df -k /dev/shm | tail -1 | awk '{print $2}'"""
    fields: dict[str, Any] = {"read_only_root": True, "workdir": "/made", "shm_size": 1 << 20}
    out, _ = await _run(tmp_path, script, mounts=mounts, **fields)
    writable, read_only, options, shm = out.splitlines()
    assert (writable, read_only, shm) == ("writable", "read-only", "1024")
    assert {"nosuid", "nodev", "size=64k"} <= set(options.split(","))
    assert "noexec" not in options


async def test_hostname_hosts_and_resolv_conf(tmp_path: Path) -> None:
    fields = {"hostname": "box", "domainname": "corp", "extra_hosts": ["db:10.0.0.2", "six:fd00::1"]}
    dns = {"dns": ["9.9.9.9"], "dns_search": ["a.example", "b.example"], "dns_options": ["ndots:2"]}
    prepare = "printf 'nameserver 1.1.1.1\\nsearch old\\n' > etc/resolv.conf"
    out, _ = await _run(tmp_path, "hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf", prepare, **fields, **dns)
    lines = out.splitlines()
    assert lines[:2] == ["box", "box"]
    assert {"127.0.0.1\tlocalhost", "10.0.0.2\tdb", "fd00::1\tsix"} <= set(lines)
    assert any(line.endswith("\tbox.corp box") for line in lines)
    assert lines[-3:] == ["nameserver 9.9.9.9", "search a.example b.example", "options ndots:2"]


async def test_mounts_are_made_once_for_all_runs(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        (container.root / "v").mkdir()
        mounts = [{"type": "bind", "source": "/v", "target": "/data", "create": True}]
        fields = {"mounts": mounts, "linger_seconds": -1}
        for run in (1, 2):
            end = peer.attach()
            one = spec("sh", "-c", "grep -c ' /data ' /proc/mounts", run=run, **fields)
            if run == 1:
                await peer.start(one, [end.id])
            else:
                await peer.call("start", spec=one, streams=[end.id])
            assert (await end.end()).demultiplexed()[0] == b"1\n"


async def test_pause_stops_every_process_and_unpause_lets_them_go_on(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        end = peer.attach()
        await peer.start(spec("sh", "-c", "while :; do echo x; sleep 0.01; done"), [end.id])
        await end.output(b"x\n")
        await peer.call("pause")
        await asyncio.sleep(0.05)
        before = end.count
        await asyncio.sleep(0.2)
        assert end.count == before
        await peer.call("unpause")
        await end.until(lambda: end.count > before)


async def test_top(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000", user="app"))
        table = await peer.call("top", ps_args="-ef")
        assert table["Titles"] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
        [row] = table["Processes"]
        assert (row[0], row[2], row[5:]) == ("app", "1", ["?", "00:00:00", "sleep 1000"])
        table = await peer.call("top", ps_args="aux")
        assert table["Titles"][:4] == ["USER", "PID", "%CPU", "%MEM"]
        assert table["Processes"][0][-1] == "sleep 1000"
        table = await peer.call("top", ps_args="-o pid,comm,args=WHAT")
        assert table["Titles"] == ["PID", "COMMAND", "WHAT"]
        for bad in ("--forest", "-o nope"):
            with pytest.raises(CallRefused) as refused:
                await peer.call("top", ps_args=bad)
            assert refused.value.status == 400
            assert "supported" in refused.value.message


async def test_health_goes_from_starting_over_unhealthy_to_healthy(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        check = {
            "test": ["CMD-SHELL", "yes | head -c 9000; test -e /tmp/well"],
            "interval_ns": 20_000_000,
            "retries": 2,
        }
        await peer.start(spec("sh", "-c", "sleep 1000", healthcheck=check))
        first = await peer.event("health")
        assert (first["status"], first["failing_streak"], first["log"]["exit_code"]) == ("starting", 1, 1)
        assert first["log"]["output"] == "y\n" * 2048 + "..."
        assert (await peer.event("health", status="unhealthy"))["failing_streak"] == 2
        await peer.exec_output("touch", "/tmp/well")
        assert (await peer.event("health", status="healthy"))["log"]["exit_code"] == 0


async def test_a_health_check_that_hangs_times_out(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        check = {"test": ["CMD", "sleep", "100"], "interval_ns": 10_000_000, "timeout_ns": 50_000_000, "retries": 1}
        await peer.start(spec("sleep", "1000", healthcheck=check))
        health = await peer.event("health", status="unhealthy")
        assert health["log"]["exit_code"] == -1
        assert health["log"]["output"] == "Health check exceeded timeout (50ms)"


def test_the_binary_is_found_small_and_named_when_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for arch in ("amd64", "aarch64"):
        try:
            assert binary.path(arch).stat().st_size <= 6_100_000
        except binary.AgentNotBuiltError:
            assert arch != "amd64"
    with pytest.raises(ValueError, match="riscv64"):
        binary.path("riscv64")
    monkeypatch.setattr(binary, "__file__", str(tmp_path / "binary.py"))
    with pytest.raises(binary.AgentNotBuiltError, match=r"build\.sh"):
        binary.path("amd64")
