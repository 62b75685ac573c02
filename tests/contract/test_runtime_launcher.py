"""The launcher: what outlives whom, and what is left when it ends."""

# ruff: noqa: ASYNC110, ASYNC240 - the tests look at files that containers write

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import socket
from pathlib import Path

import pytest

from local_cloud.runtime.api import MountSpec, Runtime, RuntimeRefused
from local_cloud.runtime.frames import Frames, encode

from .runtime_userland import Userland, require_namespaces


@pytest.fixture
def data(tmp_path: Path) -> Path:
    require_namespaces()
    return tmp_path / ("data-" + "long" * 20)  # a socket address would not hold this path


async def started(data: Path, idle: float = 60) -> Userland:
    runtime = Runtime(data, idle)
    await runtime.start()
    place = data.parent / os.urandom(4).hex()
    place.mkdir()
    return Userland(runtime, place)


def launcher_pid(runtime: Runtime) -> int:
    return int(runtime._greeting["pid"])


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while Path(f"/proc/{pid}/cmdline").exists():
            await asyncio.sleep(0.01)


async def test_containers_outlive_the_connection_and_are_found_again(data: Path) -> None:
    land = await started(data)
    await land.runtime.run(land.spec("long", "sleep", "60"))
    await land.runtime.run(land.spec("short", "sh", "-c", "exit 5"))
    await land.runtime.close()
    with pytest.raises(RuntimeRefused, match="has been closed"):
        await land.runtime.ids()

    again = Runtime(data)
    await again.start()
    assert launcher_pid(again) == launcher_pid(land.runtime)
    assert (await again.wait("short")).code == 5
    assert await again.ids() == {"long": True, "short": False}
    await again.kill("long", 9)
    assert (await again.wait("long")).code == 137
    await again.shutdown()


async def test_several_clients_and_several_waiters(data: Path) -> None:
    land = await started(data)
    other = Runtime(data)
    await other.start()
    await land.runtime.run(land.spec("one", "sleep", "60"))
    waits = [asyncio.create_task(runtime.wait("one")) for runtime in (land.runtime, other, other)]
    await asyncio.sleep(0.05)
    waits[1].cancel()
    await other.kill("one", 9)
    assert {(await wait).code for wait in (waits[0], waits[2])} == {137}
    await other.close()
    await land.runtime.shutdown()


async def test_a_killed_launcher_takes_its_containers_along_and_the_next_one_says_so(data: Path) -> None:
    land = await started(data)
    pid = await land.runtime.run(land.spec("victim", "sleep", "600"))
    await land.sh("done", "exit 3")
    waiting = asyncio.create_task(land.runtime.wait("victim"))
    await asyncio.sleep(0.05)
    first = launcher_pid(land.runtime)
    os.kill(first, signal.SIGKILL)
    status = await waiting
    assert (status.code, status.signal, status.error) == (137, 9, "the launcher ended while the container ran")
    await gone(pid)
    assert launcher_pid(land.runtime) != first
    assert (await land.runtime.wait("done")).code == 3
    assert (await land.sh("after", "echo works"))[1] == "works\n"
    await land.runtime.shutdown()


async def test_a_container_that_escaped_the_death_of_its_launcher_is_killed_by_the_next(data: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can change its user")
    land = await started(data)
    program = "import os, time; os.setuid(1234); print('changed', flush=True); time.sleep(600)"
    pid = await land.runtime.run(land.spec("changed", "/usr/bin/python3", "-c", program))
    while not land.output("changed"):
        await asyncio.sleep(0.01)
    os.kill(launcher_pid(land.runtime), signal.SIGKILL)
    assert (await land.runtime.wait("changed")).code == 137
    await gone(pid)
    await land.runtime.shutdown()


async def test_shutdown_leaves_nothing_but_exit_statuses(data: Path) -> None:
    land = await started(data)
    await land.sh("done", "echo x > /file; exit 4")
    await land.runtime.run(land.spec("running", "sleep", "600"))
    await land.sh("removed", "echo x > /file")
    await land.runtime.remove("removed")
    pid = launcher_pid(land.runtime)
    await land.runtime.shutdown()
    await gone(pid)
    assert sorted(path.name for path in (data / "executions").iterdir()) == ["done", "running"]
    assert list((data / "trash").iterdir()) == []
    assert not Path("/sys/class/net", _bridge_of(data)).exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/sockerless-{_bridge_of(data).removeprefix('skls')}"))

    again = Runtime(data)
    await again.start()
    assert ((await again.wait("done")).code, (await again.wait("running")).code) == (4, 137)
    await again.remove("done")
    assert await again.ids() == {"running": False}
    await again.shutdown()


def _bridge_of(data: Path) -> str:
    return "skls" + hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:8]


