"""What the services need of registries, as Protocols and values; `compose.py` supplies the real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from control_plane.model import Image
from control_plane.registry.manifest import Descriptor, Manifest
from control_plane.registry.platform import Platform
from control_plane.registry.reference import Reference


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's registry login. Used for one operation, never kept, never logged (not even by repr)."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    server_address: str = ""


ANONYMOUS = Credentials()


class RegistryError(Exception):
    """An answer of a registry, or why there was none.

    `code` is the registry's (`MANIFEST_UNKNOWN`, `DENIED`, …), empty for faults below the protocol.
    """

    def __init__(self, message: str, code: str = "", status: int = 0) -> None:
        super().__init__(f"{code.lower().replace('_', ' ')}: {message}" if code else message)
        self.code = code
        self.status = status


Progress = Callable[[int], None]
"""Told the number of bytes of a blob received so far."""


class RemoteImage(Protocol):
    """An image found at a user's registry, not yet copied."""

    @property
    def digest(self) -> str:
        """Digest of what the reference names: the manifest, or the list it was chosen from."""
        ...

    @property
    def manifest(self) -> Manifest:
        """The manifest of the platform asked for."""
        ...

    async def config(self) -> bytes:
        """The configuration blob, verified. Raises RegistryError."""
        ...

    def blob(self, descriptor: Descriptor, progress: Progress) -> AsyncIterator[bytes]:
        """A blob's bytes, resumed where a connection broke; fails at the end when the digest is another."""
        ...


class Upstreams(Protocol):
    """Registries named by users, with mirrors and insecure registries as configured. All raise RegistryError."""

    async def digest(self, reference: Reference, credentials: Credentials) -> str | None:
        """What the tag names now, without counting as a pull; None when the registry does not tell cheaply."""
        ...

    async def find(self, reference: Reference, platform: Platform, credentials: Credentials) -> RemoteImage:
        """The image of a platform. `no matching manifest for …` when a list has none."""
        ...

    async def tags(self, reference: Reference, credentials: Credentials) -> list[str]:
        """All tags of the repository."""
        ...

    async def login(self, credentials: Credentials) -> str:
        """Checks the credentials; returns the identity token, empty when the registry issues none.

        Raises Unauthorized for wrong credentials, RegistryError for anything else.
        """
        ...

    async def close(self) -> None:
        """Closes the connections."""
        ...


class ImageRegistry(Protocol):
    """Our registry, where pulled and loaded images are kept. `repository` is `host/path` throughout."""

    async def warm(self) -> None:
        """Prepares what the first request would wait for."""
        ...

    def repository(self, tenant: str, reference: Reference) -> str:
        """Where a tenant keeps the image of that name."""
        ...

    async def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the registry has the blob in that repository."""
        ...

    async def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        """Makes a blob of another repository known in this one; False when the registry would not."""
        ...

    async def put_blob(self, repository: str, digest: str, content: AsyncIterator[bytes]) -> None:
        """Stores a stream; nothing is kept when it breaks or the digest is another."""
        ...

    async def put_bytes(self, repository: str, data: bytes) -> str:
        """Stores a small blob unless it is there; returns its digest."""
        ...

    async def put_manifest(self, repository: str, manifest: bytes, media_type: str) -> str:
        """Stores a manifest whose blobs are there; returns its digest."""
        ...

    async def delete_manifest(self, repository: str, digest: str) -> None:
        """Repeatable; an unknown one is no error."""
        ...

    def blob(self, repository: str, digest: str, size: int) -> AsyncIterator[bytes]:
        """A blob's bytes, verified."""
        ...

    async def close(self) -> None:
        """Closes the connections."""
        ...


class AgentLayers(Protocol):
    """Makes an image whose first process is the agent, by appending one layer (no build)."""

    async def warm(self) -> None:
        """Prepares what the first `derive` would wait for."""
        ...

    async def derive(self, image: Image) -> str:
        """Pushes the derived manifest and returns its digest. Raises NotServed when there is no agent for the image."""
        ...


class LayerFiles(Protocol):
    """Looks into an image's layers."""

    async def stat(self, image: Image, path: str) -> dict[str, Any]:
        """Docker's PathStat: name, size, mode (Go's FileMode number), mtime, linkTarget. Raises NotFound."""
        ...

    def read(self, image: Image, path: str) -> AsyncIterator[bytes]:
        """A tar of the file or directory, named as `docker cp` names it. Raises NotFound before the first byte."""
        ...


class ArchivedImage(Protocol):
    """One image of a loaded archive."""

    @property
    def tags(self) -> tuple[str, ...]:
        """All tags of the repository."""
        ...

    @property
    def config(self) -> bytes:
        """The configuration document, whole."""
        ...

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """As they will be in the manifest."""
        ...

    def blob(self, descriptor: Descriptor, progress: Progress) -> AsyncIterator[bytes]:
        """A layer's bytes."""
        ...


class ImageArchives(Protocol):
    """Reads the tars of `docker save` and OCI layouts, in any of Docker's compressions."""

    def open(
        self, content: AsyncIterator[bytes], platform: Platform | None
    ) -> AbstractAsyncContextManager[list[ArchivedImage]]:
        """Spools the tar to a temporary file, removed on exit. Raises InvalidParameter on a bad archive."""
        ...
