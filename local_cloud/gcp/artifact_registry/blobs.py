"""Content-addressed files: blobs and their uploads under `<data>/registry`."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from local_cloud.gcp.artifact_registry.errors import RegistryError

_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
_UPLOAD = re.compile(r"[a-f0-9]{32}")
_READ = 1 << 20


def check_digest(digest: str) -> str:
    """Returns a well-formed digest; raises RegistryError DIGEST_INVALID (only sha256 is served)."""
    if not _DIGEST.fullmatch(digest):
        raise RegistryError(
            "DIGEST_INVALID", "provided digest did not match uploaded content: want sha256:<64 hex digits>"
        )
    return digest


@dataclass(slots=True)
class _Upload:
    hasher: hashlib._Hash
    size: int


class BlobFiles:
    """The files of all repositories; who may see which one is the registry's affair."""

    def __init__(self, directory: Path) -> None:
        self._blobs = directory / "blobs" / "sha256"
        self._uploads = directory / "uploads"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._uploads.mkdir(parents=True, exist_ok=True)
        self._hashing: dict[str, _Upload] = {}

    def path(self, digest: str) -> Path:
        """Where a blob is or would be."""
        value = check_digest(digest).removeprefix("sha256:")
        return self._blobs / value[:2] / value

    def write(self, content: bytes) -> str:
        """Keeps a small blob (a manifest); returns its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        path = self.path(digest)
        if not path.exists():
            part = self._uploads / f"{uuid.uuid4().hex}.part"
            part.write_bytes(content)
            self._place(part, path)
        return digest

    def remove(self, digest: str) -> None:
        """Deletes a blob's file."""
        self.path(digest).unlink(missing_ok=True)

    def begin(self) -> str:
        """Starts an upload; returns its id."""
        name = uuid.uuid4().hex
        (self._uploads / name).touch()
        self._hashing[name] = _Upload(hashlib.sha256(), 0)
        return name

    def uploaded(self, name: str) -> int:
        """Bytes an upload has so far; raises RegistryError BLOB_UPLOAD_UNKNOWN."""
        return self._upload(name).size

    async def append(self, name: str, chunks: AsyncIterator[bytes]) -> int:
        """Adds to an upload while hashing it; returns its size so far."""
        upload = self._upload(name)
        with (self._uploads / name).open("r+b") as file:
            file.seek(upload.size)
            file.truncate()
            await self._copy(upload, file, chunks)
        return upload.size

    @staticmethod
    async def _copy(upload: _Upload, file: BinaryIO, chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            if chunk:
                file.write(chunk)
                upload.hasher.update(chunk)
                upload.size += len(chunk)

    def finish(self, name: str, digest: str) -> None:
        """Makes an upload a blob; with another digest it is dropped, raising RegistryError DIGEST_INVALID."""
        check_digest(digest)
        upload = self._upload(name)
        if f"sha256:{upload.hasher.hexdigest()}" != digest:
            self.cancel(name)
            raise RegistryError("DIGEST_INVALID", "provided digest did not match uploaded content", {"digest": digest})
        del self._hashing[name]
        self._place(self._uploads / name, self.path(digest))

    def cancel(self, name: str) -> None:
        """Drops an upload."""
        self._upload(name)
        self._hashing.pop(name, None)
        (self._uploads / name).unlink(missing_ok=True)

    def _upload(self, name: str) -> _Upload:
        known = self._hashing.get(name)
        if known is not None:
            return known
        path = self._uploads / name
        if not _UPLOAD.fullmatch(name) or not path.is_file():
            raise RegistryError("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry", {"upload": name})
        upload = _Upload(hashlib.sha256(), 0)  # begun before a restart: what is on disk counts
        with path.open("rb") as file:
            while chunk := file.read(_READ):
                upload.hasher.update(chunk)
                upload.size += len(chunk)
        self._hashing[name] = upload
        return upload

    @staticmethod
    def _place(part: Path, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        os.replace(part, path)
