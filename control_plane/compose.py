"""Settings → store, backends, services, app: the one file that names them all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent_gateway.agent.binary import path as agent_binary
from agent_gateway.streams import Relay
from control_plane.agents import RelayedAgents
from control_plane.api.internal import ROUTES as INTERNAL_ROUTES
from control_plane.app import App, build_app, single_tenant
from control_plane.auth.tokens import GatewayAuth
from control_plane.backends.cloud_run.agent_volume import AgentVolume
from control_plane.backends.cloud_run.backend import CloudRunBackend
from control_plane.backends.cloud_run.settings import CloudRunSettings
from control_plane.backends.gcp.clients import Clients, Endpoint
from control_plane.backends.gcp.storage import BucketBlobs, ObjectStorage
from control_plane.backends.gcp.volume_storage import BucketVolumes, NfsVolumes
from control_plane.backends.location import Location
from control_plane.registry.agent_binaries import AgentBinaries, BuiltInAgents, PinnedAgents
from control_plane.registry.archive import TarArchives
from control_plane.registry.client import UpstreamRegistries
from control_plane.registry.endpoints import RegistryPolicy
from control_plane.registry.files import RegistryLayerFiles
from control_plane.registry.layer import AgentLayerAppender
from control_plane.registry.push import RegistrySettings, StorageRegistry, own_login
from control_plane.registry.reference import parse_named
from control_plane.services.bundle import Services
from control_plane.services.container_events import ContainerEvents
from control_plane.services.containers import Containers
from control_plane.services.creation import Creation
from control_plane.services.events import Events
from control_plane.services.images import Images
from control_plane.services.listing import Listing
from control_plane.services.networks import Networks
from control_plane.services.ports import VolumeStorage
from control_plane.services.run_assembly import RunPorts, RunServices, assemble
from control_plane.services.run_settings import RunSettings
from control_plane.services.system import System
from control_plane.services.updates import Updates
from control_plane.services.volumes import Volumes
from control_plane.services.waits import Waits
from control_plane.settings import Settings
from control_plane.store.base import Store

_ARCHITECTURES = ("amd64", "arm64")


@dataclass(frozen=True, slots=True)
class Deployment:
    """What differs between the embedded endpoint and a hosted one."""

    settings: Settings
    cloud_run: CloudRunSettings
    registry: RegistrySettings
    run: RunSettings
    key: bytes
    """Signs tokens and tickets; the gateways have the same."""
    gateway_url: str
    """Relay of new containers."""
    server_id: str
    temporary: Path
    """For archives on their way through."""


class ControlPlane:
    """One control plane: `app` serves, `start` and `stop` bracket it."""

    def __init__(self, deployment: Deployment, store: Store, relays: Mapping[str, Relay]) -> None:
        self._store = store
        self._events = Events(store)
        self._upstreams = UpstreamRegistries(
            RegistryPolicy(deployment.settings.registry_mirror, deployment.settings.insecure_registry)
        )
        self._registry = StorageRegistry(deployment.registry)
        self._agents = RelayedAgents(deployment.key, relays)
        binaries = self._agent_binaries(deployment)
        images = self._images(deployment, binaries)
        cloud_run = deployment.cloud_run
        endpoint = Endpoint.of(cloud_run.endpoint_url, cloud_run.gcp_endpoint, cloud_run.storage_endpoint)
        self._storage = ObjectStorage(cloud_run.project, cloud_run.bucket_name, endpoint=endpoint.storage)
        self._agent_volume = _agent_volume(cloud_run, endpoint, binaries)
        self.backend = CloudRunBackend(cloud_run, Clients(endpoint), images, self._agent_volume)
        self._runs, self._services = self._assemble(deployment, images)
        self._reconciling: asyncio.Task[None] | None = None
        self.app: App = build_app(self._services, internal_routes=INTERNAL_ROUTES)

    def _agent_binaries(self, deployment: Deployment) -> AgentBinaries:
        pinned = deployment.cloud_run.agent_image
        if not pinned:
            return BuiltInAgents({arch: agent_binary(arch) for arch in _ARCHITECTURES})
        reference = parse_named(pinned)
        return PinnedAgents(
            self._upstreams, reference, own_login(deployment.registry, reference.domain), deployment.temporary
        )

    def _images(self, deployment: Deployment, binaries: AgentBinaries) -> Images:
        return Images(
            self._store,
            self._registry,
            self._upstreams,
            TarArchives(deployment.temporary),
            AgentLayerAppender(self._registry, binaries),
            RegistryLayerFiles(self._registry, deployment.temporary),
            self._events,
        )

    def _assemble(self, deployment: Deployment, images: Images) -> tuple[RunServices, Services]:
        settings, backends = deployment.settings, {"cloudrun": self.backend}
        containers = Containers(self._store)
        networks = Networks(self._store, containers, self._events)
        volumes = Volumes(self._store, self._volume_storage(deployment.cloud_run), self._events)
        auth = GatewayAuth(deployment.key)
        ports = RunPorts(
            store=self._store,
            containers=containers,
            events=self._events,
            image_files=images,
            volumes=volumes,
            networks=networks,
            backends=backends,
            agents=self._agents,
            blobs=BucketBlobs(self._storage),
            agent_token=auth.agent_token,
            stream_ticket=auth.stream_ticket,
            authenticate=single_tenant,
            check_gateway=auth.check_gateway,
        )
        runs = assemble(ports, deployment.run)

        async def pick_gateway() -> str:
            return deployment.gateway_url

        events = ContainerEvents(self._events)
        creation = Creation(containers, images, volumes, networks, events, backends, settings.backend, pick_gateway)
        system = System(
            self._store,
            containers,
            self._events,
            backends,
            settings.backend,
            server_id=deployment.server_id,
            root=str(settings.data),
            insecure_registries=tuple(settings.insecure_registry),
            mirrors=tuple(settings.registry_mirror),
        )
        return runs, Services(
            containers=containers,
            listing=Listing(containers, images),
            creation=creation,
            updates=Updates(containers, events, backends),
            runs=runs.runs,
            removal=runs.removal,
            waits=Waits(containers, self._events),
            execs=runs.execs,
            attachments=runs.attachments,
            archives=runs.archives,
            logs=runs.logs,
            links=runs.links,
            events=self._events,
            images=images,
            volumes=volumes,
            networks=networks,
            system=system,
        )

    def _volume_storage(self, settings: CloudRunSettings) -> VolumeStorage:
        if settings.volume_storage == "nfs":
            return NfsVolumes(Location.parse(settings.volume_nfs), Path(settings.volume_nfs_path))
        return BucketVolumes(self._storage)

    async def start(self) -> None:
        """Starts the reconciler, and loads the cloud's SDKs so that the first `docker run` does not wait for them."""
        self._reconciling = asyncio.create_task(self._runs.reconciler.run_forever(), name="reconciler")
        self._runs.background.spawn(self._warm(), "loading the cloud's SDKs")

    async def _warm(self) -> None:
        await self.backend.warm()
        await self._services.images.warm()

    async def running(self) -> int:
        """How many containers run now: not those whose agent only keeps the file system."""
        documents = await self._store.list("containers")
        return sum(document.body["state"]["status"] in {"starting", "running", "paused"} for document in documents)

    async def stop(self) -> None:
        """Ends the background work; containers go on."""
        if self._reconciling is not None:
            self._reconciling.cancel()
            await asyncio.gather(self._reconciling, return_exceptions=True)
        await self._runs.background.close()
        await self._events.close()
        await self._agents.close()
        await self.backend.close()
        if self._agent_volume is not None:
            await self._agent_volume.close()
        await self._storage.close()
        await self._registry.close()
        await self._upstreams.close()
        await self._store.close()


def _agent_volume(settings: CloudRunSettings, endpoint: Endpoint, binaries: AgentBinaries) -> AgentVolume | None:
    """Only where the settings name a place for the agent."""
    place = settings.agent_place
    if place is None:
        return None
    return AgentVolume(ObjectStorage(settings.project, place.host, endpoint=endpoint.storage), place, binaries)
