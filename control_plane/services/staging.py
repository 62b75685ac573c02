"""Files put into a container that no agent holds yet: kept as archives, seen by stat, delivered before the start."""

from __future__ import annotations

import posixpath
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from control_plane.errors import Conflict, InvalidParameter, NotFound
from control_plane.model import Container, Image, StagedArchive
from control_plane.services.ports import Agents, Blobs
from control_plane.services.records import Records
from control_plane.services.run_settings import RunSettings
from control_plane.services.staged_tar import overlaid
from control_plane.services.tar_index import (
    DIRECTORY,
    SYMLINK,
    Entry,
    TarIndex,
    directory_stat,
    find_entry,
    indexed,
)

_MOST_ARCHIVES = 200
_MOST_INDEXED = 2000
"""Index entries of all of a container's archives: its document must stay small."""
_LINK_DEPTH = 10


class ImageFiles(Protocol):
    """`services.images.Images`, as far as it is needed here."""

    async def stat(self, image: Image, path: str) -> dict[str, Any]:
        """Docker's PathStat of a path in the image. Raises NotFound."""
        ...

    def read(self, image: Image, path: str) -> AsyncIterator[bytes]:
        """A path of the image as the tar that Docker's archive GET gives."""
        ...


class Staging:
    """Archives stay until the container is removed: every fresh file system of it gets them, in order."""

    def __init__(
        self,
        containers: Records[Container],
        images: Records[Image],
        files: ImageFiles,
        blobs: Blobs,
        agents: Agents,
        settings: RunSettings,
    ) -> None:
        self._containers = containers
        self._images = images
        self._files = files
        self._blobs = blobs
        self._agents = agents
        self._settings = settings

    async def put(self, container: Container, path: str, params: Mapping[str, bool], tar: AsyncIterator[bytes]) -> bool:
        """Keeps an archive for `path`; answers once it is stored. False when the container was started meanwhile.

        Raises InvalidParameter when it is no tar, NotFound when `path` does not exist.
        """
        await self._check_target(container, path)
        if len(container.staged) >= _MOST_ARCHIVES:
            raise Conflict(f"{_MOST_ARCHIVES} archives wait for the container's start: start it, then copy")
        index = TarIndex()
        key = f"staged/{container.tenant}/{container.id}/{secrets.token_hex(8)}"
        size = await self._blobs.put(key, indexed(index, tar, self._settings.staged_limit))
        known = sum(len(archive.params.get("index") or {}) for archive in container.staged)
        entries = index.entries if index.entries and known + len(index.entries) <= _MOST_INDEXED else None
        archive = StagedArchive(blob=key, path=path, size=size, params={**params, "index": entries})
        kept = False

        def change(current: Container) -> Container | None:
            nonlocal kept
            kept = current.state.status == "created"
            return current.model_copy(update={"staged": [*current.staged, archive]}) if kept else None

        await self._containers.update(container.tenant, container.id, change)
        if not kept:
            await self._blobs.delete(key)
        return kept

    async def _check_target(self, container: Container, path: str) -> None:
        """moby's conditions for an extraction."""
        found = await self.stat(container, path)
        for _ in range(_LINK_DEPTH):
            if found is None or not found["mode"] & SYMLINK:
                break
            target = posixpath.join(posixpath.dirname(_clean(path)), found["linkTarget"])
            found = await self.stat(container, target)
        if found is None:
            raise NotFound(f"Could not find the file {path} in container {container.name}")
        if not found["mode"] & DIRECTORY:
            raise InvalidParameter("extraction point is not a directory")
        for mount in container.mounts:
            if _within(_clean(path), mount.destination):
                if mount.read_only:
                    raise InvalidParameter("mounted volume is marked read-only")
                return
        if container.host_config.get("ReadonlyRootfs"):
            raise InvalidParameter("container rootfs is marked read-only")

    async def stat(self, container: Container, path: str) -> dict[str, Any] | None:
        """Docker's PathStat of what the container will have at `path` when it starts, None when nothing."""
        clean = _clean(path)
        for archive in reversed(container.staged):
            base = _clean(archive.path)
            if clean != base and _within(clean, base):
                entry = find_entry(await self._index(archive), posixpath.relpath(clean, base))
                if entry is not None:
                    return entry
        found = await self._in_image(container, clean)
        if found is not None:
            return found
        # Docker makes the working directory and the mounts' targets, with their parents.
        made = [mount.destination for mount in container.mounts] + [container.config.get("WorkingDir") or "/"]
        if any(_within(_clean(target), clean) for target in made):
            return directory_stat(posixpath.basename(clean) or "/")
        return None

    async def _index(self, archive: StagedArchive) -> Mapping[str, Entry]:
        known: Mapping[str, Entry] | None = archive.params.get("index")
        if known is not None:
            return known
        # Too large for the container's document: read again, which costs the archive's bytes and is rare.
        index = TarIndex(limit=sys.maxsize)
        async for chunk in self._blobs.get(archive.blob):
            index.feed(chunk)
        return index.entries or {}

    async def read(self, container: Container, path: str) -> tuple[dict[str, Any], AsyncIterator[bytes]]:
        """PathStat and tar of a path of a container that has not started. Raises NotFound."""
        clean = _clean(path)
        found = await self.stat(container, path)
        if found is None:
            raise NotFound(f"Could not find the file {path} in container {container.name}")
        in_image = await self._in_image(container, clean) is not None
        image = self._files.read(await self._image(container), clean) if in_image else None
        touching = [archive for archive in container.staged if _touches(archive, clean)]
        if image is not None and not touching:
            return found, image
        staged = [(_clean(archive.path), self._blobs.get(archive.blob)) for archive in touching]
        return found, overlaid(clean, found, image, staged)

    async def _in_image(self, container: Container, path: str) -> dict[str, Any] | None:
        image = await self._image(container)
        try:
            return await self._files.stat(image, path)
        except NotFound:
            return None

    async def _image(self, container: Container) -> Image:
        image = await self._images.get(container.tenant, container.image_id)
        if image is None:
            raise NotFound(f"No such image: {container.image}")
        return image

    async def deliver(self, container: Container, spec: Mapping[str, Any]) -> None:
        """Pushes the archives to the agent of a fresh file system. Raises DockerError."""
        if container.mounts:
            # What is meant for a volume must not land below its mount.
            await self._agents.call(container, "prepare", {"spec": spec})
        for archive in container.staged:
            params = {key: value for key, value in archive.params.items() if key != "index"}
            stream = await self._agents.open(container, "archive_put", {"path": archive.path, **params})
            try:
                async for chunk in self._blobs.get(archive.blob):
                    await stream.send(chunk)
                await stream.send_eof()
                await stream.result()
            finally:
                await stream.close()


def _clean(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _touches(archive: StagedArchive, path: str) -> bool:
    """Whether the archive may change what is at or below `path`."""
    base = _clean(archive.path)
    index = archive.params.get("index")
    if index is None:
        return _within(base, path) or _within(path, base)
    return any(
        _within(posixpath.join(base, name), path) or (name and _within(path, posixpath.join(base, name)))
        for name in index
    )
