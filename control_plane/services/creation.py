"""`docker create`: from a request and an image to a container's record."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from control_plane.auth.policy import Wanted
from control_plane.backends.base import Backend
from control_plane.errors import DockerError, InvalidParameter, NotFound
from control_plane.model import Container, Image, Volume
from control_plane.services.admission import Admission, NoBounds
from control_plane.services.container_events import ContainerEvents
from control_plane.services.containers import Containers
from control_plane.services.creation_defaults import (
    fill_host,
    final_config,
    final_host,
    merge_image,
    settle_command,
)
from control_plane.services.creation_mounts import WantedMount, parse_volumes_from, wanted_mounts
from control_plane.services.creation_options import refuse_unserved
from control_plane.services.creation_platform import check_platform
from control_plane.services.creation_validation import check_config, check_host
from control_plane.services.creation_versions import adapt
from control_plane.services.names import checked
from control_plane.services.published_ports import check_bindings, check_published
from control_plane.store.base import AlreadyExists
from control_plane.timestamps import now

Json = dict[str, Any]

BACKEND_LABEL = "sockerless.backend"


class ImageLookup(Protocol):
    """`services.images.Images`, as far as it is needed here."""

    async def resolve(self, tenant: str, reference: str) -> Image:
        """Raises NotFound `No such image: x:latest`."""
        ...


class VolumesOfContainers(Protocol):
    """`services.volumes.Volumes`, as far as it is needed here."""

    async def ensure(self, tenant: str, name: str | None, labels: Mapping[str, str]) -> Volume:
        """The volume of that name, made if need be; a new anonymous one for None."""
        ...

    def view(self, volume: Volume) -> Json:
        """Docker's JSON of a volume; its `Mountpoint` is what inspect shows as the mount's source."""
        ...

    async def remove_anonymous(self, container: Container) -> None:
        """Removes the anonymous volumes that only this container used."""
        ...


class NetworksOfContainers(Protocol):
    """`services.networks.Networks`, as far as it is needed here."""

    async def endpoints_for(self, tenant: str, network_mode: str, endpoints_config: Mapping[str, Any]) -> Json:
        """`NetworkSettings.Networks` of a new container. Raises NotFound for a network that is not there."""
        ...


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A parsed `POST /containers/create`: Docker's JSON, every field present. `create` fills the objects in place."""

    name: str
    config: Json
    host_config: Json
    endpoints: Json
    api_version: tuple[int, int]
    platform: str = ""
    publisher: bool = False
    """Whether the client's front door can listen for published ports."""
    attempt: str = ""
    """The same in a request that is sent again because its answer was lost, and in no other of the tenant's."""


@dataclass(frozen=True, slots=True)
class Created:
    """The answer: the container and the warnings for its user."""

    container: Container
    warnings: list[str]


