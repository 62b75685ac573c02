"""`docker pull`: from a user's registry into ours, told in Docker's progress lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from control_plane.errors import DockerError, Forbidden, NotFound, ServerError
from control_plane.model import Image
from control_plane.registry.base import Credentials, ImageRegistry, Progress, RegistryError, RemoteImage, Upstreams
from control_plane.registry.manifest import Descriptor, sha256
from control_plane.registry.platform import DEFAULT, Platform, normalize, runs_on
from control_plane.registry.reference import Reference
from control_plane.services.events import Events
from control_plane.services.image_keeping import PULL, Blob, ImageKeeping, described
from control_plane.services.image_records import ImageRecords
from control_plane.services.progress import Line, status_line
from control_plane.timestamps import now

_DEADLINE_SECONDS = 3600.0
"""Of one image; a Cloud Run request lives no longer."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a pull works with."""

    records: ImageRecords
    keeping: ImageKeeping
    registry: ImageRegistry
    upstreams: Upstreams


class ImagePulls:
    """Pulls. Credentials go with one call and are not kept."""

    def __init__(
        self,
        records: ImageRecords,
        keeping: ImageKeeping,
        registry: ImageRegistry,
        upstreams: Upstreams,
        events: Events,
    ) -> None:
        self._records = records
        self._upstreams = upstreams
        self._events = events
        self._parts = _Parts(records, keeping, registry, upstreams)

    async def pull(
        self, tenant: str, reference: Reference, platform: Platform | None, credentials: Credentials
    ) -> AsyncIterator[Line]:
        """Docker's lines. Raises before the first one what can be told by an HTTP status, and DockerError after it.

        A reference with neither tag nor digest pulls every tag, as in moby.
        """
        if reference.familiar_name == "scratch":
            raise Forbidden("'scratch' is a reserved name")
        wanted = [reference]
        if reference.name_only:
            wanted = await self._every_tag(reference, credentials)
        newer = False
        for one in wanted:
            pull = _Pull(self._parts, tenant, one, platform, credentials)
            async for line in pull.lines():
                yield line
            newer = newer or pull.newer
        word = "Downloaded newer image for" if newer else "Image is up to date for"
        yield status_line(f"Status: {word} {reference.familiar}")
        for line in await self._mismatch(tenant, wanted, platform):
            yield line
        await self._told(tenant, wanted[0] if wanted else reference, reference)

    async def _mismatch(self, tenant: str, wanted: list[Reference], platform: Platform | None) -> list[Line]:
        """moby's warning when a single-platform image is of another platform than asked for."""
        if platform is None:
            return []
        lines = []
        for one in wanted:
            image = await self._records.by_reference(tenant, one)
            if image is None or runs_on(platform_of(image), platform):
                continue
            lines.append(
                status_line(
                    f"WARNING: image with reference {one.familiar} was found but its platform "
                    f"({platform_of(image)}) does not match the specified platform ({platform})"
                )
            )
        return lines

    async def _told(self, tenant: str, first: Reference, reference: Reference) -> None:
        image = await self._records.by_reference(tenant, first)
        attributes = labels_of(image) if image is not None else {}
        attributes["name"] = reference.familiar_name
        await self._events.publish(tenant, "image", "pull", reference.familiar, attributes)

    async def _every_tag(self, reference: Reference, credentials: Credentials) -> list[Reference]:
        try:
            tags = await self._upstreams.tags(reference, credentials)
        except RegistryError as error:
            raise translate(error, reference) from error
        return [reference.with_tag(tag) for tag in tags]


