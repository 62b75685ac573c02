"""The real docker CLI against the front door, with a Docker API that is just enough for `exec` and `attach`."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from agent_gateway.asgi import read_body, respond, respond_message
from agent_gateway.protocol import Error, Exit, Result
from tests.contract.gateway_peers import AgentStream, FakeAgent, FakeControlPlane, running_gateway

DOCKER = shutil.which("docker")
pytestmark = pytest.mark.skipif(DOCKER is None, reason="no docker CLI on this machine")

ID = "c" * 64
NOT_FOUND = (
    'OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuch": '
    "executable file not found in $PATH: unknown"
)


class DockerApi:
    """One running container; execs are kept with their exit codes."""

    def __init__(self) -> None:
        self.plane = FakeControlPlane()
        self.plane.tty = False
        self.codes: dict[str, int] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path, method = re.sub(r"^/v\d+\.\d+", "", scope["path"]), scope["method"]
        answer: Any
        if path == "/_ping":
            headers = [(b"api-version", b"1.47"), (b"content-length", b"2")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"OK"})
            return
        if re.fullmatch(r"/containers/[^/]+/json", path):
            answer = {"Id": ID, "State": {"Running": True, "Status": "running"}, "Config": {"OpenStdin": True}}
        elif re.fullmatch(r"/containers/[^/]+/exec", path) and method == "POST":
            body = orjson.loads(await read_body(receive, 65536) or b"{}")
            self.plane.kind = "exec"
            self.plane.params = {"argv": body["Cmd"], "stdin": body.get("AttachStdin", False)}
            answer = {"Id": "e1"}
        elif path == "/exec/e1/json":
            answer = {"ID": "e1", "Running": False, "ExitCode": self.codes.get("e1", 0)}
        elif re.fullmatch(r"/containers/[^/]+/wait", path):
            answer = {"StatusCode": 5}
        else:
            await respond_message(send, 404, f"page not found: {method} {path}")
            return
        status = 201 if method == "POST" and path.endswith("/exec") else 200
        await respond(send, status, orjson.dumps(answer), b"application/json")

    async def run(self, stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        """The agent's side: a few commands."""
        argv = params.get("argv", ["cat"])
        if argv == ["nosuch"]:
            self.codes["e1"] = 127
            stream.finish(Error(400, NOT_FOUND))
            await stream.wait_ended()
            return
        if kind == "exec":
            stream.finish(Result({"pid": 7}))
        if argv[0] == "cat":
            async for chunk in stream.chunks():
                await self.write(stream, 1, chunk)
        elif argv[0] == "both":
            await self.write(stream, 1, b"to stdout\n")
            await self.write(stream, 2, b"to stderr\n")
        self.codes["e1"] = int(argv[1]) if len(argv) > 1 else 0
        stream.finish(Exit(self.codes["e1"]))
        await stream.wait_ended()

    @staticmethod
    async def write(stream: AgentStream, fd: int, data: bytes) -> None:
        await stream.send(bytes([fd, 0, 0, 0]) + len(data).to_bytes(4, "big") + data)


async def docker(gateway: Any, *arguments: str, stdin: bytes = b"", home: Path) -> tuple[int, bytes, bytes]:
    assert DOCKER is not None
    process = await asyncio.create_subprocess_exec(
        DOCKER,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"DOCKER_HOST": gateway.docker_addresses[0], "DOCKER_CONFIG": str(home), "PATH": "/usr/bin:/bin"},
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out, err


@pytest.mark.parametrize("listen", ["tcp", "unix"])
async def test_exec_and_attach_with_the_docker_cli(tmp_path: Path, listen: str) -> None:
    api = DockerApi()
    address = "tcp://127.0.0.1:0" if listen == "tcp" else f"unix://{tmp_path}/docker.sock"
    async with running_gateway(api.plane, app=api, docker=[address]) as gateway:
        agent = FakeAgent(gateway.url, "c1", api.run)
        await agent.connect()
        await agent.welcomed.wait()
        assert await docker(gateway, "exec", "c1", "both", "0", home=tmp_path) == (0, b"to stdout\n", b"to stderr\n")
        assert (await docker(gateway, "exec", "c1", "both", "42", home=tmp_path))[0] == 42
        data = random.Random(1).randbytes(10_000_000)
        code, out, err = await docker(gateway, "exec", "-i", "c1", "cat", "3", stdin=data, home=tmp_path)
        assert (code, hashlib.sha256(out).digest(), err) == (3, hashlib.sha256(data).digest(), b"")
        code, out, err = await docker(gateway, "exec", "c1", "nosuch", home=tmp_path)
        assert (code, out, err) == (127, NOT_FOUND.encode() + b"\r\n", b"")
        api.plane.kind, api.plane.params = "attach", {}
        code, out, err = await docker(gateway, "attach", "--sig-proxy=false", "c1", stdin=b"hello\n", home=tmp_path)
        assert (code, out, err) == (5, b"hello\n", b"")
        await agent.close()


async def test_docker_py_execs_and_attaches(tmp_path: Path) -> None:
    docker_py = pytest.importorskip("docker")
    api = DockerApi()
    async with running_gateway(api.plane, app=api) as gateway:
        agent = FakeAgent(gateway.url, "c1", api.run)
        await agent.connect()
        await agent.welcomed.wait()

        def drive() -> Any:
            client = docker_py.APIClient(base_url=gateway.docker_addresses[0], version="1.47", timeout=20)
            created = client.exec_create("c1", ["both", "4"])
            both = client.exec_start(created["Id"], demux=True)
            code = client.exec_inspect("e1")["ExitCode"]
            created = client.exec_create("c1", ["cat"], stdin=True)
            raw = client.exec_start(created["Id"], socket=True)
            raw._sock.sendall(b"ping")
            raw._sock.shutdown(1)
            echoed = b""
            while data := raw._sock.recv(4096):
                echoed += data
            client.close()
            return both, code, echoed

        both, code, echoed = await asyncio.to_thread(drive)
        assert both == (b"to stdout\n", b"to stderr\n")
        assert code == 4
        assert echoed == b"\x01\x00\x00\x00\x00\x00\x00\x04ping"
        await agent.close()
