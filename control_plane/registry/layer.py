"""The agent layer: a tar.gz with `/.sockerless/agent`, and manifests with it appended. No build, no unpacking.

Everything here is deterministic: the same agent and the same image give the same digests in every control plane.
"""

from __future__ import annotations

import asyncio
import copy
import gzip
import hashlib
import io
import tarfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from control_plane.model import Image
from control_plane.registry.agent_binaries import AGENT_DIRECTORY, AGENT_PATH, AgentBinaries
from control_plane.registry.base import ImageRegistry, RegistryError
from control_plane.registry.manifest import DOCKER_LAYER, OCI_LAYER, Descriptor, sha256, write
from control_plane.registry.transport import ConnectionBrokenError, pause

_HISTORY = "agent layer"
_ATTEMPTS = 6


@dataclass(frozen=True, slots=True)
class AgentLayer:
    """The layer of one processor architecture: compressed bytes, and the digest of the tar inside."""

    data: bytes
    digest: str
    diff_id: str


@dataclass(frozen=True, slots=True)
class Derived:
    """What has to be in the registry for a derived image."""

    config: bytes
    manifest: bytes
    media_type: str
    digest: str


def build(binary: bytes) -> AgentLayer:
    """The layer around an agent binary."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        directory = tarfile.TarInfo(AGENT_DIRECTORY)
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(directory)
        agent = tarfile.TarInfo(AGENT_PATH.lstrip("/"))
        agent.size, agent.mode = len(binary), 0o755
        tar.addfile(agent, io.BytesIO(binary))
    plain = out.getvalue()
    data = gzip.compress(plain, compresslevel=1, mtime=0)
    return AgentLayer(data, sha256(data), f"sha256:{hashlib.sha256(plain).hexdigest()}")


def append(image: Image, layer: AgentLayer) -> Derived:
    """The image's configuration and manifest with the layer on top and the agent as its first process.

    User is root there: the agent sets up the container and gives the user's process its own user.
    """
    document: dict[str, Any] = copy.deepcopy(image.config)
    config = dict(document.get("config") or {})
    config.pop("Cmd", None)
    config.pop("User", None)
    config["Entrypoint"] = [AGENT_PATH]
    document["config"] = config
    rootfs = dict(document.get("rootfs") or {"type": "layers"})
    rootfs["diff_ids"] = [*(rootfs.get("diff_ids") or []), layer.diff_id]
    document["rootfs"] = rootfs
    entry = {"created_by": _HISTORY}
    if isinstance(document.get("created"), str):
        entry["created"] = document["created"]
    document["history"] = [*(document.get("history") or []), entry]
    raw = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    layers: list[Mapping[str, Any]] = [*image.layers, _describe(image, layer)]
    manifest, media_type = write(Descriptor("", sha256(raw), len(raw)), layers)
    return Derived(raw, manifest, media_type, sha256(manifest))


def _describe(image: Image, layer: AgentLayer) -> dict[str, Any]:
    docker = any("docker" in str(one["mediaType"]) for one in image.layers)
    kind = DOCKER_LAYER if docker else f"{OCI_LAYER}+gzip"
    return Descriptor(kind, layer.digest, len(layer.data)).document()


async def _patiently(put: Callable[[], Awaitable[object]]) -> None:
    """What is put twice is the same: so a registry that fails for the moment is asked again."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            await put()
        except RegistryError as error:
            passing = isinstance(error, ConnectionBrokenError) or error.status == 429 or error.status >= 500
            if not passing or attempt == _ATTEMPTS:
                raise
            await pause(min(attempt, 3))
        else:
            return


class AgentLayerAppender:
    """AgentLayers over our registry."""

    def __init__(self, registry: ImageRegistry, binaries: AgentBinaries) -> None:
        self._registry = registry
        self._binaries = binaries
        self._layers: dict[str, AgentLayer] = {}
        self._pushed: set[tuple[str, str]] = set()
        """(repository, digest) of the manifests this process knows to be there."""
        self._lock = asyncio.Lock()

    async def warm(self) -> None:
        """Builds the usual layer ahead of the first container that needs it."""
        await self._layer("amd64")

    async def derive(self, image: Image) -> str:
        """Pushes what is missing of the derived image; costs no call when it is on record."""
        derived = append(image, await self._layer(image.architecture))
        place = (image.repository, derived.digest)
        if derived.digest == image.agent_digest or place in self._pushed:
            return derived.digest
        layer = await self._layer(image.architecture)
        await _patiently(lambda: self._registry.put_bytes(image.repository, layer.data))
        await _patiently(lambda: self._registry.put_bytes(image.repository, derived.config))
        await _patiently(lambda: self._registry.put_manifest(image.repository, derived.manifest, derived.media_type))
        self._pushed.add(place)
        return derived.digest

    async def _layer(self, architecture: str) -> AgentLayer:
        async with self._lock:
            found = self._layers.get(architecture)
            if found is None:
                binary = await self._binaries.read(architecture)
                found = self._layers[architecture] = await asyncio.to_thread(build, binary)
            return found
