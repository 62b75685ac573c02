"""`docker rmi` and `docker image prune`: moby's rules of references, conflicts and rows.

One difference, and it is that of moby's containerd image store: an image that stopped containers use is only untagged
by force, so that those containers can be started again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from control_plane.errors import Conflict, DockerError, InvalidParameter
from control_plane.model import Container, Image
from control_plane.registry.base import ImageRegistry, RegistryError
from control_plane.registry.manifest import short_id
from control_plane.registry.reference import parse_named
from control_plane.services.events import Events
from control_plane.services.filters import Filters
from control_plane.services.image_pulls import labels_of
from control_plane.services.image_records import ImageRecords
from control_plane.services.image_views import chain_ids
from control_plane.services.records import Records
from control_plane.timestamps import nanoseconds

_log = logging.getLogger(__name__)

Row = dict[str, str]
_RUNNING = {"starting", "running", "paused", "restarting"}
_PRUNE_FILTERS = {"dangling", "label", "label!", "until"}


class ImageRemoval:
    """Removes references and images."""

    def __init__(
        self, records: ImageRecords, containers: Records[Container], registry: ImageRegistry, events: Events
    ) -> None:
        self._records = records
        self._containers = containers
        self._registry = registry
        self._events = events
        self._pruning: set[str] = set()

    async def remove(self, tenant: str, text: str, *, force: bool) -> list[Row]:
        """The rows of `docker rmi`: `Untagged`, `Deleted`. Raises NotFound, Conflict with moby's texts."""
        image = await self._records.resolve(tenant, text)
        users = await self._users(image)
        if _is_id(image.id, text):
            return await self._by_id(image, users, force)
        return await self._by_reference(image, text, users, force)

    async def _by_id(self, image: Image, users: list[Container], force: bool) -> list[Row]:
        rows: list[Row] = []
        quiet = False
        if single_reference(_references(image)):
            _refuse(image, users, running=True, stopped=not force, referenced=False)
            image = await self._untag(image, _references(image), rows)
        await self._delete(image, users, rows, force, quiet)
        return rows

    async def _by_reference(self, image: Image, text: str, users: list[Container], force: bool) -> list[Row]:
        if not force and single_reference(_references(image)) and users:
            raise Conflict(
                f'conflict: unable to remove repository reference "{text}" (must force) - container '
                f"{users[0].id[:12]} is using its referenced image {short_id(image.id)}"
            )
        named = parse_named(text).tagged()
        gone = f"{named.familiar_name}@{named.digest}" if named.digest else named.familiar
        rows: list[Row] = []
        image = await self._untag(image, [gone], rows)
        if named.digest is None and not any(_name(tag) == named.familiar_name for tag in image.tags):
            # The last tag of a repository takes the repository's digests with it.
            digests = [one for one in image.repo_digests if _name(one) == named.familiar_name]
            image = await self._records.untag(image, *digests) or image
            rows += [{"Untagged": one} for one in digests]
        if not _references(image):
            await self._delete(image, users, rows, force, quiet=True)
        return rows

    async def _untag(self, image: Image, references: list[str], rows: list[Row]) -> Image:
        after = await self._records.untag(image, *references)
        for one in references:
            rows.append({"Untagged": one})
            attributes = {**labels_of(image), "name": image.id}
            await self._events.publish(image.tenant, "image", "untag", image.id, attributes)
        return after or image.model_copy(
            update={
                "tags": [one for one in image.tags if one not in references],
                "repo_digests": [one for one in image.repo_digests if one not in references],
            }
        )

    async def _delete(self, image: Image, users: list[Container], rows: list[Row], force: bool, quiet: bool) -> None:
        """Deletes the image unless something holds it; a quiet deletion keeps silent about that."""
        try:
            _refuse(image, users, running=True, stopped=not force, referenced=not force)
        except Conflict:
            if quiet and (users or _references(image)):
                return
            raise
        if _references(image):
            image = await self._untag(image, _references(image), rows)
        if users:
            # Stopped containers, by force: they keep what they were made of.
            return
        others = [one for one in await self._records.all(image.tenant) if one.id != image.id]
        shared = {chain for one in others for chain in chain_ids(one)}
        if not await self._records.delete(image):
            return
        await self._events.publish(image.tenant, "image", "delete", image.id, {"name": image.id})
        rows.append({"Deleted": image.id})
        rows += [{"Deleted": chain} for chain in reversed(chain_ids(image)) if chain not in shared]
        await self._forget(image)

    async def _forget(self, image: Image) -> None:
        """Takes the manifests out of our registry, which frees their blobs in its own time."""
        for digest in (image.agent_digest, image.manifest_digest):
            if digest is None:
                continue
            try:
                await self._registry.delete_manifest(image.repository, digest)
            except RegistryError as error:
                _log.warning("manifest %s of %s was not deleted: %s", digest, image.repository, error)

    async def _users(self, image: Image) -> list[Container]:
        return [one for one in await self._containers.list(image.tenant) if one.image_id == image.id]

    async def prune(self, tenant: str, filters: Mapping[str, Sequence[str]]) -> dict[str, object]:
        """`{"ImagesDeleted": rows or None, "SpaceReclaimed": bytes}`."""
        if tenant in self._pruning:
            raise Conflict("a prune operation is already running")
        self._pruning.add(tenant)
        try:
            return await self._prune(tenant, Filters(filters, _PRUNE_FILTERS))
        finally:
            self._pruning.discard(tenant)

    async def _prune(self, tenant: str, filters: Filters) -> dict[str, object]:
        dangling = filters.flag("dangling", default=True)
        until = filters.until()
        rows: list[Row] = []
        reclaimed = 0
        for image in await self._records.all(tenant):
            created = nanoseconds(image.created_at)
            if until is not None and (not created or created > until):
                continue
            if not filters.prunable(labels_of(image)) or (dangling and image.tags):
                continue
            deleted = await self._prune_one(image)
            rows += deleted
            sizes = dict(zip(chain_ids(image), (int(layer["size"]) for layer in image.layers), strict=False))
            reclaimed += sum(sizes.get(row.get("Deleted", ""), 0) for row in deleted)
        await self._events.publish(tenant, "image", "prune", "", {"reclaimed": str(reclaimed)})
        return {"ImagesDeleted": rows or None, "SpaceReclaimed": reclaimed}

    async def _prune_one(self, image: Image) -> list[Row]:
        """Reference by reference, as a user would; what is in use stays."""
        rows: list[Row] = []
        for text in _references(image) or [image.id]:
            try:
                rows += await self.remove(image.tenant, text, force=False)
            except DockerError as error:
                if not isinstance(error, Conflict | InvalidParameter):
                    _log.debug("image %s was not pruned: %s", text, error.message)
        return rows


