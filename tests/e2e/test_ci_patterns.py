"""What CI runners do, request by request."""

from __future__ import annotations

import io
import socket
import struct
import tarfile
from typing import Any

import docker.errors
import pytest

from tests.e2e.backends import EACH_BACKEND
from tests.e2e.endpoint import Endpoint

pytestmark = EACH_BACKEND


@pytest.fixture
def client(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Any:
    module: Any = docker.client  # the SDK has no types
    monkeypatch.setenv("DOCKER_CONFIG", endpoint.docker_environment()["DOCKER_CONFIG"])
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # `requests` puts them before the SDK's own `ca_cert`
        monkeypatch.delenv(variable, raising=False)
    sdk = module.DockerClient(**endpoint.sdk_options(), version="auto", timeout=60)
    yield sdk
    sdk.close()


def _demultiplex(raw: bytes) -> dict[int, bytes]:
    out: dict[int, bytes] = {1: b"", 2: b""}
    while raw:
        kind, length = struct.unpack(">BxxxL", raw[:8])
        out[kind] += raw[8 : 8 + length]
        raw = raw[8 + length :]
    return out


def _attach(endpoint: Endpoint, container: str) -> tuple[socket.socket, bytes]:
    """The hijack as Go's client does it; returns the raw connection and what came after the head."""
    connection = endpoint.connection()
    connection.sendall(
        f"POST /v1.44/containers/{container}/attach?stdin=1&stdout=1&stderr=1&stream=1 HTTP/1.1\r\n"
        "Host: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        "Content-Type: text/plain\r\nContent-Length: 0\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(4096)
    assert head.startswith(b"HTTP/1.1 101"), head
    return connection, head.split(b"\r\n\r\n", 1)[1]


def test_gitlab_stages_on_one_container(endpoint: Endpoint, client: Any) -> None:
    """create(OpenStdin, StdinOnce); then per stage: attach, start, script on stdin, half-close, demultiplex, wait."""
    container = client.api.create_container(
        "busybox", ["sh"], stdin_open=True, labels={"com.gitlab.gitlab-runner.type": "build"}
    )["Id"]
    try:
        for stage, code in [("prepare", 0), ("get_sources", 0), ("step_script", 3), ("after_script", 0)]:
            connection, received = _attach(endpoint, container)
            client.api.start(container)
            script = f"echo {stage} >> /builds; cat /builds; echo warn >&2; exit {code}\n"
            connection.sendall(script.encode())
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                received += chunk
            connection.close()
            output = _demultiplex(received)
            assert output[1].decode().split()[-1] == stage
            assert output[2] == b"warn\n"
            assert client.api.wait(container, condition="not-running")["StatusCode"] == code
    finally:
        client.api.remove_container(container, force=True, v=True)


def test_act_copies_before_start_then_execs_each_step(client: Any) -> None:
    container = client.api.create_container("busybox", ["tail", "-f", "/dev/null"], working_dir="/work")["Id"]
    try:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            member = tarfile.TarInfo("work/script.sh")
            content = b"echo step $1 >> /work/steps; cat /work/steps\n"
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
        assert client.api.put_archive(container, "/", out.getvalue())
        client.api.start(container)
        for step in range(1, 6):
            created = client.api.exec_create(container, ["sh", "/work/script.sh", str(step)])
            output = client.api.exec_start(created["Id"]).decode()
            assert output.splitlines()[-1] == f"step {step}"
            assert client.api.exec_inspect(created["Id"])["ExitCode"] == 0
        chunks, stat = client.api.get_archive(container, "/work/steps")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            taken = tar.extractfile("steps")
            assert taken is not None
            assert taken.read().decode().splitlines() == [f"step {n}" for n in range(1, 6)]
        assert stat["name"] == "steps"
    finally:
        client.api.remove_container(container, force=True)


def test_docker_py_run(client: Any) -> None:
    assert client.containers.run("busybox", ["echo", "sdk"], remove=True) == b"sdk\n"
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run("busybox", ["sh", "-c", "echo no >&2; exit 3"], remove=True)
    assert failed.value.exit_status == 3
    assert failed.value.stderr == b"no\n"


def test_docker_py_exec_demultiplexed(client: Any) -> None:
    container = client.containers.run("busybox", ["sleep", "300"], detach=True)
    try:
        code, (out, err) = container.exec_run(["sh", "-c", "echo o; echo e >&2; exit 4"], demux=True)
        assert (code, out, err) == (4, b"o\n", b"e\n")
        assert list(container.logs(stream=True, follow=False)) == []
    finally:
        container.remove(force=True)


def test_attach_over_a_websocket(endpoint: Endpoint, client: Any) -> None:
    container = client.api.create_container("busybox", ["sh", "-c", "read x; echo got $x"], stdin_open=True, tty=True)
    try:
        client.api.start(container["Id"])
        with endpoint.connection() as connection:
            connection.sendall(
                f"GET /v1.47/containers/{container['Id']}/attach/ws?stdin=1&stdout=1&stream=1 HTTP/1.1\r\n"
                "Host: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            received = connection.recv(4096)
            assert received.startswith(b"HTTP/1.1 101")
            connection.sendall(b"\x82\x83\x00\x00\x00\x00hi\n")  # a binary frame, masked with zeros
            while b"got hi" not in received:
                chunk = connection.recv(4096)
                assert chunk, received
                received += chunk
    finally:
        client.api.remove_container(container["Id"], force=True)


def test_attach_without_upgrade_is_a_raw_200(endpoint: Endpoint, client: Any) -> None:
    """dockerode's way: no Upgrade header, the answer is a plain 200 with the raw stream behind it."""
    container = client.api.create_container("busybox", ["echo", "plain"])["Id"]
    try:
        connection = endpoint.connection()
        connection.sendall(
            f"POST /containers/{container}/attach?stdout=1&stream=1 HTTP/1.1\r\n"
            "Host: d\r\nContent-Length: 0\r\n\r\n".encode()
        )
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(4096)
        head, body = received.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 200")
        client.api.start(container)
        while chunk := connection.recv(65536):
            body += chunk
        assert _demultiplex(body)[1] == b"plain\n"
    finally:
        client.api.remove_container(container, force=True)
