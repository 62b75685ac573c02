"""The backends a deployment has settings for, and what of their clouds the services use besides."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from agent_gateway.agent.binary import path as agent_binary
from control_plane.backends.azure.clients import Clients as AzureClients
from control_plane.backends.azure_functions.backend import AzureFunctionsBackend
from control_plane.backends.base import Backend
from control_plane.backends.cloud_functions.backend import CloudFunctionsBackend
from control_plane.backends.cloud_run.agent_volume import AgentVolume
from control_plane.backends.cloud_run.backend import CloudRunBackend
from control_plane.backends.gcp.clients import Clients, Endpoint
from control_plane.backends.gcp.storage import BucketBlobs, ObjectStorage
from control_plane.backends.gcp.volume_storage import BucketVolumes, NfsVolumes
from control_plane.backends.location import Location
from control_plane.backends.minute_quota import MinuteQuota
from control_plane.backends.no_volumes import NoVolumes
from control_plane.registry.agent_binaries import AgentBinaries, BuiltInAgents, PinnedAgents
from control_plane.registry.blobs import RegistryBlobs
from control_plane.registry.push import own_login
from control_plane.registry.reference import parse_named
from control_plane.services.function_records import FunctionRecords

if TYPE_CHECKING:
    from control_plane.backends.azure_functions.settings import AzureFunctionsSettings
    from control_plane.backends.cloud_functions.settings import CloudFunctionsSettings
    from control_plane.backends.cloud_run.settings import CloudRunSettings
    from control_plane.backends.gcp.settings import GoogleSettings
    from control_plane.deployment import Deployment
    from control_plane.registry.client import UpstreamRegistries
    from control_plane.registry.push import StorageRegistry
    from control_plane.services.images import Images
    from control_plane.services.ports import Blobs, VolumeStorage
    from control_plane.store.base import Store

_ARCHITECTURES = ("amd64", "arm64")


def agent_binaries(deployment: Deployment, upstreams: UpstreamRegistries) -> AgentBinaries:
    """The agent that is put into images: the built-in one, or that of the image the deployment pins."""
    pinned = deployment.cloud_run.agent_image if deployment.cloud_run is not None else ""
    if not pinned:
        return BuiltInAgents({arch: agent_binary(arch) for arch in _ARCHITECTURES})
    reference = parse_named(pinned)
    return PinnedAgents(upstreams, reference, own_login(deployment.registry, reference.domain), deployment.temporary)


class Platforms:
    """Backends by name, `blobs` for files copied in before a start, `volumes` for Docker's volumes.

    The bucket of a Google backend keeps both where there is one. An endpoint with Azure Functions alone keeps the files
    in its own registry, which it has anyway, and has no volumes.
    """

    def __init__(
        self, deployment: Deployment, store: Store, images: Images, registry: StorageRegistry, binaries: AgentBinaries
    ) -> None:
        self._deployment = deployment
        self._images = images
        self._quotas = _GoogleQuotas(deployment.cloud_run)
        self._agent_volume: AgentVolume | None = None
        self._cloud_run: CloudRunBackend | None = None
        self.backends: dict[str, Backend] = {}
        if deployment.cloud_run is not None:
            self._cloud_run = self.backends["cloudrun"] = self._jobs(deployment.cloud_run, binaries)
        if deployment.cloud_functions is not None:
            self.backends["gcf"] = self._functions(deployment.cloud_functions, store)
        if deployment.azure_functions is not None:
            self.backends["azf"] = self._apps(deployment.azure_functions)
        google = deployment.cloud_run or deployment.cloud_functions
        self._storage: ObjectStorage | None = None
        self.blobs: Blobs
        self.volumes: VolumeStorage
        if google is not None:
            self._storage = ObjectStorage(google.project, google.bucket_name, endpoint=_endpoint(google).storage)
            self.blobs = BucketBlobs(self._storage)
            self.volumes = _volumes(google, self._storage)
        else:
            self.blobs = RegistryBlobs(registry, deployment.temporary)
            self.volumes = NoVolumes()

    def _jobs(self, settings: CloudRunSettings, binaries: AgentBinaries) -> CloudRunBackend:
        endpoint = _endpoint(settings)
        place = settings.agent_place
        if place is not None:
            storage = ObjectStorage(settings.project, place.host, endpoint=endpoint.storage)
            self._agent_volume = AgentVolume(storage, place, binaries)
        return CloudRunBackend(
            settings, Clients(endpoint), self._images, self._agent_volume, **self._quotas.of(settings)
        )

    def _functions(self, settings: CloudFunctionsSettings, store: Store) -> CloudFunctionsBackend:
        quotas = self._quotas.of(settings)
        return CloudFunctionsBackend(
            settings,
            Clients(_endpoint(settings)),
            self._images,
            FunctionRecords(store),
            self._deployment.key,
            quotas["writes"],
            log_reads=quotas["log_reads"],
        )

    def _apps(self, settings: AzureFunctionsSettings) -> AzureFunctionsBackend:
        endpoint, header = self._deployment.azure_identity
        clients = AzureClients(
            settings.subscription_id, settings.endpoint_url, identity_endpoint=endpoint, identity_header=header
        )
        return AzureFunctionsBackend(settings, clients, self._images, self._deployment.key)

    async def warm(self) -> None:
        """Loads the SDKs of what `docker run` waits for first."""
        if self._cloud_run is not None:
            await self._cloud_run.warm()

    async def close(self) -> None:
        """Ends the backends; what runs in the clouds goes on."""
        await asyncio.gather(*(backend.close() for backend in self.backends.values()))
        if self._agent_volume is not None:
            await self._agent_volume.close()
        if self._storage is not None:
            await self._storage.close()


class _Quotas(TypedDict):
    writes: MinuteQuota
    log_reads: MinuteQuota


class _GoogleQuotas:
    """The quotas of each Google project: backends that share a project share them."""

    def __init__(self, jobs: CloudRunSettings | None) -> None:
        self._writes_per_minute = jobs.writes_per_minute if jobs is not None else _RUN_WRITES
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


_RUN_WRITES = 180
"""Cloud Run Admin's own quota, where no backend `cloudrun` says what of it we may use."""


def _endpoint(settings: GoogleSettings) -> Endpoint:
    return Endpoint.of(settings.endpoint_url, settings.gcp_endpoint, settings.storage_endpoint)


def _volumes(settings: GoogleSettings, storage: ObjectStorage) -> VolumeStorage:
    if settings.volume_storage == "nfs":
        return NfsVolumes(Location.parse(settings.volume_nfs), Path(settings.volume_nfs_path))
    return BucketVolumes(storage)
