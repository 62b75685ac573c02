"""Settings → store, backends, services, app: the one file that names them all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from agent_gateway.agent.binary import path as agent_binary
from agent_gateway.streams import Relay
from control_plane.agents import RelayedAgents
from control_plane.api.internal import ROUTES as INTERNAL_ROUTES
from control_plane.app import App, build_app, single_tenant
from control_plane.auth.tokens import GatewayAuth
from control_plane.backends.azure.clients import Clients as AzureClients
from control_plane.backends.azure_functions.backend import AzureFunctionsBackend
from control_plane.backends.azure_functions.settings import AzureFunctionsSettings
from control_plane.backends.base import Backend
from control_plane.backends.cloud_functions.backend import CloudFunctionsBackend
from control_plane.backends.cloud_functions.settings import CloudFunctionsSettings
from control_plane.backends.cloud_run.agent_volume import AgentVolume
from control_plane.backends.cloud_run.backend import CloudRunBackend
from control_plane.backends.cloud_run.settings import CloudRunSettings
from control_plane.backends.gcp.clients import Clients, Endpoint
from control_plane.backends.gcp.settings import GoogleSettings
from control_plane.backends.gcp.storage import BucketBlobs, ObjectStorage
from control_plane.backends.gcp.volume_storage import BucketVolumes, NfsVolumes
from control_plane.backends.location import Location
from control_plane.backends.minute_quota import MinuteQuota
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
from control_plane.services.function_records import FunctionRecords
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
    cloud_functions: CloudFunctionsSettings | None
    """None: the endpoint has no backend `gcf`."""
    azure_functions: AzureFunctionsSettings | None
    """None: the endpoint has no backend `azf`."""
    azure_identity: tuple[str, str]
    """`IDENTITY_ENDPOINT` and `IDENTITY_HEADER` of a local cloud; empty: the platform's own."""
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
        endpoint = _google(cloud_run)
        self._storage = ObjectStorage(cloud_run.project, cloud_run.bucket_name, endpoint=endpoint.storage)
        self._agent_volume = _agent_volume(cloud_run, endpoint, binaries)
        self._google = _GoogleQuotas(cloud_run.writes_per_minute)
        self._cloud_run = CloudRunBackend(
            cloud_run, Clients(endpoint), images, self._agent_volume, **self._google.of(cloud_run)
        )
        self.backends = self._backends(deployment, images)
        self._runs, self._services = self._assemble(deployment, images)
        self._reconciling: asyncio.Task[None] | None = None
        self.app: App = build_app(self._services, internal_routes=INTERNAL_ROUTES)

    def _backends(self, deployment: Deployment, images: Images) -> dict[str, Backend]:
        found: dict[str, Backend] = {"cloudrun": self._cloud_run}
        functions, azure = deployment.cloud_functions, deployment.azure_functions
        if functions is not None:
            quotas = self._google.of(functions)
            found["gcf"] = CloudFunctionsBackend(
                functions,
                Clients(_google(functions)),
                images,
                FunctionRecords(self._store),
                deployment.key,
                quotas["writes"],
                log_reads=quotas["log_reads"],
            )
        if azure is not None:
            endpoint, header = deployment.azure_identity
            clients = AzureClients(
                azure.subscription_id, azure.endpoint_url, identity_endpoint=endpoint, identity_header=header
            )
            found["azf"] = AzureFunctionsBackend(azure, clients, images, deployment.key)
        return found

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
        settings, backends = deployment.settings, self.backends
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
        creation = Creation(
            containers,
            images,
            volumes,
            networks,
            events,
            backends,
            settings.backend,
            pick_gateway,
            runs.preparation.begin,
        )
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
        await self._cloud_run.warm()
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
        await asyncio.gather(*(backend.close() for backend in self.backends.values()))
        if self._agent_volume is not None:
            await self._agent_volume.close()
        await self._storage.close()
        await self._registry.close()
        await self._upstreams.close()
        await self._store.close()


class _GoogleQuotas:
    """The quotas of each Google project: backends that share a project share them."""

    def __init__(self, writes_per_minute: int) -> None:
        self._writes_per_minute = writes_per_minute
        self._known: dict[tuple[str, str], _Quotas] = {}

    def of(self, settings: GoogleSettings) -> _Quotas:
        """Cloud Run's writes count per project and region, Cloud Logging's reads per project."""
        place = (settings.project, settings.region)
        if place not in self._known:
            self._known[place] = _Quotas(
                writes=MinuteQuota("Cloud Run Admin write requests per minute", self._writes_per_minute),
                log_reads=MinuteQuota("Cloud Logging read requests per minute", settings.log_reads_per_minute),
            )
        return self._known[place]


class _Quotas(TypedDict):
    writes: MinuteQuota
    log_reads: MinuteQuota


def _google(settings: GoogleSettings) -> Endpoint:
    return Endpoint.of(settings.endpoint_url, settings.gcp_endpoint, settings.storage_endpoint)


def _agent_volume(settings: CloudRunSettings, endpoint: Endpoint, binaries: AgentBinaries) -> AgentVolume | None:
    """Only where the settings name a place for the agent."""
    place = settings.agent_place
    if place is None:
        return None
    return AgentVolume(ObjectStorage(settings.project, place.host, endpoint=endpoint.storage), place, binaries)
