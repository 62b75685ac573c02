"""What is measured. Each measure takes an engine and returns one figure; the report takes medians of several turns."""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.engines import Engine

MIB = 1024 * 1024


class _Connection(http.client.HTTPConnection):
    """HTTP over the engine's unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(str(self._path))


def request(engine: Engine, method: str, path: str, body: object = None) -> bytes:
    connection = _Connection(engine.socket)
    connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse().read()
    connection.close()
    return answer


def rate(engine: Engine, path: str, seconds: float = 1.5) -> float:
    """Requests a second over one kept connection, written and read bare so that the client costs little."""
    head = f"GET {path} HTTP/1.1\r\nHost: d\r\n\r\n".encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(engine.socket))
        done, begin = 0, time.perf_counter()
        while (spent := time.perf_counter() - begin) < seconds:
            connection.sendall(head)
            _read_answer(connection)
            done += 1
    return done / spent


def _read_answer(connection: socket.socket) -> None:
    data = connection.recv(262144)
    while b"\r\n\r\n" not in data:
        data += connection.recv(262144)
    head, rest = data.split(b"\r\n\r\n", 1)
    lowered = head.lower()
    if b"transfer-encoding: chunked" in lowered:
        while not rest.endswith(b"0\r\n\r\n"):
            rest += connection.recv(262144)
        return
    length = int(lowered.split(b"content-length:")[1].split(b"\r\n")[0])
    while len(rest) < length:
        rest += connection.recv(262144)


@contextmanager
def many_containers(engine: Engine, count: int) -> Iterator[None]:
    """`count` created containers, removed afterwards."""
    ids = [
        json.loads(request(engine, "POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]}))["Id"]
        for _ in range(count)
    ]
    try:
        yield
    finally:
        for identifier in ids:
            request(engine, "DELETE", f"/containers/{identifier}?force=1")


@contextmanager
def running_container(engine: Engine, *command: str) -> Iterator[str]:
    identifier = engine.docker("run", "-d", "busybox", *(command or ("sleep", "3600"))).decode().strip()
    try:
        yield identifier
    finally:
        engine.docker("rm", "-f", identifier)


def seconds_of(engine: Engine, *arguments: str, stdin: bytes | None = None) -> float:
    """Wall time of a whole docker CLI process."""
    begin = time.perf_counter()
    engine.docker(*arguments, stdin=stdin)
    return time.perf_counter() - begin


def run_true(engine: Engine) -> float:
    return 1000 * seconds_of(engine, "run", "--rm", "busybox", "true")


def exec_true(engine: Engine) -> float:
    with running_container(engine) as box:
        times = sorted(seconds_of(engine, "exec", box, "true") for _ in range(7))
    return 1000 * times[3]


def _exec_stream(engine: Engine, box: str, command: list[str], stdin: bool) -> socket.socket:
    body = {"AttachStdin": stdin, "AttachStdout": True, "AttachStderr": True, "Cmd": command}
    created = json.loads(request(engine, "POST", f"/containers/{box}/exec", body))["Id"]
    start = json.dumps({"Detach": False, "Tty": False}).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(engine.socket))
    connection.sendall(
        b"POST /exec/%b/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (created.encode(), len(start)) + start
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    assert b" 101 " in head, head
    return connection


def exec_stdout(engine: Engine, size: int = 512 * MIB) -> float:
    """MiB/s from a process in the container to the client of the API."""
    with running_container(engine) as box:
        with _exec_stream(engine, box, ["dd", "if=/dev/zero", "bs=64k", f"count={size // 65536}"], False) as connection:
            buffer, total, begin = bytearray(MIB), 0, time.perf_counter()
            while got := connection.recv_into(buffer):
                total += got
        assert total >= size
        return total / MIB / (time.perf_counter() - begin)


def exec_stdin(engine: Engine, size: int = 512 * MIB) -> float:
    """MiB/s from the client of the API to a process in the container."""
    with running_container(engine) as box:
        with _exec_stream(engine, box, ["wc", "-c"], True) as connection:
            block, begin = bytes(MIB), time.perf_counter()
            for _ in range(size // MIB):
                connection.sendall(block)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := connection.recv(4096):
                answer += chunk
        length = struct.unpack(">L", answer[4:8])[0]
        assert int(answer[8 : 8 + length]) == size
        return size / MIB / (time.perf_counter() - begin)


def copy_in(engine: Engine, size: int = 256 * MIB) -> float:
    with running_container(engine) as box, tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(MIB) * (size // MIB))
        file.flush()
        return size / MIB / seconds_of(engine, "cp", file.name, f"{box}:/big")


def copy_out(engine: Engine, size: int = 256 * MIB) -> float:
    with running_container(engine) as box, tempfile.TemporaryDirectory() as directory:
        engine.docker("exec", box, "dd", "if=/dev/zero", "of=/big", "bs=1M", f"count={size // MIB}")
        return size / MIB / seconds_of(engine, "cp", f"{box}:/big", f"{directory}/big")


def logs(engine: Engine, lines: int = 300_000) -> float:
    """Lines a second of `docker logs` of an exited container."""
    identifier = (
        engine.docker(
            "run",
            "-d",
            "busybox",
            "sh",
            "-c",
            f"yes 'a line of some sixty characters, as programs write them often' | head -n {lines}",
        )
        .decode()
        .strip()
    )
    try:
        engine.docker("wait", identifier)
        begin = time.perf_counter()
        out = engine.docker("logs", identifier)
        spent = time.perf_counter() - begin
        assert out.count(b"\n") == lines
        return lines / spent
    finally:
        engine.docker("rm", "-f", identifier)


def fifty_at_once(engine: Engine) -> float:
    """Seconds until 50 simultaneous `docker run --rm busybox true` have ended, each with exit code 0."""
    begin = time.perf_counter()
    started = [
        subprocess.Popen(
            ["docker", "run", "--rm", "busybox", "true"], stdin=subprocess.DEVNULL, env=engine.environment()
        )
        for _ in range(50)
    ]
    assert [process.wait(120) for process in started] == [0] * 50
    return time.perf_counter() - begin


@contextmanager
def ten_idle(engine: Engine) -> Iterator[None]:
    """Ten containers that sleep, some seconds after their start."""
    ids = [engine.docker("run", "-d", "busybox", "sleep", "3600").decode().strip() for _ in range(10)]
    try:
        time.sleep(3)
        yield
    finally:
        engine.docker("rm", "-f", *ids)


def idle_resident(engine: Engine) -> float:
    """MiB resident with ten idle containers, summed over the engine's processes: shared pages count in each."""
    with ten_idle(engine):
        return engine.memory("Rss") / MIB


def idle_proportional(engine: Engine) -> float:
    """MiB with ten idle containers, a shared page counted once, in parts, for all who share it."""
    with ten_idle(engine):
        return engine.memory("Pss") / MIB


def listing(count: int) -> Callable[[Engine], float]:
    def measure(engine: Engine) -> float:
        with many_containers(engine, count):
            return rate(engine, "/containers/json?all=1")

    return measure


def inspect(engine: Engine) -> float:
    with many_containers(engine, 1):
        identifier = json.loads(request(engine, "GET", "/containers/json?all=1"))[0]["Id"]
        return rate(engine, f"/containers/{identifier}/json")
