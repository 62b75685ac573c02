"""Containers really run: what a program in one sees, may do, and how its end is told."""

# ruff: noqa: ASYNC110, ASYNC240 - the tests look at files that containers write

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from local_cloud.runtime.api import MountSpec, Runtime, RuntimeRefused

from .runtime_userland import Userland, require_namespaces


@pytest.fixture
async def land(tmp_path: Path) -> AsyncIterator[Userland]:
    require_namespaces()
    runtime = Runtime(tmp_path / "data")
    await runtime.start()
    yield Userland(runtime, tmp_path)
    await runtime.shutdown()


@pytest.mark.parametrize("code", [0, 1, 42, 126, 255])
async def test_exit_codes_are_exact(land: Userland, code: int) -> None:
    assert await land.sh("exit", f"exit {code}") == (code, "")


async def test_a_signal_is_told_apart_from_an_exit_code(land: Userland) -> None:
    await land.runtime.run(land.spec("sleeper", "sleep", "60"))
    await land.runtime.kill("sleeper", 9)
    status = await land.runtime.wait("sleeper")
    assert (status.code, status.signal, status.oom, status.error) == (137, 9, False, "")


async def test_a_handled_signal_reaches_pid_1(land: Userland) -> None:
    script = "trap 'echo got; exit 7' USR1; echo ready; while :; do sleep 0.05; done"
    await land.runtime.run(land.spec("trap", "sh", "-c", script))
    while "ready" not in land.output("trap"):
        await asyncio.sleep(0.01)
    await land.runtime.kill("trap", 10)
    assert (await land.runtime.wait("trap")).code == 7
    assert land.output("trap") == "ready\ngot\n"


async def test_output_goes_to_its_two_files_and_a_truncating_open_loses_nothing(land: Userland) -> None:
    code, out = await land.sh("out", "echo one; echo two >&2; echo three > /dev/stdout; echo four > /dev/stderr")
    assert (code, out, land.errors("out")) == (0, "one\nthree\n", "two\nfour\n")


async def test_both_outputs_may_be_one_file_and_are_appended(land: Userland) -> None:
    both = land.directory / "both"
    both.write_text("before\n")
    await land.runtime.run(land.spec("same", "sh", "-c", "echo 1; echo 2 >&2; echo 3", stdout=both, stderr=both))
    await land.runtime.wait("same")
    assert both.read_text() == "before\n1\n2\n3\n"


async def test_a_megabyte_of_output_is_whole_when_the_end_is_told(land: Userland) -> None:
    await land.runtime.run(land.spec("much", "head", "-c", "5000000", "/dev/zero"))
    assert (await land.runtime.wait("much")).code == 0
    assert (land.directory / "much.out").stat().st_size == 5_000_000


async def test_environment_workdir_hostname_and_pid_1(land: Userland) -> None:
    script = 'echo "$$ $A $PATH"; pwd; cat /proc/sys/kernel/hostname'
    code, out = await land.sh("env", script, env={"A": "x y"}, workdir="/made/for/it", hostname="named")
    default = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert (code, out) == (0, f"1 x y {default}\n/made/for/it\nnamed\n")


async def test_processes_mounts_and_host_name_are_its_own(land: Userland) -> None:
    script = (
        "ls -d /proc/[0-9]* | wc -l; mount -t tmpfs none /mnt && touch /mnt/in; hostname changed && hostname; ls /mnt"
    )
    (land.layer / "mnt").mkdir()
    code, out = await land.sh("own", script)
    processes, *rest = out.split()
    assert (code, rest) == (0, ["changed", "in"])
    assert int(processes) <= 3
    assert socket.gethostname() != "changed"


async def test_the_host_cannot_be_written_through_proc_and_devices(land: Userland) -> None:
    script = "echo x > /proc/sys/kernel/core_pattern; chmod 0 /dev/null; mknod /tmp/disk b 8 0; head -c1 /tmp/disk;"
    script += "cat /dev/null"
    before = Path("/proc/sys/kernel/core_pattern").read_text(), os.stat("/dev/null").st_mode
    (land.layer / "tmp").mkdir()
    code, out = await land.sh("host", script)
    assert (Path("/proc/sys/kernel/core_pattern").read_text(), os.stat("/dev/null").st_mode) == before
    assert (code, out) == (0, "")
    assert len(land.errors("host").splitlines()) >= 3


