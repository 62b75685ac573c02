"""Where the agent that is put into images comes from: this distribution, or an image that pins another one."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from control_plane.errors import NotFound, NotServed, Unavailable
from control_plane.model import Image
from control_plane.registry.base import Credentials, RegistryError, RemoteImage, Upstreams
from control_plane.registry.files import RegistryLayerFiles
from control_plane.registry.manifest import Descriptor
from control_plane.registry.platform import Platform
from control_plane.registry.reference import Reference

AGENT_DIRECTORY = ".sockerless"
AGENT_PATH = "/.sockerless/agent"

_LIMIT = 64 * 1024 * 1024
_ELF_MACHINES = {"amd64": b"\x3e\x00", "arm64": b"\xb7\x00"}


class AgentBinaries(Protocol):
    """The agent's executable file by processor architecture (`amd64`, `arm64`)."""

    async def read(self, architecture: str) -> bytes:
        """The file, the same at every call. Raises NotServed when there is none, Unavailable when out of reach."""
        ...


class BuiltInAgents:
    """The agent of this distribution. `files` names it by architecture."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = dict(files)

    async def read(self, architecture: str) -> bytes:
        """See `AgentBinaries.read`."""
        path = self._files.get(architecture)
        if path is None:
            known = ", ".join(sorted(self._files)) or "none"
            raise NotServed(f"there is no agent for {architecture} images (available: {known})")
        return await asyncio.to_thread(path.read_bytes)


class PinnedAgents:
    """The file `/.sockerless/agent` of an image, fetched once per architecture."""

    def __init__(
        self,
        upstreams: Upstreams,
        reference: Reference,
        login: Callable[[], Awaitable[Credentials]],
        temporary: Path | None = None,
    ) -> None:
        self._upstreams = upstreams
        self._reference = reference
        self._login = login
        self._temporary = temporary
        self._found: dict[str, bytes] = {}
        self._lock = asyncio.Lock()

    async def read(self, architecture: str) -> bytes:
        """See `AgentBinaries.read`."""
        async with self._lock:
            if architecture not in self._found:
                try:
                    self._found[architecture] = await self._fetch(architecture)
                except RegistryError as error:
                    raise Unavailable(f"the agent image {self._reference} cannot be fetched: {error}") from error
            return self._found[architecture]

    async def _fetch(self, architecture: str) -> bytes:
        remote = await self._upstreams.find(self._reference, Platform("linux", architecture), await self._login())
        layers = [layer.document() for layer in remote.manifest.layers]
        image = Image(
            id="", tenant="", created_at="", repository="", manifest_digest=remote.digest, config={}, layers=layers
        )
        files = RegistryLayerFiles(_RemoteLayers(remote), self._temporary)
        try:
            size = int((await files.stat(image, AGENT_PATH))["size"])
            if size > _LIMIT:
                raise NotServed(f"{AGENT_PATH} of the agent image {self._reference} is larger than {_LIMIT} bytes")
            tar = b"".join([chunk async for chunk in files.read(image, AGENT_PATH)])
        except NotFound:
            raise NotServed(f"the agent image {self._reference} has no file {AGENT_PATH}") from None
        return self._checked(_only_file(tar), architecture)

    def _checked(self, binary: bytes | None, architecture: str) -> bytes:
        """An executable of the architecture. (An image of one platform is taken whatever platform was asked for.)"""
        machine = _ELF_MACHINES.get(architecture)
        if binary is None or not binary.startswith(b"\x7fELF") or binary[18:20] != machine:
            raise NotServed(
                f"{AGENT_PATH} of the agent image {self._reference} is not an executable for {architecture}"
            )
        return binary


class _RemoteLayers:
    """A remote image's blobs as `RegistryLayerFiles` reads them."""

    def __init__(self, remote: RemoteImage) -> None:
        self._remote = remote

    def blob(self, repository: str, digest: str, size: int) -> AsyncIterator[bytes]:
        """A layer's bytes, verified."""
        return self._remote.blob(Descriptor("", digest, size), lambda _: None)


def _only_file(tar: bytes) -> bytes | None:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        member = next(iter(archive), None)
        content = archive.extractfile(member) if member is not None and member.isreg() else None
        return content.read() if content is not None else None
