"""`docker load`: the images of an archive into our registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from control_plane.errors import InvalidParameter
from control_plane.registry.base import ArchivedImage, ImageArchives, ImageRegistry
from control_plane.registry.manifest import Descriptor, sha256, write
from control_plane.registry.platform import Platform
from control_plane.registry.reference import Reference, parse_named
from control_plane.services.events import Events
from control_plane.services.image_keeping import LOAD, ImageKeeping, described
from control_plane.services.image_pulls import labels_of
from control_plane.services.image_records import ImageRecords
from control_plane.services.progress import Line, stream_line


class ImageLoads:
    """Loads archives."""

    def __init__(
        self,
        records: ImageRecords,
        keeping: ImageKeeping,
        registry: ImageRegistry,
        archives: ImageArchives,
        events: Events,
    ) -> None:
        self._records = records
        self._keeping = keeping
        self._registry = registry
        self._archives = archives
        self._events = events

    async def load(
        self, tenant: str, content: AsyncIterator[bytes], platform: Platform | None, *, quiet: bool
    ) -> AsyncIterator[Line]:
        """Docker's lines: `Loaded image: x:y`, or the ids when the archive names no tag at all."""
        async with self._archives.open(content, platform) as images:
            parsed = [[_tag(text) for text in image.tags] for image in images]
            ids: list[str] = []
            for image, tags in zip(images, parsed, strict=True):
                async for line in self._store(tenant, image, tags, quiet):
                    yield line
                for tag in tags:
                    async for line in self._tag(tenant, sha256(image.config), tag):
                        yield line
                ids.append(sha256(image.config))
                await self._told(tenant, ids[-1])
            if not any(parsed):
                for one in ids:
                    yield stream_line(f"Loaded image ID: {one}\n")

    async def _store(
        self, tenant: str, image: ArchivedImage, tags: list[Reference], quiet: bool
    ) -> AsyncIterator[Line]:
        image_id = sha256(image.config)
        if await self._records.get(tenant, image_id) is not None:
            return
        name = tags[0] if tags else Reference("loaded", image_id.partition(":")[2])
        repository = self._registry.repository(tenant, name)
        config = Descriptor("", image_id, len(image.config))
        manifest, media_type = write(config, [layer.document() for layer in image.layers])
        record = described(tenant, repository, image.config, image.layers, sha256(manifest))
        lines: asyncio.Queue[Line | None] = asyncio.Queue()
        work = asyncio.create_task(
            self._keeping.layers(tenant, repository, image.layers, image.blob, lines.put_nowait, LOAD)
        )
        work.add_done_callback(lambda _: lines.put_nowait(None))
        try:
            while (line := await lines.get()) is not None:
                if not quiet:
                    yield line
            await work
        finally:
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        await self._keeping.finish(repository, image.config, manifest, media_type)
        await self._records.record(record)

    async def _tag(self, tenant: str, image_id: str, tag: Reference) -> AsyncIterator[Line]:
        image = await self._records.get(tenant, image_id)
        if image is None:
            raise InvalidParameter(f"image {image_id} was removed while it was loaded")
        for holder in await self._records.holders(tenant, tag.familiar):
            if holder.id != image_id:
                yield stream_line(
                    f"The image {tag.familiar} already exists, "
                    f"renaming the old one with ID {holder.id} to empty string\n"
                )
        await self._records.tag(image, tag)
        yield stream_line(f"Loaded image: {tag.familiar}\n")

    async def _told(self, tenant: str, image_id: str) -> None:
        image = await self._records.get(tenant, image_id)
        attributes = labels_of(image) if image is not None else {}
        await self._events.publish(tenant, "image", "load", image_id, {**attributes, "name": image_id})


def _tag(text: str) -> Reference:
    reference = parse_named(text)
    if reference.tag is None or reference.digest is not None:
        raise InvalidParameter(f'invalid tag "{text}"')
    return reference