async def test_devices_terminals_and_shared_memory_work(land: Userland) -> None:
    script = (
        "set -e; echo x > /dev/null; head -c4 /dev/urandom | wc -c; head -c2 /dev/zero | wc -c;"
        "if echo y > /dev/full; then exit 9; fi; touch /dev/shm/x; ls /dev/fd/0 /dev/ptmx /dev/pts/ptmx > /dev/null;"
        "python3 -c 'import os; os.openpty()'; echo fine"
    )
    code, out = await land.sh("dev", script)
    assert (code, out.split()) == (0, ["4", "2", "fine"])


async def test_layers_stack_and_writes_stay_out_of_them(land: Userland) -> None:
    for name in ("low", "top"):
        (land.directory / name / "d").mkdir(parents=True)
        (land.directory / name / "d/file").write_text(name)
    (land.directory / "low/d/only").write_text("low")
    layers = (land.layer, land.directory / "low", land.directory / "top", land.directory / "low")
    code, out = await land.sh("stack", "cat /d/file /d/only; echo w > /d/only; cat /d/only", layers=layers)
    assert (code, out) == (0, "lowloww\n")
    assert (land.directory / "low/d/only").read_text() == "low"


async def test_a_hundred_layers(land: Userland) -> None:
    layers = []
    for number in range(100):
        layer = land.directory / "layers-with-a-rather-long-name,and:odd" / f"{number:064d}"
        layer.mkdir(parents=True)
        (layer / f"f{number}").touch()
        layers.append(layer)
    assert await land.sh("many", "ls /f* | wc -l", layers=(land.layer, *layers)) == (0, "100\n")


async def test_mounts_are_live_read_only_when_asked_and_follow_no_link_out(land: Userland) -> None:
    shared = land.directory / "shared"
    shared.mkdir()
    (shared / "in").write_text("hello")
    (land.layer / "escape").symlink_to("/data")
    mounts = (
        MountSpec(shared, "/new/place"),
        MountSpec(shared, "/fixed", True),
        MountSpec(shared, "/escape/deep"),
        MountSpec(shared, "/usr/not-there", True),
        MountSpec(shared / "in", "/one-file"),
    )
    script = "cat /new/place/in /data/deep/in /usr/not-there/in /one-file; echo out > /new/place/out; echo x > /fixed/x"
    code, out = await land.sh("mounts", script, mounts=mounts)
    assert (code, out) == (2, "hello" * 4) or (code, out) == (1, "hello" * 4)
    assert (shared / "out").read_text() == "out\n"
    assert not (shared / "x").exists()
    assert "Read-only file system" in land.errors("mounts")
    assert not Path("/usr/not-there").exists()
    assert not Path("/data/deep").exists()


