"""From an image reference to unpacked layers, through the registry stand-in's files."""

from __future__ import annotations

import json
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from local_cloud.errors import ServiceError, invalid
from local_cloud.gcp.artifact_registry.errors import RegistryError
from local_cloud.gcp.artifact_registry.model import INDEXES, Manifest, Registry

_REFERENCE = re.compile(r"([^/@]+)/([^@]+?)(?::([A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(sha256:[a-f0-9]{64}))?")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_GZIP_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_CACHED = 64


class Unpacker(Protocol):
    """What is used of the runtime's layer store."""

    async def unpack(self, digest: str, blob: Path, media_type: str) -> Path:
        """The directory of a layer, unpacked once."""
        ...

    async def remove_unused(self, keep: set[str]) -> None:
        """Removes all other layers; no container may be running on them."""
        ...


@dataclass(frozen=True, slots=True)
class ImageContent:
    """An image ready to run."""

    digest: str
    layers: tuple[Path, ...]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    env: tuple[str, ...]
    workdir: str
    user: str


class ImageMissingError(ServiceError):
    """The registry does not have the image."""

    def __init__(self, reference: str) -> None:
        super().__init__("NOT_FOUND", f"Image '{reference}' not found.")


class Images:
    """Resolves and imports images; results are kept by digest."""

    def __init__(self, registry: Registry, layers: Unpacker, hosts: frozenset[str]) -> None:
        self._registry = registry
        self._layers = layers
        self._hosts = hosts
        self._ready: dict[str, ImageContent] = {}

    def check(self, reference: str, path: str) -> None:
        """Raises ServiceError INVALID_ARGUMENT for a reference of the wrong form or of another host."""
        match = _REFERENCE.fullmatch(reference)
        if match is None or match[1] not in self._hosts:
            invalid(
                f"{path}.image: Expected an image path like [host/]repo-path[:tag and/or @digest], where "
                f"host is one of "
                f"{', '.join(sorted(self._hosts))} but obtained {reference}"
            )

    def resolve(self, reference: str) -> tuple[str, str]:
        """(repository, manifest digest) of a reference; raises ImageMissingError."""
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise ImageMissingError(reference)
        try:
            repository = Registry.check_name(match[2])
            return repository, self._registry.manifest(repository, match[4] or match[3] or "latest").digest
        except RegistryError:
            raise ImageMissingError(reference) from None

    async def load(self, reference: str, repository: str, digest: str) -> ImageContent:
        """Imports an image; raises ServiceError (ImageMissingError, or what is wrong with it)."""
        ready = self._ready.get(digest)
        if ready is not None:
            return ready
        try:
            content = await self._import(reference, repository, digest)
        except RegistryError:
            raise ImageMissingError(reference) from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ServiceError("INVALID_ARGUMENT", f"Image '{reference}' is malformed: {error!r}.") from None
        except OSError as error:
            raise ServiceError("INTERNAL", f"Image '{reference}' could not be imported: {error}.") from error
        if len(self._ready) >= _CACHED:
            self._ready.pop(next(iter(self._ready)))
        self._ready[digest] = content
        return content

    async def _import(self, reference: str, repository: str, digest: str) -> ImageContent:
        manifest = self._registry.manifest(repository, digest)
        if manifest.media_type in INDEXES:
            manifest = self._registry.manifest(repository, self._choose(reference, manifest))
        document = json.loads(manifest.content)
        config = json.loads(self._registry.blob(repository, document["config"]["digest"]).read_bytes())
        layers = []
        for layer in document["layers"]:
            blob = self._registry.blob(repository, layer["digest"])
            layers.append(await self._layers.unpack(layer["digest"], blob, layer.get("mediaType", _GZIP_LAYER)))
        run: dict[str, Any] = config.get("config") or {}
        return ImageContent(
            digest=digest,
            layers=tuple(layers),
            entrypoint=tuple(run.get("Entrypoint") or ()),
            command=tuple(run.get("Cmd") or ()),
            env=tuple(run.get("Env") or ()),
            workdir=run.get("WorkingDir") or "/",
            user=run.get("User") or "",
        )

    @staticmethod
    def _choose(reference: str, index: Manifest) -> str:
        wanted = _ARCHITECTURES.get(platform.machine(), platform.machine())
        for child in json.loads(index.content).get("manifests", []):
            target = child.get("platform") or {}
            if target.get("os") == "linux" and target.get("architecture") == wanted:
                return str(child["digest"])
        raise ServiceError(
            "INVALID_ARGUMENT",
            f"Container manifest type '{index.media_type}' must support {wanted}/linux: '{reference}'.",
        )
