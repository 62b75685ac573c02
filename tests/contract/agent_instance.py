"""The real agent with its HTTP face, and what a platform's front end sends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.contract.agent_container import AgentContainer, busybox_root, needs_namespaces
from tests.contract.agent_peer import AgentPeer, Json
from tests.free_ports import free_port

KEY = "0f" * 32
UNNAMED = {"SOCKERLESS_CALLBACK_URL": "", "SOCKERLESS_CONTAINER_ID": "", "SOCKERLESS_AGENT_TOKEN": ""}
"""An instance that learns who it is from its first invocation."""


class Instance:
    """One container that answers HTTP, and its gateway."""

    def __init__(self, peer: AgentPeer, container: AgentContainer, port: int) -> None:
        self.peer = peer
        self.container = container
        self.port = port
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False)

    async def listening(self) -> None:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    assert self.container.process.poll() is None, self.container.stderr.read_text()
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return

    def body(self, **fields: Any) -> Json:
        return {"container": "c0ffee", "run": 1, "hold": True, "limit_seconds": 60, **fields}

    async def invoke(self, path: str = "/", key: str = KEY, **fields: Any) -> httpx.Response:
        return await self.client.post(path, json=self.body(**fields), headers={"X-Sockerless-Invoke": key})

    def hold(self, **fields: Any) -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(self.invoke(**fields))

    async def raw(self, request: bytes) -> bytes:
        """What a request of these very bytes is answered with."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        async with asyncio.timeout(15):
            answer = await reader.read()
        writer.close()
        return answer

    def lines(self, stream: str = "stdout") -> list[Json]:
        """The lines of the platform's log."""
        text: str = getattr(self.container, stream).read_text()
        return [json.loads(line) for line in text.splitlines()]


@asynccontextmanager
async def instance(tmp_path: Path, mode: str = "function", **settings: str) -> AsyncIterator[Instance]:
    """An instance that listens; in mode `app` it has said hello as well. Settings may name `{port}` and `{url}`."""
    needs_namespaces()
    root = busybox_root(tmp_path / "root")
    port = free_port()
    environment = {"SOCKERLESS_AGENT_MODE": mode, "SOCKERLESS_INVOKE_KEY": KEY, "PORT": "{port}", **settings}
    async with AgentPeer() as peer:
        given = {name: value.format(port=port, url=peer.url) for name, value in environment.items()}
        container = AgentContainer(root, peer.url, settings=given)
        one = Instance(peer, container, port)
        try:
            await one.listening()
            if mode == "app":
                await peer.hello()
            yield one
        finally:
            container.end()
            await one.client.aclose()