async def test_network_files_are_there_even_over_a_dangling_link(land: Userland) -> None:
    (land.layer / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    code, out = await land.sh(
        "etc", "grep -c nameserver /etc/resolv.conf; grep box /etc/hosts | wc -l; cat /etc/hostname"
    )
    assert (code, out.split()[1:]) == (0, ["1", "box"])
    assert int(out.split()[0]) >= 1


async def test_a_container_reaches_a_listener_on_the_host_address(land: Userland) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome")
        writer.close()

    server = await asyncio.start_server(greet, land.runtime.host_address, 0)
    port = server.sockets[0].getsockname()[1]
    program = (
        f"import socket; print(socket.create_connection(({land.runtime.host_address!r}, {port})).recv(9).decode())"
    )
    await land.runtime.run(land.spec("dial", "/usr/bin/python3", "-c", program))
    assert (await land.runtime.wait("dial")).code == 0, land.errors("dial")
    assert land.output("dial") == "welcome\n"
    server.close()


async def test_containers_on_the_bridge_do_not_reach_each_other(land: Userland) -> None:
    if land.runtime.network != "bridge":
        pytest.skip(f"no bridge here: {land.runtime.shortcomings}")
    serve = (
        "import socket; s = socket.create_server(('0.0.0.0', 7000)); "
        "print(socket.gethostbyname(socket.gethostname()), flush=True); s.accept()"
    )
    await land.runtime.run(land.spec("server", "/usr/bin/python3", "-c", serve, hostname="server"))
    while not land.output("server").endswith("\n"):
        assert (await land.runtime.ids())["server"], land.errors("server")
        await asyncio.sleep(0.02)
    address = land.output("server").strip()
    with socket.create_connection((address, 7000), timeout=20):
        pass  # the host does
    await land.runtime.remove("server")
    await land.runtime.run(land.spec("server2", "/usr/bin/python3", "-c", serve, hostname="server"))
    while not land.output("server2").endswith("\n"):
        await asyncio.sleep(0.02)
    dial = f"import socket; socket.create_connection(({land.output('server2').strip()!r}, 7000), timeout=1)"
    await land.runtime.run(land.spec("client", "/usr/bin/python3", "-c", dial))
    assert (await land.runtime.wait("client")).code == 1
    assert "timed out" in land.errors("client") or "No route" in land.errors("client")


async def test_memory_limit_kills_and_says_so(land: Userland) -> None:
    if any("limits" in text for text in land.runtime.shortcomings):
        pytest.skip(f"no limits here: {land.runtime.shortcomings}")
    program = "x = bytearray(200 << 20)"
    await land.runtime.run(
        land.spec("greedy", "/usr/bin/python3", "-c", program, memory_bytes=64 << 20, cpus=1, pids=50)
    )
    status = await land.runtime.wait("greedy")
    assert (status.code, status.oom) == (137, True)


async def test_process_limit_and_the_limits_a_container_sees(land: Userland) -> None:
    if any("limits" in text for text in land.runtime.shortcomings):
        pytest.skip(f"no limits here: {land.runtime.shortcomings}")
    script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null;"
    script += "for i in 1 2 3 4 5 6; do sleep 1 & done"
    _, out = await land.sh("forks", script, pids=4, memory_bytes=64 << 20)
    assert out.split() == [str(64 << 20)]
    assert "fork" in land.errors("forks").lower()


async def test_users_by_name_number_and_group(land: Userland) -> None:
    if os.geteuid() != 0:
        pytest.skip("an ordinary user may not have these ids")
    for number, (user, expected) in enumerate(
        {
            "": "0:0 0 /root",
            "app": "1234:2345 2345,50 /home/app",
            "app:staff": "1234:50 50 /home/app",
            "77": "77:0 0 /",
            "77:88": "77:88 88 /",
            "1234": "1234:2345 2345,50 /home/app",
        }.items()
    ):
        script = 'echo "$(id -u):$(id -g) $(id -G | tr " " ,) $HOME"; echo again > /dev/stdout'
        code, out = await land.sh(f"user{number}", script, user=user)
        assert (code, out) == (0, f"{expected}\nagain\n"), user


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"argv": ("no-such-program",)}, "command", 'exec: "no-such-program": executable file not found in $PATH'),
        ({"argv": ("/no/such",)}, "command", 'exec: "/no/such": stat /no/such: no such file or directory'),
        ({"argv": ("/etc/passwd",)}, "command", 'exec: "/etc/passwd": permission denied'),
        ({"argv": ("/etc",)}, "command", 'exec: "/etc": is a directory'),
        ({"argv": ("/script",)}, "command", "names is not in the image"),
        ({"argv": ("/empty",)}, "command", "exec format error"),
        ({"user": "nobody-here"}, "user", "unable to find user nobody-here: no matching entries in passwd file"),
        ({"user": "app:nogroup-here"}, "user", "unable to find group nogroup-here"),
        (
            {"layers": (Path("/no/layer"),)},
            "layer",
            "mounting the image's layers: no such file or directory: /no/layer",
        ),
        ({"mounts": (MountSpec(Path("/no/source"), "/x"),)}, "mount", "/no/source"),
        ({"workdir": "/etc/passwd"}, "workdir", "/etc/passwd"),
        ({"stdout": Path("/no/dir/out")}, "machine", "/no/dir/out"),
        ({"hostname": "x" * 65}, "spec", "longer than 64"),
        ({"id": "../x"}, "spec", "the id is not"),
        ({"env": {"A=B": "c"}}, "spec", "environment name"),
    ],
)
async def test_what_cannot_start_is_refused_and_leaves_nothing(
    land: Userland, fields: dict[str, object], kind: str, text: str
) -> None:
    (land.layer / "script").write_text("#!/no/interpreter\n")
    (land.layer / "empty").write_text("neither a script nor a program")
    for name in ("script", "empty"):
        (land.layer / name).chmod(0o755)
    spec = land.spec("refused", *fields.pop("argv", ("true",)), **fields)  # type: ignore[misc]
    with pytest.raises(RuntimeRefused) as caught:
        await land.runtime.run(spec)
    assert (caught.value.kind, text in str(caught.value)) == (kind, True), str(caught.value)
    assert await land.runtime.ids() == {}
    await land.sh("refused", "true")  # the id is free again


