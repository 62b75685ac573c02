"""`docker load`: the images in a tar of `docker save` or an OCI layout.

Nothing is unpacked to a file system: members are read where they lie in the spooled tar, so that names and links in a
hostile archive lead nowhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import tarfile
import tempfile
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from control_plane.errors import InvalidParameter
from control_plane.registry.base import ArchivedImage, Progress
from control_plane.registry.manifest import CONFIG_LIMIT, MANIFEST_LIMIT, OCI_LAYER, Descriptor, read_config
from control_plane.registry.ocilayout import NamedManifest, named_manifests
from control_plane.registry.platform import Platform, normalize, runs_on
from control_plane.registry.spool import spooled
from control_plane.registry.tarsource import (
    ArchiveError,
    ForwardReader,
    Section,
    compression,
    decompress,
    members,
    normal_path,
)

_SIZE_LIMIT = 64 * 1024**3
_COUNT_LIMIT = 100_000
_LINK_LIMIT = 16
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Blob:
    """Where a layer's bytes are."""

    file: IO[bytes]
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """ArchivedImage in a spooled tar."""

    tags: tuple[str, ...]
    config: bytes
    layers: tuple[Descriptor, ...]
    blobs: Mapping[str, _Blob]

    async def blob(self, descriptor: Descriptor, progress: Progress) -> AsyncIterator[bytes]:
        """The bytes of a layer, as they go into the registry."""
        place = self.blobs[descriptor.digest]
        done = 0
        while done < place.size:
            place.file.seek(place.offset + done)
            piece = place.file.read(min(_PIECE, place.size - done))
            if not piece:
                raise InvalidParameter("unexpected EOF")
            done += len(piece)
            progress(done)
            yield piece


class TarArchives:
    """ImageArchives. With `compress` layers are stored as gzip, which costs time here and saves space and transfer."""

    def __init__(self, temporary: Path | None = None, *, compress: bool = False, size_limit: int = _SIZE_LIMIT) -> None:
        self._temporary = temporary
        self._compress = compress
        self._size_limit = size_limit

    @asynccontextmanager
    async def open(
        self, content: AsyncIterator[bytes], platform: Platform | None
    ) -> AsyncIterator[list[ArchivedImage]]:
        """The images of an archive. Raises InvalidParameter, ServerError when the disk is full."""
        with ExitStack() as kept:
            async with spooled(content, self._size_limit, self._temporary) as file:
                reader = _Reader(file, kept, self._temporary, self._compress, self._size_limit)
                try:
                    images = await asyncio.to_thread(reader.images, platform)
                except ArchiveError as error:
                    raise InvalidParameter(str(error)) from error
                yield list(images)


