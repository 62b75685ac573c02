"""Gateways that are killed before the agent's first hello: `sockerless connect`, real gateways, the built agent.

Only the cloud is the test's own: what it is asked to run is the agent in namespaces of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.backends.callback import callback_urls
from control_plane.model import Container, Execution, Image
from control_plane.timestamps import now
from tests.contract.agent_container import AgentContainer, busybox_root, needs_namespaces
from tests.contract.connect_endpoint import Connected
from tests.contract.gateway_processes import IDENTITY, SECONDS, GatewayProcess, Plane, hosted
from tests.contract.test_gateway_processes import _payloads
from tests.unit.run_world import TENANT

LINES = 60_000
SCRIPT = f"seq 1 {LINES}; cat; exit 7"
SENT = b"".join(b"%d in\n" % number for number in range(20_000))
EXPECTED = b"".join(b"%d\n" % number for number in range(1, LINES + 1)) + SENT
HIJACK = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"


class Cloud:
    """Runs the agent where a backend would have it run; `before` happens between the request and the agent."""

    def __init__(self, plane: Plane, folder: Path) -> None:
        self._root = busybox_root(folder / "root")
        self._world = plane.world
        self._token = plane.token()
        self.before: Callable[[], Awaitable[None]] | None = None
        self.callback = ""
        self.containers: list[AgentContainer] = []
        plane.world.cloud.run = self.run  # type: ignore[method-assign]

    async def run(
        self, container: Container, image: Image, agent_token: str, *, gateways: Sequence[str] = (), **_: Any
    ) -> Execution:
        self.callback = callback_urls("", container, gateways)
        if self.before is not None:
            await self.before()
        self.containers.append(AgentContainer(self._root, self.callback, token=agent_token))
        return Execution(name="e", job="j", first_run=container.state.run, created_at=now())


@dataclass
class Endpoint:
    """All of it, and the ways in."""

    plane: Plane
    gateways: list[GatewayProcess]
    cloud: Cloud
    connect: Connected

    async def created(self, gateway: str) -> None:
        """A container that was given this gateway."""
        await self.plane.world.image()
        await self.plane.container(gateway, "created")
        config = {"Cmd": ["sh", "-c", SCRIPT], "OpenStdin": True, "StdinOnce": True, "AttachStdin": True}

        def change(container: Container) -> Container:
            state = container.state.model_copy(update={"run": 0})
            merged = container.config | config
            return container.model_copy(update={"config": merged, "state": state, "execution": None})

        await self.plane.records.update(TENANT, IDENTITY, change)

    async def attached(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """`docker attach` through the connector, taken over."""
        reader, writer = await asyncio.open_unix_connection(self.connect.address.removeprefix("unix://"))
        target = f"/v1.44/containers/{IDENTITY}/attach?stream=1&stdin=1&stdout=1&stderr=1"
        writer.write(f"POST {target} HTTP/1.1\r\nHost: d\r\n{HIJACK}".encode())
        async with asyncio.timeout(SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head.splitlines()[0], head
        return reader, writer

    async def start(self) -> int:
        """`docker start` through the connector: the status of its answer."""
        transport = httpx.AsyncHTTPTransport(uds=self.connect.address.removeprefix("unix://"))
        async with httpx.AsyncClient(transport=transport, base_url="http://d", timeout=40) as client:
            return (await client.post(f"/v1.44/containers/{IDENTITY}/start")).status_code


@asynccontextmanager
async def endpoint(folder: Path, gateways: int) -> AsyncIterator[Endpoint]:
    needs_namespaces()
    async with hosted(folder / "plane", gateways) as (plane, processes):
        cloud = Cloud(plane, folder)
        connect = Connected(folder / "c", url=plane.url)
        try:
            await asyncio.to_thread(connect.start)
            yield Endpoint(plane, processes, cloud, connect)
        finally:
            await asyncio.to_thread(connect.down)
            for container in cloud.containers:
                container.end()


async def whole(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(40):
        return b"".join(_payloads(await reader.read(-1)))


@pytest.mark.parametrize("moment", ["before the start", "after the start"])
async def test_a_gateway_that_never_comes_back_before_the_first_hello(tmp_path: Path, moment: str) -> None:
    async with endpoint(tmp_path, 2) as world:
        first, second = world.gateways
        await world.created(first.url)
        reader, writer = await world.attached()
        writer.write(SENT)
        writer.write_eof()

        async def killed() -> None:
            first.kill()

        if moment == "before the start":
            await killed()
        else:
            world.cloud.before = killed
        starting = asyncio.create_task(world.start())
        assert await whole(reader) == EXPECTED
        assert await starting == 204
        assert world.cloud.callback.split(" ") == [first.url, second.url]
        ended = await world.plane.until(lambda c: c.state.status == "exited")
        assert ended.state.exit_code == 7
        assert ended.gateway == second.url
        writer.close()


@pytest.mark.parametrize("url", ["the same", "another"])
async def test_the_only_gateway_is_replaced_between_attach_and_start(tmp_path: Path, url: str) -> None:
    async with endpoint(tmp_path, 1) as world:
        (only,) = world.gateways
        await world.created(only.url)
        reader, writer = await world.attached()
        writer.write(SENT)
        writer.write_eof()
        world.plane.returning.clear()  # the client half is the last to find the new one
        only.kill()
        new = only
        if url == "another":
            new = GatewayProcess(world.plane)
            world.gateways.append(new)
        await new.start()
        try:
            await world.plane.registered(new.url)
            starting = asyncio.create_task(world.start())
            await world.plane.until(lambda c: c.agent is not None and c.agent.connected)
            await asyncio.sleep(1.0)  # a process that did not wait would have written, and ended, by now
            assert (await world.plane.now()).state.status == "starting"
            world.plane.returning.set()
            assert await whole(reader) == EXPECTED
            assert await starting == 204
            ended = await world.plane.until(lambda c: c.state.status == "exited")
            assert (ended.state.exit_code, ended.expected) == (7, [])
        finally:
            new.close()
        writer.close()