def _references(image: Image) -> list[str]:
    return [*image.tags, *image.repo_digests]


def _name(reference: str) -> str:
    """The repository of a familiar reference."""
    bare = reference.partition("@")[0]
    last = bare.rpartition("/")[2]
    return bare[: len(bare) - len(last)] + last.partition(":")[0]


def single_reference(references: Sequence[str]) -> bool:
    """Whether all references are of one repository with at most one tag. False for none."""
    if len(references) <= 1:
        return len(references) == 1
    tags = [one for one in references if "@" not in one]
    digests = {_name(one) for one in references if "@" in one}
    if len(tags) > 1:
        return False
    first = _name(tags[0] if tags else references[0])
    return digests == {first}


def _is_id(image_id: str, text: str) -> bool:
    return image_id.startswith(text) or image_id.partition(":")[2].startswith(text)


def _refuse(image: Image, users: list[Container], *, running: bool, stopped: bool, referenced: bool) -> None:
    """Raises moby's conflict for the first thing that holds the image."""
    active = [one for one in users if one.state.status in _RUNNING]
    idle = [one for one in users if one.state.status not in _RUNNING]
    what = f"conflict: unable to delete {short_id(image.id)}"
    if running and active:
        raise Conflict(f"{what} (cannot be forced) - image is being used by running container {active[0].id[:12]}")
    if referenced and _references(image):
        raise Conflict(f"{what} (must be forced) - image is referenced in multiple repositories")
    if stopped and idle:
        raise Conflict(f"{what} (must be forced) - image is being used by stopped container {idle[0].id[:12]}")