class _Reader:
    """Reads one spooled archive (in a worker thread: hashing and tarfile are synchronous)."""

    def __init__(
        self, file: IO[bytes], kept: ExitStack, temporary: Path | None, compress: bool, size_limit: int
    ) -> None:
        self._file = file
        self._kept = kept
        self._temporary = temporary
        self._compress = compress
        self._size_limit = size_limit
        self._members: dict[str, tarfile.TarInfo] = {}
        self._described: dict[tuple[int, str], tuple[Descriptor, _Blob]] = {}

    def images(self, platform: Platform | None) -> list[LoadedImage]:
        self._file.seek(0)
        for member in members(ForwardReader(self._file, self._size_limit), _COUNT_LIMIT):
            path = normal_path(member.name)
            if path:
                self._members[path] = member
        if "manifest.json" in self._members:
            rows = self._docker_rows()
        elif "index.json" in self._members:
            rows = self._oci_rows(platform)
        else:
            raise ArchiveError(
                "invalid archive: it has neither manifest.json (docker save) nor index.json (OCI layout)"
            )
        return [image for row in rows if (image := self._image(row, platform)) is not None]

    def _docker_rows(self) -> list[NamedManifest]:
        rows = self._json("manifest.json", MANIFEST_LIMIT)
        if rows is None:
            raise ArchiveError("invalid manifest, manifest cannot be null (but can be [])")
        if not isinstance(rows, list):
            raise ArchiveError("invalid manifest")
        return [_docker_row(row) for row in rows]

    def _oci_rows(self, platform: Platform | None) -> list[NamedManifest]:
        return named_manifests(self._json("index.json", MANIFEST_LIMIT), self._blob_bytes, platform)

    def _image(self, row: NamedManifest, platform: Platform | None) -> LoadedImage | None:
        raw = self._bytes(row.config, CONFIG_LIMIT)
        document = read_config_of(raw, len(row.layers))
        system = str(document.get("os") or "linux")
        if system != "linux":
            raise ArchiveError(f"cannot load {system} image on linux")
        found = normalize(system, str(document.get("architecture") or "amd64"), str(document.get("variant") or ""))
        if platform is not None and not runs_on(found, platform):
            return None
        diff_ids = document["rootfs"]["diff_ids"] if row.layers else []
        layers, blobs = [], {}
        for number, (path, diff_id) in enumerate(zip(row.layers, diff_ids, strict=True)):
            descriptor, blob = self._layer(number, path, diff_id)
            layers.append(descriptor)
            blobs[descriptor.digest] = blob
        return LoadedImage(row.tags, raw, tuple(layers), blobs)

    def _layer(self, number: int, path: str, diff_id: str) -> tuple[Descriptor, _Blob]:
        member = self._member(path)
        known = self._described.get((member.offset_data, diff_id))
        if known is not None:
            return known
        blob = _Blob(self._file, member.offset_data, member.size)
        self._file.seek(blob.offset)
        kind = compression(self._file.read(min(8, blob.size)))
        if kind in {"xz", "bzip2"} or (not kind and self._compress):
            # Not a form that a registry's layers may have, or a wasteful one.
            blob, kind = self._rewritten(blob, kind)
        actual, digest = self._hashes(blob, kind, diff_id.partition(":")[0])
        if actual != diff_id:
            raise ArchiveError(f'invalid diffID for layer {number}: expected "{diff_id}", got "{actual}"')
        suffix = {"": "", "gzip": "+gzip", "zstd": "+zstd"}[kind]
        found = Descriptor(OCI_LAYER + suffix, digest, blob.size), blob
        self._described[member.offset_data, diff_id] = found
        return found

    def _hashes(self, blob: _Blob, kind: str, algorithm: str) -> tuple[str, str]:
        """The diff id (of the tar inside) and the blob's own digest."""
        outer = hashlib.sha256()
        section = Section(blob.file, blob.offset, blob.size)
        while piece := section.read(_PIECE):
            outer.update(piece)
        if not kind and algorithm == "sha256":
            return f"sha256:{outer.hexdigest()}", f"sha256:{outer.hexdigest()}"
        inner = hashlib.new(algorithm)
        reader = ForwardReader(decompress(_section(blob), kind), self._size_limit)
        for piece in _pieces(reader):
            inner.update(piece)
        return f"{algorithm}:{inner.hexdigest()}", f"sha256:{outer.hexdigest()}"

    def _rewritten(self, blob: _Blob, kind: str) -> tuple[_Blob, str]:
        out = self._kept.enter_context(tempfile.TemporaryFile(dir=self._temporary))  # noqa: SIM115
        reader = ForwardReader(decompress(_section(blob), kind), self._size_limit)
        # Level 1 and no name or time in the header: the same layer gives the same digest again.
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        for piece in _pieces(reader):
            out.write(packer.compress(piece))
        out.write(packer.flush())
        out.flush()
        return _Blob(out, 0, out.tell()), "gzip"

    def _member(self, path: str) -> tarfile.TarInfo:
        """The regular file a name stands for; links inside the archive are followed (old `docker save` has them)."""
        here = normal_path(path)
        for _ in range(_LINK_LIMIT):
            member = self._members.get(here) if here else None
            if member is None:
                break
            if member.isreg() and not member.issparse():
                return member
            if member.islnk():
                here = normal_path(member.linkname)
            elif member.issym() and not member.linkname.startswith("/"):
                here = _joined(here or "", member.linkname)
            else:
                break
        raise ArchiveError(f"invalid archive: it has no file {path[:256]}")

    def _bytes(self, path: str, limit: int) -> bytes:
        member = self._member(path)
        if member.size > limit:
            raise ArchiveError(f"invalid archive: {path[:256]} is larger than {limit} bytes")
        return Section(self._file, member.offset_data, member.size).read()

    def _blob_bytes(self, digest: str, limit: int) -> bytes:
        data = self._bytes(f"blobs/{digest.replace(':', '/', 1)}", limit)
        algorithm, _, encoded = digest.partition(":")
        if hashlib.new(algorithm, data).hexdigest() != encoded:
            raise ArchiveError(f"invalid archive: {digest} has another digest")
        return data

    def _json(self, path: str, limit: int) -> Any:
        try:
            return orjson.loads(self._bytes(path, limit))
        except orjson.JSONDecodeError as error:
            raise ArchiveError(f"invalid archive: {path}: {error}") from None


def read_config_of(raw: bytes, layers: int) -> dict[str, Any]:
    """The configuration, with moby's text for a manifest that doesn't fit it."""
    try:
        document = orjson.loads(raw)
        found = len(document["rootfs"]["diff_ids"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        found = layers
    if found != layers:
        raise ArchiveError(f"invalid manifest, layers length mismatch: expected {layers}, got {found}")
    return read_config(raw, layers)


def _docker_row(row: Any) -> NamedManifest:
    config, tags, layers = (
        (row.get("Config"), row.get("RepoTags") or [], row.get("Layers") or [])
        if isinstance(row, dict)
        else (None, [], [])
    )
    texts = (
        isinstance(tags, list) and isinstance(layers, list) and all(isinstance(one, str) for one in [*tags, *layers])
    )
    if not isinstance(config, str) or not texts:
        raise ArchiveError("invalid manifest")
    return NamedManifest(config, tuple(layers), tuple(tags))


def _joined(path: str, link: str) -> str | None:
    """A relative link's target; None when it leads out of the archive."""
    parts = path.split("/")[:-1]
    for part in link.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)


def _section(blob: _Blob) -> IO[bytes]:
    return Section(blob.file, blob.offset, blob.size)  # type: ignore[return-value]


def _pieces(reader: ForwardReader) -> Any:
    while piece := reader.data(_PIECE):
        yield piece
