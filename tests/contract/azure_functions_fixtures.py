"""The Azure Functions backend over a local cloud, with a stand-in for the agent in its containers."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from control_plane.backends.azure.clients import Clients
from control_plane.backends.azure_functions.backend import AzureFunctionsBackend
from control_plane.backends.azure_functions.settings import AzureFunctionsSettings, load_settings
from control_plane.model import Container, Execution, Image, RunState
from local_cloud.azure.names import STORAGE_ACCOUNT, SUBSCRIPTION, WORKSPACE
from local_cloud.server import LocalCloud
from tests.contract.local_gcp_fixtures import ProcessRuntime, local_cloud, push

KEY = b"k" * 32
AGENT = """
import hashlib, http.server, json, os, signal, sys, threading
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

class Face(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        self.answer(200, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["X-Sockerless-Invoke"] != os.environ["SOCKERLESS_INVOKE_KEY"]:
            return self.answer(403, {"message": "the header does not show the key of this instance"})
        if body["container"] != os.environ["SOCKERLESS_CONTAINER_ID"]:
            return self.answer(409, {"message": "this is the instance of another container"})
        say(body["run"], "stdout", 1, "run %d of %g seconds" % (body["run"], body["limit_seconds"]))
        say(body["run"], "stderr", 2, "an error")
        self.answer(202, {"container": body["container"], "boot": str(os.getpid())})

    def log_message(self, *_):
        pass

def say(run, stream, n, text):
    container = os.environ["SOCKERLESS_CONTAINER_ID"]
    import datetime
    at = datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
    ours = {"run": run, "partial": False, "container": container, "stream": stream, "n": n}
    print(json.dumps({"message": text, "time": at, "sockerless": ours}), file=getattr(sys, stream), flush=True)

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Face).serve_forever()
"""


class HostRuntime(ProcessRuntime):
    """Processes of this machine that are reached over its loopback."""

    network = "host"

    async def address(self, id: str) -> str:
        return "127.0.0.1"


class Derived:
    """`ImageContents`: the image's own manifest is the one with the agent."""

    def __init__(self) -> None:
        self.asked = 0

    async def stat(self, image: Image, path: str) -> Any:
        raise NotImplementedError

    async def ensure_agent_layer(self, image: Image) -> Image:
        self.asked += 1
        return image.model_copy(update={"agent_digest": image.manifest_digest})


class World:
    """A backend, its cloud, and what a test asks of both."""

    def __init__(self, cloud: LocalCloud, runtime: HostRuntime, image: Image, header: str) -> None:
        self.cloud = cloud
        self.runtime = runtime
        self.image = image
        self._header = header
        self.backends: list[AzureFunctionsBackend] = []

    def settings(self, **changes: Any) -> AzureFunctionsSettings:
        return load_settings(
            **{
                "subscription_id": SUBSCRIPTION,
                "resource_group": "local",
                "storage_account": STORAGE_ACCOUNT,
                "storage_key": "a2V5",
                "endpoint_url": self.cloud.http_url,
                "log_analytics_workspace": WORKSPACE,
                "log_drain": 0.3,
                "callback_url": "http://relay",
                **changes,
            }
        )

    def backend(self, **changes: Any) -> AzureFunctionsBackend:
        settings = self.settings(**changes)
        clients = Clients(
            settings.subscription_id,
            settings.endpoint_url,
            identity_endpoint=f"{self.cloud.http_url}/msi/token",
            identity_header=self._header,
        )
        found = AzureFunctionsBackend(settings, clients, Derived(), KEY)
        self.backends.append(found)
        return found

    async def local(self, method: str, path: str, body: Any = None) -> Any:
        """The local cloud's own face."""
        async with httpx.AsyncClient(base_url=self.cloud.http_url) as http:
            answer = await http.request(method, f"/_local/{path}", json=body)
            answer.raise_for_status()
            return answer.json() if answer.content else None

    async def fault(self, method: str, **fault: Any) -> None:
        await self.local("PUT", "faults", {method: fault})

    async def no_faults(self) -> None:
        await self.local("PUT", "faults", {})

    async def resources(self) -> dict[str, int]:
        found: dict[str, int] = await self.local("GET", "resources")
        return {name: count for name, count in found.items() if name.startswith("web.")}

    async def counted(self) -> dict[str, int]:
        """Calls so far by method, those of tokens and registry left out."""
        found: dict[str, int] = await self.local("GET", "calls")
        return {name: count for name, count in found.items() if not name.startswith(("Identity.", "Registry."))}

    def running(self) -> list[str]:
        return [id for id, task in self.runtime._exits.items() if not task.done()]

    async def output(self, backend: AzureFunctionsBackend, container: Container, **changes: Any) -> list[str]:
        wanted = {"since": None, "until": None, "tail": None, "follow": False} | changes
        return [line.text.decode().rstrip() async for line in backend.logs(container, **wanted)]


async def until(true: Callable[[], Any], limit: float = 15.0) -> None:
    """Waits for a condition, awaited where it is one."""
    deadline = time.monotonic() + limit
    while True:
        found = true()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        assert time.monotonic() < deadline, "it does not come true"
        await asyncio.sleep(0.02)


def container(number: int = 1, run: int = 1, **changes: Any) -> Container:
    fields: dict[str, Any] = {
        "id": f"{number:012x}" + "c" * 52, "tenant": "blue", "name": f"c{number}",
        "created_at": "2026-11-20T10:00:00Z", "image": "tool", "image_id": "sha256:" + "1" * 64,
        "config": {"Cmd": ["true"]}, "host_config": {}, "backend": "azf", "gateway": "http://relay",
        "state": RunState(status="starting", run=run),
    }  # fmt: skip
    return Container(**{**fields, **changes})


def again(box: Container, run: int, execution: Execution | None = None) -> Container:
    return box.model_copy(update={"state": RunState(status="starting", run=run), "execution": execution})


@asynccontextmanager
async def world(data: Path, **options: Any) -> AsyncIterator[World]:
    """A running local cloud with one image in it."""
    script = data / "agent.py"
    script.write_text(AGENT)
    runtime = HostRuntime()
    options = {"network": "host", "azure_restart_backoff": (0.05, 0.1)} | options
    try:
        async with local_cloud(data / "cloud", runtime, **options) as (cloud, _):
            reference = await push(cloud.http_url, Entrypoint=[sys.executable, str(script)])
            async with httpx.AsyncClient() as http:
                answer = await http.head(f"{cloud.http_url}/v2/local/apps/tool/manifests/latest")
            image = Image(
                id="sha256:" + "1" * 64, tenant="blue", created_at="2026-11-20T10:00:00Z", tags=["tool:latest"],
                repository=reference.rpartition(":")[0], manifest_digest=answer.headers["docker-content-digest"],
                config={},
            )  # fmt: skip
            azure = cloud._azure
            assert azure is not None
            found = World(cloud, runtime, image, azure.identity_header)
            try:
                yield found
            finally:
                await asyncio.gather(*(backend.close() for backend in found.backends))
    finally:
        # Behind the cloud, which starts again what ends.
        await runtime.end()


def parsed(lines: list[str]) -> list[Any]:
    return [json.loads(line) for line in lines]