async def test_an_idle_launcher_ends_and_a_busy_one_does_not(data: Path) -> None:
    land = await started(data, idle=0.4)
    await land.runtime.run(land.spec("busy", "sleep", "1.2"))
    pid = launcher_pid(land.runtime)
    await land.runtime.close()
    await asyncio.sleep(0.8)
    assert Path(f"/proc/{pid}").exists()
    await gone(pid)
    again = Runtime(data)
    await again.start()
    assert (await again.wait("busy")).code == 0
    await again.shutdown()


async def test_a_launcher_whose_directory_was_removed_still_cleans_up_the_machine(data: Path) -> None:
    land = await started(data, idle=0.3)
    await land.sh("one", "true")
    pid = launcher_pid(land.runtime)
    bridge = Path("/sys/class/net", _bridge_of(data))
    await land.runtime.close()
    shutil.rmtree(data)
    await gone(pid)
    assert not bridge.exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/sockerless-{bridge.name.removeprefix('skls')}"))


async def test_what_an_interrupted_launcher_left_is_taken_over(data: Path) -> None:
    land = await started(data)
    address = land.runtime.host_address
    await land.sh("one", "true")
    os.kill(launcher_pid(land.runtime), signal.SIGKILL)
    (data / "executions/half-made").mkdir()
    (data / "trash/left").mkdir()
    (data / "trash/left/file").touch()
    assert await land.runtime.ids() == {"one": False}
    assert land.runtime.host_address == address
    assert (await land.sh("half-made", "echo fine"))[1] == "fine\n"
    await land.runtime.shutdown()
    assert list((data / "trash").iterdir()) == []


async def test_two_starts_at_once_share_one_launcher(data: Path) -> None:
    runtimes = [Runtime(data) for _ in range(5)]
    await asyncio.gather(*(runtime.start() for runtime in runtimes))
    assert len({launcher_pid(runtime) for runtime in runtimes}) == 1
    for runtime in runtimes[1:]:
        await runtime.close()
    await runtimes[0].shutdown()


async def test_the_socket_is_private_and_garbage_on_it_harms_nobody(data: Path) -> None:
    land = await started(data)
    assert (data / "launcher.sock").stat().st_mode & 0o777 == 0o600
    assert data.stat().st_mode & 0o777 == 0o700
    directory = os.open(data, os.O_PATH)
    garbage = [
        b"\xff\xff\xff\xff", b"\0\0\0\3abc", encode({"op": "run"}), encode({"op": "run", "launch": {"id": "x"}}),
        encode({"op": "run", "launch": {"id": "../../x"}}), encode({"op": "wait"}), encode({"op": ["x"], "n": {}}),
        encode({"op": "kill", "id": 5, "signal": "x"}), encode({"op": "nothing"}), b"\0\0\0\2[]", os.urandom(4096),
    ]  # fmt: skip
    for data_sent in garbage:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(f"/proc/self/fd/{directory}/launcher.sock")
            raw.sendall(data_sent)
            raw.shutdown(socket.SHUT_WR)
            raw.settimeout(20)
            while raw.recv(65536):
                pass
    os.close(directory)
    assert await land.sh("still", "echo here") == (0, "here\n")
    assert sorted(path.name for path in (data / "executions").iterdir()) == ["still"]
    await land.runtime.shutdown()


async def test_unknown_fields_and_sizes_of_frames() -> None:
    frames = Frames()
    whole = encode({"a": 1}) + encode({"b": 2})
    seen = [message for byte in whole for message in frames.feed(bytes([byte]))]
    assert seen == [{"a": 1}, {"b": 2}]


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


async def test_a_full_disk_refuses_starts_loses_no_exit_code_and_hangs_nothing(tmp_path: Path) -> None:
    require_namespaces()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    data = tmp_path / "small"
    data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", str(data)]
    process = await asyncio.create_subprocess_exec(*mount)
    if await process.wait():
        pytest.skip("tmpfs cannot be mounted here")
    try:
        land = await started(data)
        go = land.directory / "go"
        os.mkfifo(go)
        await land.runtime.run(land.spec("early", "sh", "-c", "read x < /go; exit 9", mounts=(MountSpec(go, "/go"),)))
        code, _ = await land.sh("filler", "dd if=/dev/zero of=/big bs=64k 2>/dev/null; exit 6")
        assert code == 6
        with pytest.raises(OSError, match="No space"):
            fill(data / "fill")
        go.write_text("go\n")
        assert (await land.runtime.wait("early")).code == 9
        assert "9" in (data / "executions/early/exit.json").read_text()
        with pytest.raises(RuntimeRefused, match="no space left on device") as caught:
            await land.runtime.run(land.spec("late", "sleep", "600"))
        assert caught.value.kind == "space"
        await land.runtime.remove("filler")
        (data / "fill").unlink()
        await asyncio.sleep(0.6)  # the writable layer is freed in the background
        assert await land.sh("again", "echo fine") == (0, "fine\n")
        pid = launcher_pid(land.runtime)
        await land.runtime.shutdown()
        await gone(pid)
    finally:
        await (await asyncio.create_subprocess_exec("umount", "-l", str(data))).wait()
