"""Image documents: found by name, digest and id; tags moved between them.

One document per image id. A tag is in one document of a tenant; while it moves, and after a crash in between, the
document tagged last counts.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress

from control_plane.errors import InvalidParameter, NotFound
from control_plane.model import Image
from control_plane.registry.reference import Reference, parse_any
from control_plane.services.records import Records
from control_plane.store.base import AlreadyExists
from control_plane.timestamps import now

_CACHE_SIZE = 20_000
_id_prefix = re.compile(r"(?:sha256:)?([a-f0-9]{1,64})")

Everything = Callable[[], Awaitable[list[Image]]]


class ImageRecords:
    """The tenants' images. Keys are image ids, `sha256:…`."""

    def __init__(self, records: Records[Image]) -> None:
        self._records = records
        self._places: dict[tuple[str, str], str] = {}
        """(tenant, familiar reference) → image id as last seen: a hint, checked by reading that document."""

    async def all(self, tenant: str) -> list[Image]:
        """All the tenant's images."""
        return await self._records.list(tenant)

    async def get(self, tenant: str, image_id: str) -> Image | None:
        """By whole id."""
        return await self._records.get(tenant, image_id)

    async def by_reference(
        self, tenant: str, reference: Reference, everything: Everything | None = None
    ) -> Image | None:
        """The image a tag or digest names. A digest counts before a tag, as in moby.

        `everything` gives all the tenant's images to whoever asks for several.
        """
        wanted = reference.tagged()
        if wanted.digest is not None:
            wanted = Reference(wanted.domain, wanted.path, None, wanted.digest)
        familiar = wanted.familiar
        hint = self._places.get((tenant, familiar))
        if hint is not None:
            image = await self.get(tenant, hint)
            if image is not None and familiar in (*image.tags, *image.repo_digests):
                return image
        images = await (self.all(tenant) if everything is None else everything())
        holders = [image for image in images if familiar in (*image.tags, *image.repo_digests)]
        if not holders:
            self._places.pop((tenant, familiar), None)
            return None
        found = max(holders, key=lambda image: (image.tagged_at, image.id))
        self._remember(tenant, familiar, found.id)
        return found

    async def ids(self, tenant: str, texts: Collection[str]) -> dict[str, str]:
        """The ids of the images that these mean now, by text; all the tenant's images are read once at most."""
        images: list[Image] | None = None

        async def everything() -> list[Image]:
            nonlocal images
            if images is None:
                images = await self.all(tenant)
            return images

        found = {}
        for text in texts:
            with suppress(NotFound, InvalidParameter):
                found[text] = (await self.resolve(tenant, text, everything)).id
        return found

    async def resolve(self, tenant: str, text: str, everything: Everything | None = None) -> Image:
        """By name, name@digest, id or id prefix. Raises InvalidParameter on a malformed name, NotFound."""
        parsed = parse_any(text)
        if isinstance(parsed, str):
            image = await self.get(tenant, parsed)
            if image is None:
                raise NotFound(f"No such image: {parsed}")
            return image
        image = await self.by_reference(tenant, parsed, everything)
        if image is None and (match := _id_prefix.fullmatch(text)):
            found = await self._records.find(tenant, f"sha256:{match[1]}", 2)
            image = found[0] if len(found) == 1 else None
        if image is None:
            raise NotFound(f"No such image: {parsed.tagged().familiar}")
        return image

    async def record(self, image: Image) -> Image:
        """Keeps a new image; one already there only gets the other's tags and digests."""

        def merge(current: Image) -> Image:
            return current.model_copy(
                update={
                    "tags": _with(current.tags, *image.tags),
                    "repo_digests": _with(current.repo_digests, *image.repo_digests),
                    "tagged_at": image.tagged_at if image.tags else current.tagged_at,
                }
            )

        while True:
            kept = await self._records.update(image.tenant, image.id, merge)
            if kept is None:
                try:
                    kept = await self._records.create(image.tenant, image.id, image)
                except AlreadyExists:
                    continue
            for tag in image.tags:
                await self._take_from_others(image.tenant, image.id, tag)
            return kept

    async def tag(self, image: Image, reference: Reference) -> Image | None:
        """Gives the tag to the image and takes it from whichever had it. None when the image is gone."""
        familiar = reference.familiar

        def add(current: Image) -> Image:
            return current.model_copy(update={"tags": _with(current.tags, familiar), "tagged_at": now()})

        tagged = await self._records.update(image.tenant, image.id, add)
        if tagged is not None:
            await self._take_from_others(image.tenant, image.id, familiar)
        return tagged

    async def untag(self, image: Image, *references: str) -> Image | None:
        """Takes tags and digests from the image. Repeatable."""
        gone = set(references)

        def drop(current: Image) -> Image:
            return current.model_copy(
                update={
                    "tags": [one for one in current.tags if one not in gone],
                    "repo_digests": [one for one in current.repo_digests if one not in gone],
                }
            )

        return await self._records.update(image.tenant, image.id, drop)

    async def set_agent_digest(self, image: Image, digest: str) -> Image | None:
        """Records the derived manifest. None when the image is gone."""
        return await self._records.update(
            image.tenant, image.id, lambda current: current.model_copy(update={"agent_digest": digest})
        )

    async def delete(self, image: Image) -> bool:
        """Deletes the document; False when it is gone already."""
        return await self._records.delete(image.tenant, image.id)

    async def holders(self, tenant: str, familiar: str) -> list[Image]:
        """The images that have the tag: one, unless a tag is on its way."""
        return [image for image in await self.all(tenant) if familiar in image.tags]

    async def _take_from_others(self, tenant: str, image_id: str, tag: str) -> None:
        self._remember(tenant, tag, image_id)
        for other in await self.holders(tenant, tag):
            if other.id != image_id:
                await self.untag(other, tag)

    def _remember(self, tenant: str, familiar: str, image_id: str) -> None:
        if len(self._places) >= _CACHE_SIZE:
            self._places.clear()
        self._places[tenant, familiar] = image_id


def _with(present: list[str], *added: str) -> list[str]:
    return list(dict.fromkeys((*present, *added)))
