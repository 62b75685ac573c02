"""A world for the services that run containers: a real store, a scripted cloud, and agents that behave like agents."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from control_plane.backends.base import Capabilities, LogLine, PlatformMount, RunOutcome
from control_plane.errors import NotFound
from control_plane.model import Container, Execution, Image
from control_plane.services.containers import Containers
from control_plane.services.records import Records
from control_plane.services.run_assembly import RunPorts, RunServices, assemble
from control_plane.services.run_settings import RunSettings
from control_plane.services.tar_index import DIRECTORY
from control_plane.store.sqlite import SqliteStore
from control_plane.timestamps import now
from tests.unit.run_agents import TENANT, Agent, Agents, Program

__all__ = ["TENANT", "Agent", "Program", "World"]

IMAGE_ID = "sha256:" + "ab" * 32
FAST = RunSettings(
    instance="test",
    start_timeout=2.0,
    lease=3.0,
    kill_wait=0.2,
    remove_wait=0.3,
    cancel_wait=1.0,
    outcome_poll=0.01,
    release_delay=0.0,
    refusal_seen=0.3,
)


class Sink:
    """Events as told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, str]]] = []

    def publish_container(
        self, container: Container, action: str, attributes: Mapping[str, str] | None = None
    ) -> Awaitable[None]:
        return self.publish(container.tenant, "container", action, container.id, attributes)

    async def publish(
        self, tenant: str, type: str, action: str, actor_id: str, attributes: Mapping[str, str] | None = None
    ) -> None:
        self.told.append((action, dict(attributes or {})))

    @property
    def actions(self) -> list[str]:
        return [action for action, _ in self.told]


class Cloud:
    """A backend whose executions are agents that dial back, unless told otherwise."""

    capabilities = Capabilities(name="fake", title="Fake", max_run_seconds=3600)

    def __init__(self, world: World) -> None:
        self.world = world
        self.connects = True
        self.refuses: Exception | None = None
        self.executions: dict[str, Execution] = {}
        self.outcomes: dict[str, RunOutcome] = {}
        self.cancelled: list[str] = []
        self.removed: list[str] = []
        self.prepared: list[str] = []
        self.held: list[str] = []
        self.rested: list[str] = []
        self.known: dict[tuple[str, int, bool], Execution] = {}
        self.swept: list[set[str]] = []
        self.gateways: list[tuple[str, ...]] = []
        """What was asked, and the other gateways that were named with it."""

    def follow(self, ended: Callable[[str, str], None]) -> None:
        self.tell = ended

    async def prepare(
        self, container: Container, image: Image, agent_token: str, *, gateways: Sequence[str] = ()
    ) -> None:
        self.prepared.append(container.id)
        self.gateways.append(("prepare", *gateways))

    async def hold(self, container: Container, *, gateways: Sequence[str] = ()) -> None:
        self.held.append(container.id)
        self.gateways.append(("hold", *gateways))

    async def rest(self, container: Container) -> None:
        self.rested.append(container.id)

    def check(self, container: Container) -> list[str]:
        return []

    async def check_image(self, container: Container, image: Image) -> None:
        return

    def platform_mounts(self, container: Container) -> list[PlatformMount]:
        return [
            PlatformMount(f"/.sockerless/volumes/{number}", "", mount)
            for number, mount in enumerate(m for m in container.mounts if m.type != "tmpfs")
        ]

    async def run(
        self,
        container: Container,
        image: Image,
        agent_token: str,
        *,
        agentless: bool = False,
        recovering: bool = False,
        gateways: Sequence[str] = (),
    ) -> Execution:
        if self.refuses is not None:
            raise self.refuses
        self.gateways.append(("run", *gateways))
        place = (container.id, container.state.run, agentless)
        if place in self.known:
            return self.known[place]
        name = f"exec-{len(self.known) + 1}"
        execution = Execution(
            name=name, job="job", first_run=container.state.run, agentless=agentless, created_at=now()
        )
        self.known[place] = self.executions[name] = execution
        if self.connects and not agentless:
            agent = Agent(self.world, container.id)
            self.world.all_agents.append(agent)
            self.world.spawn(agent.dial())
        return execution

    async def find(self, container: Container, image: Image) -> Execution | None:
        runs = {run: known for (id, run, _), known in self.known.items() if id == container.id}
        return runs[max(runs)] if runs else None

    async def outcome(self, execution: Execution) -> RunOutcome:
        return self.outcomes.get(execution.name, RunOutcome(finished=False))

    async def cancel(self, execution: Execution) -> None:
        self.cancelled.append(execution.name)
        self.outcomes.setdefault(execution.name, RunOutcome(finished=True, exit_code=143))

    async def remove(self, container: Container) -> None:
        self.removed.append(container.id)

    async def logs(self, container: Container, **_: Any) -> AsyncIterator[LogLine]:
        at = 1767323045_678901234
        yield LogLine(at, "stdout", b"out\n", "1")
        yield LogLine(at, "stderr", b"err\n", "2")

    async def sweep(self, known: set[str]) -> int:
        self.swept.append(known)
        return 0

    async def close(self) -> None:
        return


