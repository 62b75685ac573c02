"""A hosted endpoint with two tenants: the real application, services and SQLite store; cloud and agents are watched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import orjson

from agent_gateway.tickets import mint_gateway_token
from control_plane.api.internal import ROUTES as INTERNAL_ROUTES
from control_plane.app import App, build_app
from control_plane.auth.access import Access
from control_plane.auth.certificates import Certificates
from control_plane.auth.oidc import Oidc
from control_plane.auth.tokens import ROTATED, GatewayAuth
from control_plane.backends.base import Backend
from control_plane.model import AgentLink, Container, ExecSession, Image, Network, RunState, TenantPolicy, Volume
from control_plane.route import Route
from control_plane.routes import ROUTES
from control_plane.services.audit import Audit
from control_plane.services.bundle import Services
from control_plane.services.container_events import ContainerEvents
from control_plane.services.containers import Containers
from control_plane.services.creation import Creation
from control_plane.services.events import Events
from control_plane.services.images import Images
from control_plane.services.listing import Listing
from control_plane.services.networks import Networks
from control_plane.services.quotas import Quotas
from control_plane.services.records import Records
from control_plane.services.run_assembly import RunPorts, assemble
from control_plane.services.system import System
from control_plane.services.tenants import Tenants
from control_plane.services.tokens import Tokens
from control_plane.services.updates import Updates
from control_plane.services.volumes import Volumes
from control_plane.services.waits import Waits
from control_plane.store.sqlite import SqliteStore
from control_plane.timestamps import now
from tests.unit.run_world import FAST, Cloud, Files, MemoryBlobs

KEY = b"k" * 32
GATEWAY = "http://gateway"
CONTAINER, EXEC, NETWORK = "a" * 4 + "1" * 60, "e" * 64, "f" * 64
IMAGE = "sha256:" + "ab" * 32
DIGEST = "sha256:" + "cd" * 32


class Watched:
    """Agents that nobody should reach; what they were asked is kept."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def open(self, container: Container, kind: str, params: Any) -> Any:
        self.asked.append((container.id, kind))
        raise AssertionError(f"{kind} stream to an agent")

    async def call(self, container: Container, method: str, params: Any) -> dict[str, Any]:
        self.asked.append((container.id, method))
        return {}

    async def call_at(self, url: str, container: Container, method: str, params: Any, timeout: float) -> dict[str, Any]:
        return await self.call(container, method, params)


class VolumePlaces:
    """Storage of volumes."""

    def __init__(self) -> None:
        self.removed: list[str] = []

    async def create(self, volume: Volume) -> None:
        return

    async def remove(self, volume: Volume) -> None:
        self.removed.append(volume.name)

    def mountpoint(self, volume: Volume) -> str:
        return f"gs://bucket/volumes/{volume.tenant}/{volume.name}"


class NoRegistry:
    """Keeps nothing, and forgets it at once."""

    async def delete_manifest(self, repository: str, digest: str) -> None:
        return


