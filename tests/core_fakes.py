"""An application on a real SQLite store with stand-ins for what other services and the cloud would do."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx

from control_plane.app import App, build_app
from control_plane.backends.base import Backend, Capabilities
from control_plane.errors import NotFound, NotServed
from control_plane.model import Container, Image, RunState, Volume
from control_plane.routes import ROUTES
from control_plane.services.bundle import Services
from control_plane.services.container_events import ContainerEvents
from control_plane.services.containers import Containers
from control_plane.services.creation import Creation
from control_plane.services.events import Events
from control_plane.services.listing import Listing
from control_plane.services.system import System
from control_plane.services.updates import Updates
from control_plane.services.waits import Waits
from control_plane.store.sqlite import SqliteStore
from control_plane.timestamps import rfc3339

MODULES = {"system", "events", "containers"}
IMAGE_ID = "sha256:" + "1" * 64
_numbers = itertools.count(1)


def image(**config: Any) -> Image:
    """busybox, with an image configuration of the given fields."""
    return Image(
        id=IMAGE_ID,
        tenant="default",
        created_at="2026-01-01T00:00:00Z",
        tags=["busybox:latest"],
        repository="registry/p/busybox",
        manifest_digest="sha256:" + "2" * 64,
        config={"config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], **config}},
        size=4096,
    )


class FakeImages:
    def __init__(self) -> None:
        self.known = {"busybox": image(), "busybox:latest": image()}

    async def resolve(self, tenant: str, reference: str) -> Image:
        if reference not in self.known:
            raise NotFound(f"No such image: {reference}:latest")
        return self.known[reference]

    async def ids(self, tenant: str, texts: Any) -> dict[str, str]:
        return {text: self.known[text].id for text in texts if text in self.known}

    async def list(self, tenant: str, filters: Any, version: Any, *, shared_size: bool) -> list[dict[str, Any]]:
        return [{"Id": IMAGE_ID, "Size": 4096, "Containers": -1}]


class FakeVolumes:
    def __init__(self) -> None:
        self.made: list[tuple[str, dict[str, str]]] = []
        self.removed: list[str] = []

    async def ensure(self, tenant: str, name: str | None, labels: Mapping[str, str]) -> Volume:
        self.made.append((name or "", dict(labels)))
        anonymous = name is None
        return Volume(
            name=name or f"anonymous{len(self.made)}", tenant=tenant, created_at=rfc3339(0), anonymous=anonymous
        )

    def view(self, volume: Volume) -> dict[str, Any]:
        return {"Name": volume.name, "Mountpoint": f"gs://bucket/{volume.name}"}

    async def remove_anonymous(self, container: Container) -> None:
        self.removed += [mount.name for mount in container.mounts if mount.type == "volume"]


class FakeNetworks:
    async def endpoints_for(self, tenant: str, mode: str, endpoints: Mapping[str, Any]) -> dict[str, Any]:
        if mode == "absent":
            raise NotFound("network absent not found")
        return {} if mode in ("none", "host") else {mode: {**(endpoints.get(mode) or {}), "NetworkID": "n" * 64}}


class FakeBackend:
    capabilities = Capabilities("fake", "A fake", 3600)

    def __init__(self) -> None:
        self.checked: list[Container] = []

    def check(self, container: Container) -> list[str]:
        self.checked.append(container)
        if container.host_config.get("Privileged"):
            raise NotServed("--privileged is not served")
        return ["told by the backend"] if container.host_config.get("ReadonlyRootfs") else []

    async def check_image(self, container: Container, image: Image) -> None:
        return


class Endpoint:
    """The application, its services, and a client of it."""

    def __init__(self, directory: Path) -> None:
        self.store = SqliteStore(directory / "store.db")
        self.images, self.volumes, self.backend = FakeImages(), FakeVolumes(), FakeBackend()
        self.containers = Containers(self.store)
        self.prepared: list[str] = []
        self.events = Events(self.store)
        told = ContainerEvents(self.events)
        backends = {"fake": cast(Backend, self.backend), "other": cast(Backend, self.backend)}

        async def gateway() -> str:
            return "http://gateway"

        self.services = SimpleNamespace(
            containers=self.containers,
            listing=Listing(self.containers, self.images),
            creation=Creation(
                self.containers,
                self.images,
                self.volumes,
                FakeNetworks(),
                told,
                backends,
                "fake",
                gateway,
                lambda container, _: self.prepared.append(container.id),
            ),
            updates=Updates(self.containers, told, backends),
            waits=Waits(self.containers, self.events),
            events=self.events,
            images=self.images,
            volumes=self.volumes,
            system=System(
                self.store, self.containers, self.events, backends, "fake", server_id="id", root=str(directory)
            ),
        )
        mine = [route for route in ROUTES if not route.handler or route.handler.split(".")[0] in MODULES]
        self.app: App = build_app(cast(Services, self.services), routes=mine)
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=True)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://docker")

    async def add(self, name: str = "", *, state: RunState | None = None, **fields: Any) -> Container:
        """A container straight into the store."""
        number = next(_numbers)
        container = Container(
            **{
                "id": f"{number:064x}"[::-1],
                "tenant": "default",
                "name": name or f"name{number}",
                "created_at": rfc3339(1_700_000_000_000_000_000 + number * 1_000_000_000),
                "image": "busybox",
                "image_id": IMAGE_ID,
                "config": {"Cmd": ["sleep", "a b"], "Entrypoint": None, "Image": "busybox", "Labels": {}},
                "host_config": {"NetworkMode": "bridge", "AutoRemove": False},
                "networking": {"bridge": {"NetworkID": "n" * 64}},
                "backend": "fake",
                "gateway": "http://gateway",
                "state": state or RunState(),
                **fields,
            }
        )
        await self.containers.records.create(container.tenant, container.id, container)
        await self.containers.names.reserve(container.tenant, container.name, container.id)
        return container

    async def set_state(self, container: Container, **changes: Any) -> Container:
        """What a report of the agent would do."""
        return await self.containers.update(
            container, lambda current: current.model_copy(update={"state": current.state.model_copy(update=changes)})
        )

    async def close(self) -> None:
        await self.client.aclose()
        await self.events.close()
        await self.store.close()


class Live:
    """One request spoken to the application directly, so that its answer is seen while it comes."""

    def __init__(self, app: App, method: str, path: str, query: str = "") -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.done = False
        self._gone = asyncio.Event()
        self._changed = asyncio.Event()
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"host", b"docker")],
        }
        self._sent = False
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message["body"]
            self.done = not message.get("more_body", False)
        self._changed.set()

    async def until(self, reached: Callable[[Live], bool]) -> Live:
        """Waits for the answer to come that far."""
        async with asyncio.timeout(10):
            while not reached(self):
                self._changed.clear()
                await self._changed.wait()
        return self

    async def leave(self) -> None:
        """The client closes its connection."""
        self._gone.set()
        await asyncio.wait_for(self.task, 10)
