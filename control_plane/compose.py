"""Deployment → store, backends, services, app: the one file that names them all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from agent_gateway.streams import Relay
from control_plane.agents import RelayedAgents
from control_plane.api.internal import ROUTES as INTERNAL_ROUTES
from control_plane.api.status import ROUTES as STATUS_ROUTES
from control_plane.app import App, build_app
from control_plane.auth.tokens import GatewayAuth
from control_plane.deployment import Deployment
from control_plane.platforms import Platforms, agent_binaries
from control_plane.registry.archive import TarArchives
from control_plane.registry.client import UpstreamRegistries
from control_plane.registry.endpoints import RegistryPolicy
from control_plane.registry.files import RegistryLayerFiles
from control_plane.registry.layer import AgentLayerAppender
from control_plane.registry.push import StorageRegistry
from control_plane.services.bundle import Services
from control_plane.services.container_events import ContainerEvents
from control_plane.services.containers import Containers
from control_plane.services.creation import Creation
from control_plane.services.events import Events
from control_plane.services.gateways import Gateways
from control_plane.services.images import Images
from control_plane.services.listing import Listing
from control_plane.services.networks import Networks
from control_plane.services.run_assembly import RunPorts, RunServices, assemble
from control_plane.services.system import System
from control_plane.services.updates import Updates
from control_plane.services.volumes import Volumes
from control_plane.services.waits import Waits
from control_plane.store.base import Store

__all__ = ["ControlPlane", "Deployment"]

_PATIENCE = 30.0
"""Seconds that whoever asks for a pass waits for what it began."""


class ControlPlane:
    """One control plane: `app` serves, `start` and `stop` bracket it."""

    def __init__(self, deployment: Deployment, store: Store, relays: Mapping[str, Relay] | None = None) -> None:
        """`relays` are the gateways in this process, by URL; all others are dialled."""
        self.store = store
        self._events = Events(store, shared=not deployment.run.sole_instance)
        self._upstreams = UpstreamRegistries(
            RegistryPolicy(
                deployment.registry_mirrors,
                deployment.insecure_registries,
                insecure_loopback=deployment.insecure_loopback,
            )
        )
        self._registry = StorageRegistry(deployment.registry)
        self._agents = RelayedAgents(deployment.key, relays)
        binaries = agent_binaries(deployment, self._upstreams)
        images = Images(
            store,
            self._registry,
            self._upstreams,
            TarArchives(deployment.temporary),
            AgentLayerAppender(self._registry, binaries),
            RegistryLayerFiles(self._registry, deployment.temporary),
            self._events,
        )
        self._platforms = Platforms(deployment, store, images, self._registry, binaries)
        self.backends = self._platforms.backends
        self.auth = GatewayAuth(deployment.key, deployment.agent_token_seconds)
        self.gateways = Gateways(store, only=deployment.gateway_url)
        self._reconciles = deployment.run.reconcile_interval > 0
        self._runs, self.services = self._assemble(deployment, images)
        self._reconciling: asyncio.Task[None] | None = None
        self.app: App = build_app(
            self.services,
            authenticate=deployment.authenticate,
            audit=deployment.audit,
            internal_routes=(*INTERNAL_ROUTES, *STATUS_ROUTES),
        )

    def _assemble(self, deployment: Deployment, images: Images) -> tuple[RunServices, Services]:
        backends = self.backends
        store = self.store
        containers = Containers(store)
        networks = Networks(store, containers, self._events)
        volumes = Volumes(store, self._platforms.volumes, self._events)
        ports = RunPorts(
            store=store,
            containers=containers,
            events=self._events,
            image_files=images,
            volumes=volumes,
            networks=networks,
            backends=backends,
            agents=self._agents,
            blobs=self._platforms.blobs,
            agent_token=self.auth.agent_token,
            stream_ticket=self.auth.stream_ticket,
            check_gateway=self.auth.check_gateway,
            gateways=self.gateways,
            check_stream=self.auth.check_stream,
            renewed_token=self.auth.renewed_token,
        )
        runs = assemble(ports, deployment.run)
        if not self.gateways.only:
            self._agents.follow(containers.records.get)

        events = ContainerEvents(self._events)
        creation = Creation(
            containers,
            images,
            volumes,
            networks,
            events,
            backends,
            deployment.backend,
            self.gateways.pick,
            runs.preparation.begin,
            admission=deployment.admission,
        )
        system = System(
            store,
            containers,
            self._events,
            backends,
            deployment.backend,
            server_id=deployment.server_id,
            root=deployment.root,
            insecure_registries=deployment.insecure_registries,
            mirrors=deployment.registry_mirrors,
        )
        return runs, Services(
            containers=containers,
            listing=Listing(containers, images),
            creation=creation,
            updates=Updates(containers, events, backends, deployment.admission),
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
            gateways=self.gateways,
        )

    async def start(self) -> None:
        """Starts the reconciler, and loads the cloud's SDKs so that the first `docker run` does not wait for them."""
        if self._reconciles:
            self._reconciling = asyncio.create_task(self._runs.reconciler.run_forever(), name="reconciler")
        self._runs.background.spawn(self._warm(), "loading the cloud's SDKs")

    async def _warm(self) -> None:
        await self._platforms.warm()
        await self.services.images.warm()

    async def reconcile(self) -> None:
        """One pass over all that is due, to its end, unless another makes them: for whoever calls on a schedule."""
        await self._runs.reconciler.pass_once()
        await self._settle()

    async def sweep(self) -> None:
        """One sweep for cloud resources of nobody."""
        await self._runs.reconciler.sweep()

    async def look_at(self, tenant: str, container_id: str) -> None:
        """Something outside says that the container's execution has ended: asks the cloud, and records the end."""
        self._runs.reconciler.hear(tenant, container_id)
        await self._settle()

    async def _settle(self) -> None:
        """What was begun in the background has its time; what takes longer, a later pass finds again."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._runs.background.settle()
        except TimeoutError:
            return

    async def running(self) -> int:
        """How many containers run now: not those whose agent only keeps the file system."""
        documents = await self.store.list("containers")
        return sum(document.body["state"]["status"] in {"starting", "running", "paused"} for document in documents)

    async def stop(self) -> None:
        """Ends the background work; containers go on."""
        if self._reconciling is not None:
            self._reconciling.cancel()
            await asyncio.gather(self._reconciling, return_exceptions=True)
        await self._runs.background.close()
        await self._runs.reconciler.leave()
        await self._events.close()
        await self._agents.close()
        await self._platforms.close()
        await self._registry.close()
        await self._upstreams.close()
        await self.store.close()
