"""Agents that behave like agents: they say hello, start what they are told to, report, and keep a file system."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from control_plane.errors import Conflict, NotFound
from control_plane.model import Container
from control_plane.services.ports import AgentUnreachable
from control_plane.timestamps import now

if TYPE_CHECKING:
    from tests.unit.run_world import World

TENANT = "t1"


@dataclass
class Program:
    """What the user's process does."""

    exits: int | None = None
    """Its code when it ends by itself, at once; None runs until a signal."""
    signals: dict[int, int] = field(default_factory=lambda: {9: 137, 15: 143})
    """Signal → exit code; others are ignored."""
    fails: tuple[int, str] | None = None


class Agent:
    """One agent process: its boot is its file system."""

    def __init__(self, world: World, container_id: str) -> None:
        self.world = world
        self.container_id = container_id
        self.boot = secrets.token_hex(4)
        self.run = 0
        self.running = False
        self.connected = False
        self.shut_down = False
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.puts: list[tuple[str, bytes]] = []
        self.seq = 0

    async def dial(self) -> str:
        """Says hello and does as it is told."""
        self.connected = True
        self.world.agents.links[self.container_id] = self
        message = {"boot": self.boot, "run": self.run, "running": self.running, "gateway": "http://gw"}
        answer = await self.world.services.links.hello(TENANT, self.container_id, message)
        if answer["action"] == "shutdown":
            self.disconnect()
            self.shut_down = True
        elif answer["action"] == "start":
            await self.start(answer["spec"])
        return str(answer["action"])

    def disconnect(self) -> None:
        self.connected = False
        if self.world.agents.links.get(self.container_id) is self:
            del self.world.agents.links[self.container_id]

    async def event(self, type: str, **fields: Any) -> None:
        self.seq += 1
        event = {"type": type, "seq": self.seq, "boot": self.boot, "at": now(), **fields}
        self.world.sent.append(event)
        if self.world.deliver_events:
            await self.world.services.links.report(TENANT, self.container_id, event)

    async def start(self, spec: Mapping[str, Any]) -> None:
        if spec["run"] <= self.run:
            return
        self.run = spec["run"]
        self.world.specs.append(dict(spec))
        program = self.world.program
        if program.fails is not None:
            code, message = program.fails
            await self.event("failed", run=self.run, code=code, message=message)
            return
        self.running = True
        self.world.processes += 1
        await self.event("started", run=self.run, pid=100 + self.run)
        if program.exits is not None:
            await self.exit(program.exits)

    async def exit(self, code: int, oom: bool = False) -> None:
        self.running = False
        await self.event("exited", run=self.run, code=code, oom=oom)

    async def call(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self.calls.append((method, dict(params)))
        match method:
            case "start":
                self.world.spawn(self.start(params["spec"]))
            case "signal":
                if not self.running:
                    raise Conflict("the process is not running")
                code = self.world.program.signals.get(params["signal"])
                if code is not None:
                    self.running = False
                    self.world.spawn(self.exit(code))
            case "pause" | "unpause":
                if not self.running:
                    raise Conflict("the process is not running")
            case "shutdown":
                self.shut_down = True
                if self.running:
                    self.world.spawn(self.exit(137))
                self.disconnect()
            case "exec":
                return {"pid": 77}
            case "archive_stat":
                if params["path"] == "/missing":
                    raise NotFound("no such file")
                return {"name": "x", "size": 1, "mode": 420, "mtime": now(), "linkTarget": ""}
            case "top":
                return {"Titles": ["PID"], "Processes": [["1"]]}
        return {}


class PutStream:
    """Takes an archive, or gives one."""

    def __init__(self, agent: Agent, kind: str, params: Mapping[str, Any]) -> None:
        self._agent, self._kind, self._params = agent, kind, params
        self._received = bytearray()

    async def result(self) -> dict[str, Any]:
        if self._kind == "archive_get":
            return {"name": "x", "size": 1, "mode": 420, "mtime": now(), "linkTarget": ""}
        self._agent.puts.append((self._params["path"], bytes(self._received)))
        return {}

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b"live:" + self._kind.encode()

    async def send(self, data: bytes) -> None:
        self._received += data

    async def send_eof(self) -> None:
        return

    async def close(self) -> None:
        return


class Agents:
    """The links as the relay knows them."""

    def __init__(self) -> None:
        self.links: dict[str, Agent] = {}
        self.ended: list[str] = []
        """Containers whose waiting streams the relay was told to end."""

    def _agent(self, container: Container) -> Agent:
        agent = self.links.get(container.id)
        if agent is None:
            raise AgentUnreachable(f"agent of container {container.id} is not connected")
        return agent

    async def open(self, container: Container, kind: str, params: Mapping[str, Any]) -> PutStream:
        return PutStream(self._agent(container), kind, params)

    async def call_at(
        self, url: str, container: Container, method: str, params: Mapping[str, Any], timeout: float
    ) -> dict[str, Any]:
        return await self.call(container, method, params)

    async def call(self, container: Container, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        if method == "end":
            self.ended.append(container.id)
            return {}
        return await self._agent(container).call(method, params)