class MemoryBlobs:
    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def put(self, key: str, content: AsyncIterator[bytes]) -> int:
        data = b"".join([chunk async for chunk in content])
        self.kept[key] = data
        return len(data)

    async def get(self, key: str) -> AsyncIterator[bytes]:
        yield self.kept[key]

    async def delete(self, key: str) -> None:
        self.kept.pop(key, None)


class Files:
    """An image with `/`, `/etc`, `/etc/passwd` and a link `/run -> etc`."""

    async def stat(self, image: Image, path: str) -> dict[str, Any]:
        modes = {"/": DIRECTORY | 0o755, "/etc": DIRECTORY | 0o755, "/etc/passwd": 0o644, "/run": 1 << 27 | 0o777}
        if path not in modes:
            raise NotFound(path)
        return {
            "name": path,
            "size": 1,
            "mode": modes[path],
            "mtime": now(),
            "linkTarget": "etc" if path == "/run" else "",
        }

    async def read(self, image: Image, path: str) -> AsyncIterator[bytes]:
        yield b"image:" + path.encode()


class KnownNetworks:
    """Every network is there, but those in `gone`."""

    def __init__(self) -> None:
        self.gone: set[str] = set()

    async def rejoin(self, container: Container) -> None:
        for name in container.networking:
            if name in self.gone:
                raise NotFound(f"failed to set up container networking: network {name} not found")


class NoVolumes:
    def __init__(self) -> None:
        self.asked: list[str] = []

    async def remove_anonymous(self, container: Container) -> None:
        self.asked.append(container.id)


class World:
    """Everything, on one store; `restarted` is another process on the same store."""

    def __init__(
        self, path: Path, settings: RunSettings = FAST, ports: Callable[[World], Mapping[str, Any]] = lambda _: {}
    ) -> None:
        """`ports` takes the place of some of what the services need of the outside."""
        self.path = path
        self._ports = ports
        self.settings = settings
        self.store = SqliteStore(path / "store.db")
        self.containers = Containers(self.store)
        self.sink = Sink()
        self.program = Program()
        self.agents = Agents()
        self.cloud = Cloud(self)
        self.blobs = MemoryBlobs()
        self.volumes = NoVolumes()
        self.networks = KnownNetworks()
        self.all_agents: list[Agent] = []
        self.specs: list[dict[str, Any]] = []
        self.sent: list[dict[str, Any]] = []
        self.processes = 0
        self.deliver_events = True
        self._tasks: set[asyncio.Task[Any]] = set()
        self.services = self.assemble(settings)

    def assemble(self, settings: RunSettings) -> RunServices:
        ports: dict[str, Any] = {
            "store": self.store,
            "containers": self.containers,
            "events": self.sink,
            "image_files": Files(),
            "volumes": self.volumes,
            "networks": self.networks,
            "backends": {"fake": self.cloud},
            "agents": self.agents,
            "blobs": self.blobs,
            "agent_token": lambda container: "token",
            "stream_ticket": lambda container, kind, stream_id, params: f"ticket-{kind}",
            "check_gateway": lambda authorization: "http://gw",
        }
        return assemble(RunPorts(**{**ports, **self._ports(self)}), settings)

    def spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def another_process(self, **changes: Any) -> None:
        """The control plane died; a new one is on its store."""
        await self.services.background.close()
        self.services = self.assemble(replace(self.settings, instance="other", sole_instance=True, **changes))

    async def image(self) -> None:
        """What containers are made from is there."""
        images: Records[Image] = Records(self.store, "images", Image)
        if await images.get(TENANT, IMAGE_ID) is None:
            image = Image(
                id=IMAGE_ID,
                tenant=TENANT,
                created_at=now(),
                repository="r",
                manifest_digest="sha256:0",
                config={},
            )
            await images.create(TENANT, IMAGE_ID, image)

    async def create(
        self, name: str = "web", *, host: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None
    ) -> Container:
        await self.image()
        container = Container(
            id=secrets.token_hex(32),
            tenant=TENANT,
            name=name,
            created_at=now(),
            image="busybox",
            image_id=IMAGE_ID,
            config={"Cmd": ["sleep", "1"], **(config or {})},
            host_config=dict(host or {}),
            backend="fake",
            gateway="http://gw",
        )
        await self.containers.names.reserve(TENANT, name, container.id)
        return await self.containers.records.create(TENANT, container.id, container)

    async def get(self, container: Container) -> Container:
        found = await self.containers.records.get(TENANT, container.id)
        assert found is not None
        return found

    async def change(self, container: Container, **update: Any) -> Container:
        changed = await self.containers.records.update(
            TENANT, container.id, lambda current: current.model_copy(update=update)
        )
        assert changed is not None
        return changed

    async def eventually(self, met: Callable[[], bool]) -> None:
        """Lets others run until `met` says so (the test's timeout is the bound)."""
        while not met():  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def settle(self) -> None:
        """Lets everything that was set going come to rest."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.services.background.settle()

    async def until(self, container: Container, *statuses: str) -> Container:
        from control_plane.services.watching import reach

        found = await reach(self.containers.records, container, lambda c: c.state.status in statuses, 3)
        assert found is not None
        return found

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.services.background.close()
        await self.store.close()