class Creation:
    """Makes containers.

    `pick_gateway` gives the URL of the relay a new container meets its streams at; `prepare` begins what the platform
    has to do before the start, and returns at once.
    """

    def __init__(
        self,
        containers: Containers,
        images: ImageLookup,
        volumes: VolumesOfContainers,
        networks: NetworksOfContainers,
        events: ContainerEvents,
        backends: Mapping[str, Backend],
        default_backend: str,
        pick_gateway: Callable[[], Awaitable[str]],
        prepare: Callable[[Container, Image], None],
        admission: Admission | None = None,
    ) -> None:
        self._containers = containers
        self._images = images
        self._volumes = volumes
        self._networks = networks
        self._events = events
        self._backends = backends
        self._default_backend = default_backend
        self._pick_gateway = pick_gateway
        self._prepare = prepare
        self._admission = admission or NoBounds()

    async def create(self, tenant: str, request: CreateRequest) -> Created:
        """The new container; for an attempt that is repeated the one that the first has made.

        Raises InvalidParameter, NotFound (image, network), Conflict (name), NotServed, Forbidden, TooMany.
        """
        container_id = _new_id(tenant, request.attempt)
        try:
            return await self._create(tenant, container_id, request)
        except (DockerError, AlreadyExists):
            made = await self._containers.records.get(tenant, container_id) if request.attempt else None
            if made is None:
                raise
            return Created(made, [])

    async def _create(self, tenant: str, container_id: str, request: CreateRequest) -> Created:
        """Refuses what nobody serves before anything is made; makes volumes, then the name, then the record."""
        config, host, endpoints = request.config, request.host_config, request.endpoints
        name = checked(request.name) if request.name else ""
        warnings = adapt(request.api_version, config, host, endpoints)
        check_config(config)
        check_host(config, host)
        refuse_unserved(config, host)
        warnings += check_bindings(host, publisher=request.publisher)
        if not config["Image"]:
            raise InvalidParameter("no image specified: a container needs an image to run")
        image = await self._images.resolve(tenant, config["Image"])
        warnings += check_platform(image, config["Image"], request.platform)
        merge_image(config, image.config.get("config") or {})
        check_config(config)
        settle_command(config)
        warnings += check_published(config, host)
        host["Runtime"], backend = self._choose(host, config["Labels"])
        limit = await self._admission.admit(
            tenant, Wanted(image, config["Image"], host, host["Runtime"]), backend.capabilities.max_run_seconds
        )
        warnings += fill_host(host)
        if name:
            await self._containers.names.check_free(tenant, name)
        wanted = wanted_mounts(config, host, await self._mount_sources(tenant, host))
        host["NetworkMode"] = await self._shared_mode(tenant, host["NetworkMode"])
        draft = _draft(tenant, container_id, name, image, config, host, wanted)
        draft = draft.model_copy(update={"run_limit": limit})
        warnings += backend.check(draft)
        await backend.check_image(draft, image)
        networking = await self._networks.endpoints_for(tenant, host["NetworkMode"], endpoints)
        draft = draft.model_copy(update={"networking": networking, "gateway": await self._pick_gateway()})
        async with self._admission.room(tenant):
            container = await self._keep(await self._with_volumes(draft, wanted))
        self._prepare(container, image)
        return Created(container, warnings)

    def _choose(self, host: Json, labels: Mapping[str, str]) -> tuple[str, Backend]:
        """`--runtime`, else the label, else the endpoint's default."""
        if host["Runtime"]:
            if host["Runtime"] not in self._backends:
                raise InvalidParameter(f"unknown or invalid runtime name: {host['Runtime']}")
            return host["Runtime"], self._backends[host["Runtime"]]
        name = labels.get(BACKEND_LABEL, self._default_backend)
        if name not in self._backends:
            known = ", ".join(sorted(self._backends))
            raise InvalidParameter(f"label {BACKEND_LABEL}={name}: no such backend; this endpoint has {known}")
        return name, self._backends[name]

    async def _mount_sources(self, tenant: str, host: Json) -> Sequence[Container]:
        found = []
        for entry in host["VolumesFrom"] or []:
            try:
                found.append(await self._containers.resolve(tenant, parse_volumes_from(entry)[0]))
            except NotFound as error:
                raise InvalidParameter(error.message) from None
        return found

    async def _shared_mode(self, tenant: str, mode: str) -> str:
        """`container:NAME` is kept as the id, which outlives a rename."""
        kind, _, reference = mode.partition(":")
        if kind != "container":
            return mode
        try:
            return f"container:{(await self._containers.resolve(tenant, reference)).id}"
        except NotFound as error:
            # Not a 404: clients take that for a missing image and pull it.
            raise InvalidParameter(f"joining network namespace of container: {error.message}") from None

    async def _with_volumes(self, draft: Container, wanted: Sequence[WantedMount]) -> Container:
        mounts = []
        try:
            for entry in wanted:
                mount = entry.mount
                if mount.type == "volume":
                    name = None if entry.anonymous else mount.name
                    volume = await self._volumes.ensure(draft.tenant, name, entry.labels)
                    source = self._volumes.view(volume)["Mountpoint"]
                    mount = mount.model_copy(update={"name": volume.name, "source": source})
                mounts.append(mount)
        except BaseException:
            await self._volumes.remove_anonymous(draft.model_copy(update={"mounts": mounts}))
            raise
        return draft.model_copy(update={"mounts": mounts})

    async def _keep(self, draft: Container) -> Container:
        """Name and record, one right after the other: a crash between them leaves a name that is soon given away."""
        tenant, names = draft.tenant, self._containers.names
        try:
            if draft.name:
                await names.reserve(tenant, draft.name, draft.id)
                name = draft.name
            else:
                name = await names.reserve_random(tenant, draft.id)
            draft = draft.model_copy(update={"name": name})
            try:
                container = await self._containers.records.create(tenant, draft.id, draft)
            except BaseException:
                other = await self._containers.records.get(tenant, draft.id)
                if other is None or other.name != name:  # else it is the name of the same attempt's container
                    await names.release(tenant, name, draft.id)
                raise
        except BaseException:
            await self._volumes.remove_anonymous(draft)
            raise
        await self._events.publish(container, "create")
        return container


def _draft(
    tenant: str, container_id: str, name: str, image: Image, config: Json, host: Json, wanted: Sequence[WantedMount]
) -> Container:
    mounts = [
        # The backend checks before volumes are made: anonymous ones have a stand-in name until then.
        entry.mount.model_copy(update={"name": container_id}) if entry.anonymous else entry.mount
        for entry in wanted
    ]
    document = final_config(config, container_id)
    return Container(
        id=container_id,
        tenant=tenant,
        name=name,
        created_at=now(),
        image=config["Image"],
        image_id=image.id,
        config=document,
        host_config=final_host(host),
        labels=document["Labels"],
        mounts=mounts,
        backend=host["Runtime"],
        gateway="",
    )


def _new_id(tenant: str, attempt: str) -> str:
    """64 hexadecimal digits of which the short id is not a decimal number (host names of digits confuse resolvers).

    Of an attempt always the same ones: who repeats it finds what it has made.
    """
    seed = f"{tenant}/{attempt}" if attempt else secrets.token_hex(32)
    while True:
        seed = hashlib.sha256(seed.encode()).hexdigest()
        if not seed[:12].isdecimal():
            return seed