class Hosted:
    """`acme` owns one of everything; `rival` owns nothing."""

    def __init__(
        self, directory: Path, oidc: Oidc | None, certificates: Certificates | None, routes: tuple[Route, ...]
    ) -> None:
        self.store = SqliteStore(directory / "store.db")
        self.tenants = Tenants(self.store)
        self.tokens = Tokens(self.store, self.tenants)
        self.audit: list[dict[str, Any]] = []
        self.agents, self.places = Watched(), VolumePlaces()
        self.cloud = Cloud(cast(Any, self))
        self.cloud.connects = False
        self.auth = GatewayAuth(KEY, ROTATED)
        self.events = Events(self.store)
        nothing = cast(Any, None)
        self.images = Images(self.store, cast(Any, NoRegistry()), nothing, nothing, nothing, nothing, self.events)
        self.access = Access(self.tokens, self.tenants, oidc, certificates)
        self.services = self._services()
        self.app: App = build_app(
            self.services,
            authenticate=self.access,
            audit=Audit(lambda line: self.audit.append(orjson.loads(line))),
            internal_routes=INTERNAL_ROUTES,
            routes=routes,
        )
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://docker")

    def _services(self) -> Services:
        containers = Containers(self.store)
        networks = Networks(self.store, containers, self.events)
        volumes = Volumes(self.store, self.places, self.events)
        backends = {"fake": cast(Backend, self.cloud)}
        ports = RunPorts(
            store=self.store,
            containers=containers,
            events=self.events,
            image_files=cast(Any, Files()),
            volumes=volumes,
            networks=networks,
            backends=backends,
            agents=self.agents,
            blobs=MemoryBlobs(),
            agent_token=self.auth.agent_token,
            stream_ticket=self.auth.stream_ticket,
            check_gateway=self.auth.check_gateway,
            renewed_token=self.auth.renewed_token,
        )
        self.runs = assemble(ports, FAST)
        told = ContainerEvents(self.events)
        quotas = Quotas(self.store, self.tenants)

        async def gateway() -> str:
            return GATEWAY

        creation = Creation(
            containers,
            self.images,
            volumes,
            networks,
            told,
            backends,
            "fake",
            gateway,
            lambda container, image: None,
            quotas,
        )
        return cast(
            Services,
            SimpleNamespace(
                containers=containers,
                listing=Listing(containers, self.images),
                creation=creation,
                updates=Updates(containers, told, backends, quotas),
                waits=Waits(containers, self.events),
                events=self.events,
                images=self.images,
                volumes=volumes,
                networks=networks,
                system=System(self.store, containers, self.events, backends, "fake", server_id="id", root="/"),
                runs=self.runs.runs,
                removal=self.runs.removal,
                execs=self.runs.execs,
                attachments=self.runs.attachments,
                archives=self.runs.archives,
                logs=self.runs.logs,
                links=self.runs.links,
            ),
        )

    async def furnish(self) -> None:
        """Both tenants; a token each for what they may do; one of everything for `acme`."""
        for tenant in ("acme", "rival"):
            await self.tenants.create(tenant)
        self.token = {
            f"{tenant}-{scope}": (await self.tokens.create(tenant, scope)).text
            for tenant in ("acme", "rival")
            for scope in ("full", "run", "read")
        }
        await self.container()
        await self.keep_image("acme")
        session = ExecSession(
            id=EXEC, tenant="acme", container=CONTAINER, config={"Cmd": ["secret-command"]}, created_at=now()
        )
        await Records(self.store, "execs", ExecSession).create("acme", EXEC, session)
        volume = Volume(name="acme-data", tenant="acme", created_at=now())
        await Records(self.store, "volumes", Volume).create("acme", "acme-data", volume)
        await self.request("POST", "/networks/create", "acme-full", json={"Name": "acme-net"})
        networks = Records(self.store, "networks", Network)
        await networks.update("acme", "acme-net", lambda network: network.model_copy(update={"id": NETWORK}))
        self.audit.clear()

    async def container(self, **fields: Any) -> Container:
        """`acme`'s, running."""
        containers = self.services.containers
        container = Container(
            **{
                "id": CONTAINER,
                "tenant": "acme",
                "name": "acme-web",
                "created_at": now(),
                "image": "acme/app",
                "image_id": IMAGE,
                "config": {"Cmd": ["sleep", "1"], "Env": ["PASSWORD=hidden"], "Labels": {}},
                "host_config": {"NetworkMode": "bridge", "AutoRemove": False, "RestartPolicy": {"Name": "no"}},
                "backend": "fake",
                "gateway": GATEWAY,
                "state": RunState(status="running", run=1, pid=1, started_at=now()),
                "agent": AgentLink(boot="boot1", gateway=GATEWAY, connected=True),
                **fields,
            }
        )
        await containers.names.reserve(container.tenant, container.name, container.id)
        return await containers.records.create(container.tenant, container.id, container)

    async def keep_image(
        self, tenant: str, *digests: str, tags: tuple[str, ...] = ("acme/app:latest",), id: str = IMAGE
    ) -> Image:
        """An image of a tenant, as it is after a pull."""
        image = Image(
            id=id,
            tenant=tenant,
            created_at=now(),
            tags=list(tags),
            repo_digests=list(digests or (f"acme/app@{DIGEST}",)),
            repository="local/acme/app",
            manifest_digest=DIGEST,
            config={"config": {"Cmd": ["sh"]}},
        )
        return await Records(self.store, "images", Image).create(tenant, id, image)

    async def limit(self, tenant: str = "acme", **policy: Any) -> None:
        """Sets the tenant's policy."""
        await self.tenants.limit(tenant, TenantPolicy(**policy))

    async def request(self, method: str, path: str, who: str = "", **options: Any) -> httpx.Response:
        """`who`: `acme-full`, `rival-read`, …, or a token; empty: none."""
        token = self.token.get(who, who)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return await self.client.request(method, path, headers=headers | options.pop("headers", {}), **options)

    async def owned(self, tenant: str) -> list[tuple[str, str, str]]:
        """Everything the store has of a tenant but its events: collection, key, revision."""
        found = []
        for collection in ("containers", "names", "execs", "images", "networks", "volumes", "functions"):
            documents = await self.store.list(collection, tenant)
            found += [(collection, document.key, document.revision) for document in documents]
        return found

    @property
    def gateway(self) -> dict[str, str]:
        """Headers of a gateway."""
        return {"authorization": f"Bearer {mint_gateway_token(KEY, GATEWAY, 60)}"}


@asynccontextmanager
async def hosted(
    directory: Path,
    *,
    oidc: Oidc | None = None,
    certificates: Certificates | None = None,
    routes: tuple[Route, ...] = ROUTES,
) -> AsyncIterator[Hosted]:
    """The endpoint, furnished."""
    endpoint = Hosted(directory, oidc, certificates, routes)
    try:
        await endpoint.furnish()
        yield endpoint
    finally:
        await endpoint.client.aclose()
        await endpoint.runs.background.close()
        await endpoint.access.close()
        await endpoint.events.close()
        await endpoint.store.close()
