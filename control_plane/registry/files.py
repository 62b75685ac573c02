"""Looking into an image without running it: stat and copy out of its layers."""

from __future__ import annotations

import asyncio
import posixpath
import tarfile
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, ParamSpec, Protocol, TypeVar

from control_plane.errors import NotFound, ServerError
from control_plane.model import Image
from control_plane.registry.base import RegistryError
from control_plane.registry.layerindex import LayerIndex, MergedTree, Place, index
from control_plane.registry.tarsource import ArchiveError, ForwardReader, compression, decompress, members

P = ParamSpec("P")
T = TypeVar("T")

_UNPACKED_LIMIT = 64 * 1024**3
_KEPT_ENTRIES = 200_000
_COUNT_LIMIT = 2_000_000
_PIECE = 1024 * 1024

# Go's os.FileMode bits, as Docker's PathStat has them.
_GO_DIR, _GO_SYMLINK, _GO_DEVICE, _GO_PIPE = 1 << 31, 1 << 27, 1 << 26, 1 << 25
_GO_SETUID, _GO_SETGID, _GO_CHARACTER, _GO_STICKY = 1 << 23, 1 << 22, 1 << 21, 1 << 20


class LayerBlobs(Protocol):
    """Where layers are read: our registry, or an image of another one."""

    def blob(self, repository: str, digest: str, size: int) -> AsyncIterator[bytes]:
        """A blob's bytes, verified. Raises RegistryError."""
        ...


class RegistryLayerFiles:
    """LayerFiles over our registry. Layers are indexed once and the indexes kept, within a bound, by digest."""

    def __init__(self, registry: LayerBlobs, temporary: Path | None = None) -> None:
        self._registry = registry
        self._temporary = temporary
        self._kept: OrderedDict[str, LayerIndex] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}

    async def stat(self, image: Image, path: str) -> dict[str, Any]:
        """Docker's PathStat of a path; the last link is not followed."""
        tree = await self._tree(image)
        place = _locate(tree, path)
        entry = place.entry
        target = ""
        if entry.issym():
            resolved = tree.resolve(path, follow_last=True)
            target = "/" + (resolved if resolved is not None else entry.linkname.lstrip("/"))
        return {
            "name": posixpath.basename(posixpath.normpath(f"/{path}")) or "/",
            "size": _size(tree, place),
            "mode": go_mode(entry),
            "mtime": _timestamp(entry.mtime),
            "linkTarget": target,
        }

    async def read(self, image: Image, path: str) -> AsyncIterator[bytes]:
        """A tar of a path. Links are kept, hard links as far as both ends are in it."""
        tree = await self._tree(image)
        place = _locate(tree, path)
        name = posixpath.basename(posixpath.normpath(f"/{path}")) or "/"
        with tempfile.TemporaryFile(dir=self._temporary) as out:
            plan = _plan(tree, place, name)
            tar = tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
            for entry in plan.plain:
                tar.addfile(entry)
            for number in sorted(plan.files):
                with tempfile.TemporaryFile(dir=self._temporary) as spool:
                    await self._spool(image, number, spool)
                    await asyncio.to_thread(_guarded, _copy, spool, tar, plan.files[number])
            tar.close()
            out.seek(0)
            while piece := out.read(_PIECE):
                yield piece

    async def _tree(self, image: Image) -> MergedTree:
        return MergedTree([await self._index(image, number) for number in range(len(image.layers))])

    async def _index(self, image: Image, number: int) -> LayerIndex:
        digest = str(image.layers[number]["digest"])
        lock = self._locks.setdefault(digest, asyncio.Lock())
        try:
            async with lock:
                found = self._kept.get(digest)
                if found is None:
                    with tempfile.TemporaryFile(dir=self._temporary) as spool:
                        await self._spool(image, number, spool)
                        found = await asyncio.to_thread(_guarded, _index_file, spool)
                    self._keep(digest, found)
                else:
                    self._kept.move_to_end(digest)
                return found
        finally:
            if not lock.locked():
                self._locks.pop(digest, None)

    def _keep(self, digest: str, found: LayerIndex) -> None:
        self._kept[digest] = found
        while len(self._kept) > 1 and sum(len(one.entries) for one in self._kept.values()) > _KEPT_ENTRIES:
            self._kept.popitem(last=False)

    async def _spool(self, image: Image, number: int, spool: IO[bytes]) -> None:
        layer = image.layers[number]
        try:
            async for chunk in self._registry.blob(image.repository, str(layer["digest"]), int(layer["size"])):
                spool.write(chunk)
        except RegistryError as error:
            raise ServerError("the image's layers cannot be read", internal=str(error)) from error
        spool.seek(0)


class _Plan:
    """What goes into a copy: entries without content first, then files layer by layer."""

    def __init__(self) -> None:
        self.plain: list[tarfile.TarInfo] = []
        self.files: dict[int, dict[int, list[tarfile.TarInfo]]] = {}
        """Layer → offset of the content in it → the entries that get it (more than one with hard links)."""