async def test_the_same_id_twice_and_unknown_ids(land: Userland) -> None:
    await land.runtime.run(land.spec("one", "sleep", "60"))
    with pytest.raises(RuntimeRefused, match="exists already"):
        await land.runtime.run(land.spec("one", "true"))
    for action in (land.runtime.wait("none"), land.runtime.kill("none", 9), land.runtime.remove("none")):
        with pytest.raises(RuntimeRefused, match="no such execution") as caught:
            await action
        assert caught.value.kind == "unknown"
    await land.runtime.remove("one")
    assert await land.runtime.ids() == {}


async def test_killing_one_that_has_ended_is_refused(land: Userland) -> None:
    await land.sh("ended", "true")
    with pytest.raises(RuntimeRefused, match="is not running"):
        await land.runtime.kill("ended", 15)


async def test_fifty_at_once_with_addresses_of_their_own(land: Userland) -> None:
    async def one(number: int) -> tuple[int, str]:
        return await land.sh(f"run-{number}", f"cat /proc/net/fib_trie | grep -c 10.200 ; echo {number}")

    results = await asyncio.gather(*(one(number) for number in range(50)))
    assert [(out.split()[-1]) for _, out in results] == [str(number) for number in range(50)]
    assert {code for code, _ in results} == {0}
    await asyncio.gather(*(land.runtime.remove(f"run-{number}") for number in range(50)))
    assert await land.runtime.ids() == {}


async def test_children_left_behind_die_with_pid_1(land: Userland) -> None:
    code, _ = await land.sh("orphans", "sleep 600 & echo $!; exit 3")
    assert code == 3
    assert not [
        path for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists() and _command(path) == b"sleep\x00600\x00"
    ]


def _command(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


async def test_this_machine_reaches_a_container_at_its_address(land: Userland) -> None:
    for name, network in (("bridged", "bridge"), ("shared", "host")):
        await land.runtime.run(land.spec(name, "sleep", "60", network=network))
    addresses = [await land.runtime.address("bridged"), await land.runtime.address("shared")]
    own = land.runtime.network == "bridge"
    assert addresses[1] == "127.0.0.1"
    assert (addresses[0] != "127.0.0.1") == own
    if own:
        with socket.socket() as caller:  # refused by the container: nothing listens there
            caller.settimeout(5)
            assert caller.connect_ex((addresses[0], 9)) == errno.ECONNREFUSED
    await land.runtime.close()
    await land.runtime.start()
    assert await land.runtime.address("bridged") == addresses[0]
    await land.runtime.kill("bridged", 9)
    await land.runtime.wait("bridged")
    for name in ("bridged", "never"):
        with pytest.raises(RuntimeRefused):
            await land.runtime.address(name)
