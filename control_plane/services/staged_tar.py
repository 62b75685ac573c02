"""Reads back what was put into a container before its start: the image's files with the archives laid over them."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from control_plane.services.tar_entries import END, entries, has_content, header, padding
from control_plane.services.tar_index import DIRECTORY, entry_path


async def overlaid(
    path: str,
    found: Mapping[str, Any],
    image: AsyncIterator[bytes] | None,
    staged: Iterable[tuple[str, AsyncIterator[bytes]]],
) -> AsyncIterator[bytes]:
    """The tar of `path`, as Docker's archive GET names its entries (the last component and what is below).

    `image` is the image's own tar of it, `staged` the extraction points and archives in their order. An entry that is
    there twice counts as it comes last, as when the archives are unpacked one after the other.
    """
    name = posixpath.basename(path) or "/"
    if image is not None:
        async for piece in _copied(image, lambda info: info):
            yield piece
    elif found["mode"] & DIRECTORY:
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        yield header(folder)
    for point, archive in staged:
        move = _Move(path, name, point)
        async for piece in _copied(archive, move):
            yield piece
    yield END


class _Move:
    """Renames an archive's entry to its place in the answer; None when it is elsewhere."""

    def __init__(self, path: str, name: str, point: str) -> None:
        self._path, self._name, self._point = path, name, point

    def __call__(self, info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        moved = self._moved(posixpath.join(self._point, entry_path(info)))
        if moved is None:
            return None
        if info.islnk():
            target = self._moved(posixpath.normpath(posixpath.join(self._point, info.linkname.lstrip("/"))))
            if target is None:
                return None
            info.linkname = target
        info.name = moved
        info.pax_headers = {key: value for key, value in info.pax_headers.items() if key not in {"path", "linkpath"}}
        return info

    def _moved(self, place: str) -> str | None:
        place = posixpath.normpath(place)
        if place == self._path:
            return self._name
        folder = self._path.rstrip("/") + "/"
        return posixpath.join(self._name, place[len(folder) :]) if place.startswith(folder) else None


async def _copied(tar: AsyncIterator[bytes], place: Any) -> AsyncIterator[bytes]:
    keep, fill = False, b""
    async for item in entries(tar):
        if isinstance(item, tarfile.TarInfo):
            if fill:
                yield fill
            size = item.size if has_content(item) else 0
            info = place(item)
            keep = info is not None
            fill = padding(size) if keep else b""
            if info is not None:
                yield header(info)
        elif keep:
            yield item
    if fill:
        yield fill
