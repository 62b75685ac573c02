"""`ports.Blobs` in our registry: for endpoints that have no object storage.

An archive is a blob of the repository `staged`, with a small manifest that names it: registries remove blobs that no
manifest names. The key is the manifest's tag, by digest. Deleting the manifest gives the blob up.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import orjson

from control_plane.errors import NotFound, ServerError, Unavailable
from control_plane.registry.base import RegistryError
from control_plane.registry.reference import parse_named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from control_plane.registry.push import StorageRegistry

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_TAR = "application/vnd.sockerless.staged.v1.tar"
_PIECE = 1024 * 1024


class RegistryBlobs:
    """Keys are `staged/<tenant>/…`; the tenant's archives are in a repository of its own."""

    def __init__(self, registry: StorageRegistry, temporary: Path) -> None:
        self._registry = registry
        self._temporary = temporary

    async def put(self, key: str, content: AsyncIterator[bytes]) -> int:
        """Stores and returns the size in bytes. Raises Unavailable; nothing is named of a broken upload.

        A registry wants the digest before it keeps anything, so the archive is spooled to the disk first.
        """
        with tempfile.TemporaryFile(dir=self._temporary) as spool, _in_docker_terms("storing an archive"):
            hasher, size = hashlib.sha256(), 0
            async for piece in content:
                hasher.update(piece)
                size += len(piece)
                await asyncio.to_thread(spool.write, piece)
            spool.seek(0)
            digest = f"sha256:{hasher.hexdigest()}"
            repository = self._repository(key)
            await self._registry.put_blob(repository, digest, _pieces(spool))
            config = await self._registry.put_bytes(repository, b"{}")
            manifest = {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "artifactType": _TAR,
                "config": {"mediaType": _EMPTY, "digest": config, "size": 2},
                "layers": [{"mediaType": _TAR, "digest": digest, "size": size}],
                # Two archives with the same content have manifests of their own: one is deleted without the other.
                "annotations": {"org.sockerless.key": key},
            }
            await self._registry.put_tagged(repository, _tag(key), orjson.dumps(manifest), _MANIFEST)
            return size

    async def get(self, key: str) -> AsyncIterator[bytes]:
        """The stored bytes, verified. Raises NotFound or Unavailable."""
        repository = self._repository(key)
        with _in_docker_terms("reading an archive"):
            manifest = await self._registry.tagged(repository, _tag(key))
            if manifest is None:
                raise NotFound("the archive copied in before the start is gone", internal=key)
            try:
                layer = orjson.loads(manifest)["layers"][0]
                digest, size = str(layer["digest"]), int(layer["size"])
            except (ValueError, LookupError, TypeError):
                raise ServerError("the archive copied in before the start cannot be read", internal=key) from None
            async for chunk in self._registry.blob(repository, digest, size):
                yield chunk

    async def delete(self, key: str) -> None:
        """Deletes; a missing one is no error."""
        repository = self._repository(key)
        with _in_docker_terms("deleting an archive"):
            manifest = await self._registry.tagged(repository, _tag(key))
            if manifest is not None:
                digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
                await self._registry.delete_manifest(repository, digest)

    def _repository(self, key: str) -> str:
        tenant = key.split("/")[1] if key.count("/") > 1 else ""
        return self._registry.repository(tenant, parse_named("sockerless.internal/staged"))


def _tag(key: str) -> str:
    return f"staged-{hashlib.sha256(key.encode()).hexdigest()}"


async def _pieces(spool: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(spool.read, _PIECE):
        yield piece


@contextmanager
def _in_docker_terms(doing: str) -> Iterator[None]:
    try:
        yield
    except RegistryError as error:
        raise Unavailable(f"the endpoint's registry failed while {doing}", internal=str(error)) from error
