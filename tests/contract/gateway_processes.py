"""Gateways as processes of their own, and a control plane for them: the real hello, moves, registry and tickets."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from agent_gateway.front_door.http import HttpServer
from agent_gateway.streams import RemoteRelay
from agent_gateway.tickets import mint_agent_token
from control_plane.agents import RelayedAgents
from control_plane.api.internal import ROUTES
from control_plane.app import build_app
from control_plane.auth.caller import Caller
from control_plane.auth.tokens import GatewayAuth
from control_plane.errors import Unauthorized
from control_plane.model import Container, Execution, RunState
from control_plane.services.bundle import Services
from control_plane.services.gateways import Gateways
from control_plane.services.system import System
from tests.contract.connect_far_side import TOKEN
from tests.contract.gateway_peers import KEY
from tests.free_ports import free_port
from tests.unit.run_world import FAST, IMAGE_ID, TENANT, World

SECONDS = 20.0
IDENTITY = "c0ffee"


async def _user(scope: Mapping[str, Any]) -> Caller:
    """Whoever shows `TOKEN`."""
    if dict(scope["headers"]).get(b"authorization") != f"Bearer {TOKEN}".encode():
        raise Unauthorized("the token is not known")
    return Caller(TENANT, "full", "token:test")


class Plane:
    """A control plane on a real store, reached over HTTP; `world` is the rest of it."""

    def __init__(self, folder: Path) -> None:
        self.auth = GatewayAuth(KEY)
        self.agents = RelayedAgents(KEY)
        self.returning = asyncio.Event()
        """Set: streams that ask where their agent is are answered."""
        self.returning.set()
        self.world = World(folder, replace(FAST, start_timeout=SECONDS), self._ports)
        self.records = self.world.containers.records
        self.agents.follow(self.records.get)
        services = self.world.services
        bundle = SimpleNamespace(**{name: getattr(services, name) for name in services.__slots__})
        bundle.gateways, bundle.containers = self.gateways, self.world.containers
        world = self.world
        bundle.system = System(
            world.store, world.containers, cast(Any, world.sink), {"fake": world.cloud}, "fake", server_id="i", root="/"
        )
        self.app = build_app(cast(Services, bundle), authenticate=_user, internal_routes=ROUTES)
        self._server: asyncio.Server | None = None
        self.url = ""

    def _ports(self, world: World) -> Mapping[str, Any]:
        self.gateways = Gateways(world.store)
        return {
            "agents": self.agents,
            "gateways": self.gateways,
            "agent_token": self.auth.agent_token,
            "stream_ticket": self.auth.stream_ticket,
            "check_gateway": self.auth.check_gateway,
            "check_stream": self.auth.check_stream,
        }

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/internal/v1/streams/"):
            await self.returning.wait()
        await self.app(scope, receive, send)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._http = HttpServer(cast(Any, self._serve), None)
        self._server = await loop.create_server(self._http, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._http.abort()
        await self.agents.close()
        await self.world.close()

    async def container(self, gateway: str, status: str = "starting", key: str = IDENTITY) -> Container:
        """One whose first run was asked for."""
        container = Container(
            id=key,
            tenant=TENANT,
            name=key,
            created_at="2026-01-01T00:00:00Z",
            image="busybox",
            image_id=IMAGE_ID,
            config={"Cmd": ["sleep", "1000"], "Env": ["PATH=/bin"], "Tty": False, "OpenStdin": False},
            host_config={},
            backend="fake",
            gateway=gateway,
            state=RunState(status=cast(Any, status), run=1),
            execution=Execution(name="e", job="j", first_run=1, created_at="2026-01-01T00:00:00Z"),
        )
        return await self.records.create(TENANT, key, container)

    async def now(self, key: str = IDENTITY) -> Container:
        container = await self.records.get(TENANT, key)
        assert container is not None
        return container

    async def until(self, condition: Any, key: str = IDENTITY) -> Container:
        async with asyncio.timeout(SECONDS):
            while not condition(container := await self.now(key)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return container

    async def registered(self, *urls: str) -> None:
        async with asyncio.timeout(SECONDS):
            while set(urls) - {d.body["url"] for d in await self.world.store.list("gateways")}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    def relay(self, url: str) -> RemoteRelay:
        """A client of streams that redials where their agent is."""
        return RemoteRelay(url, KEY, self.agents._where)

    def token(self, key: str = IDENTITY) -> str:
        return mint_agent_token(KEY, TENANT, key, 3600)


class GatewayProcess:
    """`python -m agent_gateway.entrypoint` on a loopback port, which it keeps when it is started again."""

    def __init__(self, plane: Plane, **settings: str) -> None:
        self._plane = plane
        self._settings = settings
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        environment: Mapping[str, str] = {
            **os.environ,
            "SOCKERLESS_CONTROL_PLANE_URL": self._plane.url,
            "SOCKERLESS_KEY": KEY.decode(),
            "SOCKERLESS_GATEWAY_URL": self.url,
            "SOCKERLESS_LISTEN": f"tcp://127.0.0.1:{self.port}",
            "SOCKERLESS_DRAIN_SECONDS": "4",
            **self._settings,
        }
        command = [sys.executable, "-m", "agent_gateway.entrypoint"]
        self.process = subprocess.Popen(command, env=environment)  # noqa: ASYNC220
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                except OSError:
                    assert self.process.poll() is None, "the gateway has ended"
                    await asyncio.sleep(0.05)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def terminate(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait, SECONDS)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


@asynccontextmanager
async def hosted(folder: Path, gateways: int = 2, **settings: str) -> AsyncIterator[tuple[Plane, list[GatewayProcess]]]:
    """A control plane and some gateways that have registered."""
    plane = Plane(folder)
    await plane.start()
    processes = [GatewayProcess(plane, **settings) for _ in range(gateways)]
    try:
        await asyncio.gather(*(process.start() for process in processes))
        await plane.registered(*(process.url for process in processes))
        yield plane, processes
    finally:
        for process in processes:
            process.close()
        await plane.close()
