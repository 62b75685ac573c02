"""Docker's images: pulled and loaded into our registry, known to a tenant by documents in the store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from control_plane.errors import Conflict, InvalidParameter, NotFound, ServerError
from control_plane.model import Container, Image
from control_plane.registry.base import (
    AgentLayers,
    Credentials,
    ImageArchives,
    ImageRegistry,
    LayerFiles,
    RegistryError,
    Upstreams,
)
from control_plane.registry.platform import Platform, runs_on
from control_plane.registry.reference import Reference
from control_plane.services import image_views
from control_plane.services.events import Events
from control_plane.services.image_keeping import ImageKeeping
from control_plane.services.image_list import list_images
from control_plane.services.image_loads import ImageLoads
from control_plane.services.image_pulls import ImagePulls, labels_of, platform_of
from control_plane.services.image_records import ImageRecords
from control_plane.services.image_removal import ImageRemoval, Row
from control_plane.services.progress import Line
from control_plane.services.records import Records
from control_plane.store.base import Store

Removed = list[Row]
Rows = list[dict[str, Any]]


class Images:
    """One call per Docker operation. No call but `pull`, `load`, `remove`, `stat`, `read` and the first
    `ensure_agent_layer` of an image leaves the store."""

    def __init__(
        self,
        store: Store,
        registry: ImageRegistry,
        upstreams: Upstreams,
        archives: ImageArchives,
        agent_layers: AgentLayers,
        files: LayerFiles,
        events: Events,
    ) -> None:
        self._records = ImageRecords(Records(store, "images", Image))
        keeping = ImageKeeping(self._records, registry)
        self._pulls = ImagePulls(self._records, keeping, registry, upstreams, events)
        self._loads = ImageLoads(self._records, keeping, registry, archives, events)
        self._removal = ImageRemoval(self._records, Records(store, "containers", Container), registry, events)
        self._registry = registry
        self._upstreams = upstreams
        self._agent_layers = agent_layers
        self._files = files
        self._events = events

    async def warm(self) -> None:
        """Prepares what the first pull or start would wait for. For after the listeners are up."""
        await self._registry.warm()
        await self._agent_layers.warm()

    async def resolve(self, tenant: str, text: str, platform: Platform | None = None) -> Image:
        """By name, name@digest, id or id prefix. Raises NotFound `No such image: x:latest`, InvalidParameter.

        With a platform the image must run on it, as in moby.
        """
        image = await self._records.resolve(tenant, text)
        if platform is not None and not runs_on(platform_of(image), platform):
            raise NotFound(
                f"image with reference {text} was found but its platform ({platform_of(image)}) "
                f"does not match the specified platform ({platform})"
            )
        return image

    async def ids(self, tenant: str, texts: Collection[str]) -> dict[str, str]:
        """The ids of the images that these mean now, by text; what means none is left out."""
        return await self._records.ids(tenant, texts)

    def pull(
        self, tenant: str, reference: Reference, platform: Platform | None, credentials: Credentials
    ) -> AsyncIterator[Line]:
        """`docker pull`, told line by line; see `ImagePulls.pull`."""
        return self._pulls.pull(tenant, reference, platform, credentials)

    def load(
        self, tenant: str, content: AsyncIterator[bytes], platform: Platform | None, *, quiet: bool
    ) -> AsyncIterator[Line]:
        """`docker load`, told line by line; see `ImageLoads.load`."""
        return self._loads.load(tenant, content, platform, quiet=quiet)

    async def list(
        self,
        tenant: str,
        filters: Mapping[str, Sequence[str]],
        version: tuple[int, int],
        *,
        shared_size: bool = False,
    ) -> Rows:
        """Rows of `GET /images/json`."""
        return await list_images(self._records, tenant, filters, version, shared_size=shared_size)

    async def count(self, tenant: str) -> int:
        """For `docker info`."""
        return len(await self._records.all(tenant))

    async def inspect(
        self, tenant: str, text: str, version: tuple[int, int], platform: Platform | None = None
    ) -> dict[str, Any]:
        """`docker image inspect`."""
        return image_views.inspection(await self.resolve(tenant, text, platform), version)

    async def history(self, tenant: str, text: str, platform: Platform | None = None) -> Rows:
        """`docker history`."""
        return image_views.history(await self.resolve(tenant, text, platform))

    async def tag(self, tenant: str, text: str, reference: Reference) -> None:
        """Raises NotFound, InvalidParameter."""
        if reference.familiar_name == "sha256":
            raise InvalidParameter("refusing to create an ambiguous tag using digest algorithm as name")
        image = await self._records.tag(await self._records.resolve(tenant, text), reference)
        if image is None:
            raise NotFound(f"No such image: {text}")
        attributes = {**labels_of(image), "name": reference.familiar}
        await self._events.publish(tenant, "image", "tag", image.id, attributes)

    async def remove(self, tenant: str, text: str, *, force: bool = False) -> Removed:
        """The rows of `docker rmi`. (`noprune` has nothing to spare here: no image has a parent.)"""
        return await self._removal.remove(tenant, text, force=force)

    async def prune(self, tenant: str, filters: Mapping[str, Sequence[str]]) -> dict[str, object]:
        """`docker image prune`: `{"ImagesDeleted": rows or None, "SpaceReclaimed": bytes}`."""
        return await self._removal.prune(tenant, filters)

    async def stat(self, image: Image, path: str) -> dict[str, Any]:
        """PathStat of a path in the image's file system. Raises NotFound."""
        return await self._files.stat(image, path)

    def read(self, image: Image, path: str) -> AsyncIterator[bytes]:
        """A tar of a path in the image's file system. Raises NotFound before the first byte."""
        return self._files.read(image, path)

    async def ensure_agent_layer(self, image: Image) -> Image:
        """The image with `agent_digest` set to the derived manifest that has the agent as its first process.

        Made and pushed once per image and agent; after that it costs no call. Raises NotServed when there is no agent
        for the image's processor, Conflict when the image was removed meanwhile.
        """
        try:
            digest = await self._agent_layers.derive(image)
        except RegistryError as error:
            raise ServerError("the agent could not be added to the image", internal=str(error)) from error
        if image.agent_digest == digest:
            return image
        recorded = await self._records.set_agent_digest(image, digest)
        if recorded is None:
            raise Conflict(f"image {image.id} was removed")
        return recorded

    async def check_login(self, credentials: Credentials) -> str:
        """`docker login`: asks the registry. Returns its identity token, if it issues one. Raises Unauthorized."""
        try:
            return await self._upstreams.login(credentials)
        except RegistryError as error:
            raise ServerError(str(error)) from error