def _locate(tree: MergedTree, path: str) -> Place:
    # A trailing slash asks for what a link points to, as in moby.
    follow = path.endswith(("/", "/."))
    resolved = tree.resolve(path, follow_last=follow)
    place = tree.find(resolved) if resolved is not None else None
    if place is None or (follow and not place.entry.isdir()):
        raise NotFound(f"Could not find the file {path} in the image")
    return place


def _plan(tree: MergedTree, root: Place, name: str) -> _Plan:
    plan = _Plan()
    places = [root]
    if root.entry.isdir():
        places += tree.below(root.path)
    for place in places:
        rest = place.path[len(root.path) :].strip("/")
        copied = tarfile.TarInfo(f"{name.strip('/')}/{rest}".strip("/") or ".")
        _describe(copied, place.entry)
        source = place
        if place.entry.islnk():
            target = tree.find(place.entry.linkname.strip("/").removeprefix("./"))
            if target is None or not target.entry.isreg():
                continue
            source = target
            _describe(copied, target.entry)
        if source.entry.isreg() and source.layer >= 0:
            copied.size = source.entry.size
            plan.files.setdefault(source.layer, {}).setdefault(source.entry.offset_data, []).append(copied)
        else:
            plan.plain.append(copied)
    return plan


def _describe(copied: tarfile.TarInfo, entry: tarfile.TarInfo) -> None:
    copied.type = tarfile.REGTYPE if entry.isreg() else entry.type
    copied.mode, copied.uid, copied.gid = entry.mode & 0o7777, entry.uid, entry.gid
    copied.uname, copied.gname, copied.mtime = entry.uname, entry.gname, entry.mtime
    copied.devmajor, copied.devminor = entry.devmajor, entry.devminor
    copied.linkname = entry.linkname if entry.issym() else ""
    # Extended attributes go with the file; the other pax records are written anew from the fields.
    copied.pax_headers = {key: text for key, text in entry.pax_headers.items() if key.startswith("SCHILY.xattr.")}


def _reader(spool: IO[bytes]) -> ForwardReader:
    kind = compression(spool.read(8))
    spool.seek(0)
    return ForwardReader(decompress(spool, kind), _UNPACKED_LIMIT)


def _index_file(spool: IO[bytes]) -> LayerIndex:
    return index(_reader(spool))


def _copy(spool: IO[bytes], tar: tarfile.TarFile, wanted: dict[int, list[tarfile.TarInfo]]) -> None:
    """Copies files' contents into the tar."""
    reader = _reader(spool)
    missing = dict(wanted)
    for member in members(reader, _COUNT_LIMIT):
        entries = missing.pop(member.offset_data, None) if member.isreg() else None
        if entries is None:
            continue
        first, *others = entries
        reader.seek(member.offset_data)
        tar.addfile(first, _Content(reader, member.size))
        for other in others:
            other.type, other.linkname, other.size = tarfile.LNKTYPE, first.name, 0
            tar.addfile(other)
    if missing:
        raise ArchiveError("unexpected EOF")


class _Content:
    """A member's content as the file tarfile copies from."""

    def __init__(self, reader: ForwardReader, size: int) -> None:
        self._reader = reader
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        """A tar of a path. Links are kept, hard links as far as both ends are in it."""
        parts = []
        wanted = self._left if size < 0 else min(size, self._left)
        while wanted:
            piece = self._reader.data(wanted)
            if not piece:
                break
            parts.append(piece)
            wanted -= len(piece)
            self._left -= len(piece)
        return b"".join(parts)


def _guarded(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    try:
        return work(*arguments, **named)
    except ArchiveError as error:
        raise ServerError(f"a layer of the image cannot be read: {error}") from error


def _size(tree: MergedTree, place: Place) -> int:
    entry = place.entry
    if entry.islnk():
        target = tree.find(entry.linkname.strip("/").removeprefix("./"))
        return target.entry.size if target is not None else 0
    return 4096 if entry.isdir() else len(entry.linkname) if entry.issym() else entry.size


def go_mode(entry: tarfile.TarInfo) -> int:
    """A tar entry's mode as Go's os.FileMode number."""
    mode = entry.mode & 0o777
    for bit, flag in ((0o4000, _GO_SETUID), (0o2000, _GO_SETGID), (0o1000, _GO_STICKY)):
        if entry.mode & bit:
            mode |= flag
    if entry.isdir():
        mode |= _GO_DIR
    elif entry.issym():
        mode |= _GO_SYMLINK
    elif entry.isfifo():
        mode |= _GO_PIPE
    elif entry.isblk():
        mode |= _GO_DEVICE
    elif entry.ischr():
        mode |= _GO_DEVICE | _GO_CHARACTER
    return mode


def _timestamp(seconds: float) -> str:
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        moment = datetime.fromtimestamp(0, UTC)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{moment.microsecond:06d}".rstrip("0") if moment.microsecond else ""
    return f"{text}{fraction}Z"
