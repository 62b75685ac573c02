"""Bringing an image's blobs into our registry, once, for pulls and loads alike.

A layer counts as already there only when an image of the same tenant has it: whoever only knows the digest of another
tenant's layer has to bring its bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from control_plane.errors import DockerError, InvalidParameter, ServerError
from control_plane.model import ZERO_TIME, Image
from control_plane.registry.base import ImageRegistry, Progress, RegistryError
from control_plane.registry.manifest import Descriptor, read_config, sha256, short_id
from control_plane.registry.platform import normalize
from control_plane.services.image_records import ImageRecords
from control_plane.services.progress import Line, progress_line
from control_plane.timestamps import nanoseconds

T = TypeVar("T")

Say = Callable[[Line], None]
Blob = Callable[[Descriptor, Progress], AsyncIterator[bytes]]

CONCURRENT_LAYERS = 3
"""dockerd's default of concurrent downloads."""
_UPDATE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class LayerWords:
    """What Docker says of a layer on its way."""

    present: str
    announced: str
    moving: str
    finished: tuple[str, ...]


PULL = LayerWords(
    "Already exists", "Pulling fs layer", "Downloading", ("Verifying Checksum", "Download complete", "Pull complete")
)
LOAD = LayerWords("Already exists", "", "Loading layer", ())


class ImageKeeping:
    """Copies layers, configuration and manifest; leaves the record to its caller."""

    def __init__(self, records: ImageRecords, registry: ImageRegistry) -> None:
        self._records = records
        self._registry = registry

    async def layers(
        self, tenant: str, repository: str, layers: tuple[Descriptor, ...], blob: Blob, say: Say, words: LayerWords
    ) -> None:
        """Copies the layers, some at a time; `say` is told Docker's progress lines."""
        known = await self._known(tenant)
        unique = list({layer.digest: layer for layer in layers}.values())
        free = asyncio.Semaphore(CONCURRENT_LAYERS)
        missing = []
        for layer in unique:
            if await self._present(repository, layer, known.get(layer.digest)):
                say(progress_line(short_id(layer.digest), words.present))
            else:
                missing.append(layer)
                if words.announced:
                    say(progress_line(short_id(layer.digest), words.announced))
        try:
            async with asyncio.TaskGroup() as group:
                for layer in missing:
                    group.create_task(self._copy(repository, layer, blob, say, words, free))
        except* DockerError as errors:
            raise _first(errors) from None

    async def _copy(
        self, repository: str, layer: Descriptor, blob: Blob, say: Say, words: LayerWords, free: asyncio.Semaphore
    ) -> None:
        name = short_id(layer.digest)
        if free.locked() and words.announced:
            say(progress_line(name, "Waiting"))
        async with free:
            last = 0.0

            def progress(received: int) -> None:
                nonlocal last
                moment = time.monotonic()
                if moment - last >= _UPDATE_SECONDS or received == layer.size:
                    last = moment
                    say(progress_line(name, words.moving, received, layer.size))

            await self._stored(self._registry.put_blob(repository, layer.digest, blob(layer, progress)))
        for word in words.finished:
            say(progress_line(name, word))

    async def finish(self, repository: str, config: bytes, manifest: bytes, media_type: str) -> str:
        """Stores configuration and manifest, in that order; returns the manifest's digest."""
        await self._stored(self._registry.put_bytes(repository, config))
        return await self._stored(self._registry.put_manifest(repository, manifest, media_type))

    async def _known(self, tenant: str) -> Mapping[str, str]:
        """Layers the tenant has: digest → repository."""
        return {
            str(layer["digest"]): image.repository
            for image in await self._records.all(tenant)
            for layer in image.layers
        }

    async def _present(self, repository: str, layer: Descriptor, source: str | None) -> bool:
        if source is None:
            return False
        if source != repository and await self._stored(self._registry.mount_blob(repository, layer.digest, source)):
            return True
        return await self._stored(self._registry.has_blob(repository, layer.digest))

    async def _stored(self, operation: Awaitable[T]) -> T:
        try:
            return await operation
        except RegistryError as error:
            # What a user's registry or archive did wrong comes as DockerError from `blob`; this is ours.
            raise ServerError("the image could not be stored in the registry", internal=str(error)) from error


def described(
    tenant: str, repository: str, config: bytes, layers: tuple[Descriptor, ...], manifest_digest: str
) -> Image:
    """The image's document, without tags. Raises InvalidParameter for a configuration that does not fit the layers."""
    document = read_config(config, len(layers))
    platform = normalize(str(document.get("os") or "linux"), str(document.get("architecture") or "amd64"))
    if platform.os != "linux":
        raise InvalidParameter(f'image operating system "{platform.os}" cannot be used on this platform')
    return Image(
        id=sha256(config),
        tenant=tenant,
        created_at=_created(document),
        repository=repository,
        manifest_digest=manifest_digest,
        architecture=platform.architecture,
        os=platform.os,
        config=document,
        layers=[layer.document() for layer in layers],
        size=sum(layer.size for layer in layers),
    )


def _created(document: Mapping[str, Any]) -> str:
    text = document.get("created")
    try:
        return text if isinstance(text, str) and nanoseconds(text) else ZERO_TIME
    except (ValueError, OverflowError):
        return ZERO_TIME


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first single error of a group."""
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