class _Pull:
    """One image on its way."""

    def __init__(
        self,
        parts: _Parts,
        tenant: str,
        reference: Reference,
        platform: Platform | None,
        credentials: Credentials,
    ) -> None:
        self._parts = parts
        self._tenant = tenant
        self._reference = reference
        self._platform = platform
        self._credentials = credentials
        self._lines: asyncio.Queue[Line | None] = asyncio.Queue()
        self.newer = False
        """Whether anything came that was not here before."""

    async def lines(self) -> AsyncIterator[Line]:
        reference = self._reference
        name = str(reference) if reference.digest else reference.tag or ""
        current = await self._parts.records.by_reference(self._tenant, reference)
        digest = await self._unchanged(current)
        if digest is not None:
            yield status_line(f"Pulling from {reference.path}", name)
            yield status_line(f"Digest: {digest}")
            return
        remote = await self._find()
        yield status_line(f"Pulling from {reference.path}", name)
        work = asyncio.create_task(self._copy(remote, current))
        work.add_done_callback(lambda _: self._lines.put_nowait(None))
        try:
            while (line := await self._lines.get()) is not None:
                yield line
            await work
        finally:
            # The client is gone: nobody waits for the image any more, as with dockerd.
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        yield status_line(f"Digest: {remote.digest}")

    async def _unchanged(self, current: Image | None) -> str | None:
        """The digest when the reference names what the tenant has already: then nothing is fetched."""
        if current is None or (self._platform is not None and not runs_on(platform_of(current), self._platform)):
            return None
        try:
            digest = await self._parts.upstreams.digest(self._reference, self._credentials)
        except RegistryError as error:
            raise translate(error, self._reference) from error
        known = f"{self._reference.familiar_name}@{digest}"
        return digest if known in current.repo_digests else None

    async def _find(self) -> RemoteImage:
        wanted = self._platform or DEFAULT
        try:
            return await self._parts.upstreams.find(self._reference, wanted, self._credentials)
        except RegistryError as error:
            raise translate(error, self._reference) from error

    async def _copy(self, remote: RemoteImage, current: Image | None) -> None:
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                config = await remote.config()
                image = await self._stored(remote, config)
        except RegistryError as error:
            raise translate(error, self._reference) from error
        except TimeoutError:
            raise ServerError(f"pulling took longer than {_DEADLINE_SECONDS:.0f} seconds") from None
        self.newer = current is None or current.id != image.id
        reference = self._reference
        tags = [f"{reference.familiar_name}:{reference.tag}"] if reference.digest is None else []
        update = {
            "tags": tags,
            "repo_digests": [f"{reference.familiar_name}@{remote.digest}"],
            "tagged_at": now() if tags else image.tagged_at,
        }
        await self._parts.records.record(image.model_copy(update=update))

    async def _stored(self, remote: RemoteImage, config: bytes) -> Image:
        """The image's document, its blobs in our registry."""
        present = await self._parts.records.get(self._tenant, sha256(config))
        if present is not None:
            return present
        manifest = remote.manifest
        repository = self._parts.registry.repository(self._tenant, self._reference)
        # Judged before a single layer is fetched.
        image = described(self._tenant, repository, config, manifest.layers, manifest.digest)
        await self._parts.keeping.layers(
            self._tenant, repository, manifest.layers, self._blob(remote), self._lines.put_nowait, PULL
        )
        await self._parts.keeping.finish(repository, config, manifest.raw, manifest.media_type)
        return image

    def _blob(self, remote: RemoteImage) -> Blob:
        async def blob(layer: Descriptor, progress: Progress) -> AsyncIterator[bytes]:
            try:
                async for chunk in remote.blob(layer, progress):
                    yield chunk
            except RegistryError as error:
                raise translate(error, self._reference) from error

        return blob


def translate(error: RegistryError, reference: Reference) -> DockerError:
    """A registry's refusal in moby's words and statuses."""
    name = reference.familiar_name
    if error.code == "DENIED":
        return NotFound(
            f"pull access denied for {name}, repository does not exist or may require 'docker login': {error}"
        )
    if error.code == "MANIFEST_UNKNOWN":
        return NotFound(f"manifest for {reference.familiar} not found: {error}")
    if error.code == "NAME_UNKNOWN":
        return NotFound(f"repository {name} not found: {error}")
    return ServerError(str(error))


def platform_of(image: Image) -> Platform:
    """The platform an image is for."""
    return normalize(image.os, image.architecture, str(image.config.get("variant") or ""))


def labels_of(image: Image) -> dict[str, str]:
    """The labels of the image's configuration."""
    labels = (image.config.get("config") or {}).get("Labels")
    return {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}
