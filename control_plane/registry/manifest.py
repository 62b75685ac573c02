"""Manifests and manifest lists: reading, judging and writing them (Docker schema 2 and OCI).

Everything read here came from a registry or an archive and is hostile until judged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from control_plane.errors import InvalidParameter
from control_plane.registry.reference import is_digest

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1"
ACCEPTED = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)

MANIFEST_LIMIT = 4 * 1024 * 1024
CONFIG_LIMIT = 4 * 1024 * 1024
_LAYER_COUNT_LIMIT = 1024
_LAYER_SIZE_LIMIT = 64 * 1024**3

_CONFIG_TYPES = {
    DOCKER_CONFIG,
    OCI_CONFIG,
    # Seen on old images, and accepted by moby for them.
    "application/octet-stream",
    "application/json",
    "text/html",
    "",
}
_LAYER_TYPES = (
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob by digest: `size` in bytes."""

    media_type: str
    digest: str
    size: int

    def document(self) -> dict[str, Any]:
        """The descriptor as JSON."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image's manifest as it is in the registry."""

    media_type: str
    digest: str
    raw: bytes
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class ManifestList:
    """A manifest list or OCI index."""

    digest: str
    entries: list[Mapping[str, Any]]


def sha256(data: bytes) -> str:
    """The digest of bytes, `sha256:…`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def short_id(digest: str) -> str:
    """Docker's twelve characters."""
    return digest.partition(":")[2][:12] or digest[:12]


def read(raw: bytes, content_type: str = "") -> Manifest | ManifestList:
    """Judges a manifest document. Raises InvalidParameter with moby's texts."""
    document = _object(raw, "manifest")
    media_type = _media_type(document, content_type.partition(";")[0].strip().lower())
    digest = sha256(raw)
    if media_type in {OCI_INDEX, DOCKER_LIST}:
        entries = document.get("manifests")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InvalidParameter("unsupported manifest format")
        return ManifestList(digest, entries)
    if media_type not in {OCI_MANIFEST, DOCKER_MANIFEST}:
        raise InvalidParameter("unsupported manifest format")
    config = descriptor(document.get("config"))
    _check_config(config.media_type)
    if config.size > CONFIG_LIMIT:
        raise InvalidParameter(f"image configuration is larger than {CONFIG_LIMIT} bytes")
    layers = document.get("layers")
    if not isinstance(layers, list) or len(layers) > _LAYER_COUNT_LIMIT:
        raise InvalidParameter("unsupported manifest format")
    described = tuple(descriptor(layer) for layer in layers)
    for layer in described:
        _check_layer(layer.media_type)
    return Manifest(media_type, digest, raw, config, described)


def descriptor(value: Any) -> Descriptor:
    """A descriptor judged: known digest algorithm, sane size."""
    if not isinstance(value, Mapping):
        raise InvalidParameter("unsupported manifest format")
    media_type, digest, size = value.get("mediaType", ""), value.get("digest", ""), value.get("size", 0)
    if not isinstance(media_type, str) or not isinstance(digest, str) or not is_digest(digest):
        raise InvalidParameter(f'could not validate digest "{str(digest)[:128]}"')
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= _LAYER_SIZE_LIMIT:
        raise InvalidParameter(f"invalid size of {digest}")
    return Descriptor(media_type.lower(), digest, size)


def write(config: Descriptor, layers: list[Mapping[str, Any]]) -> tuple[bytes, str]:
    """An image manifest in the family (Docker or OCI) of its layers, and its media type."""
    docker = any("docker" in str(layer["mediaType"]) for layer in layers)
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    kind = DOCKER_CONFIG if docker else OCI_CONFIG
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": kind, "digest": config.digest, "size": config.size},
        "layers": [{key: layer[key] for key in ("mediaType", "digest", "size")} for layer in layers],
    }
    return orjson.dumps(document), media_type


def read_config(raw: bytes, layers: int) -> dict[str, Any]:
    """An image configuration whose rootfs fits the manifest's number of layers. Raises InvalidParameter."""
    document = _object(raw, "image configuration")
    rootfs = document.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if diff_ids is None and layers == 0:
        diff_ids = []
    if not isinstance(diff_ids, list) or not all(isinstance(one, str) and is_digest(one) for one in diff_ids):
        raise InvalidParameter("invalid rootfs in image configuration")
    if len(diff_ids) != layers:
        raise InvalidParameter("layers from manifest don't match image configuration")
    if not isinstance(document.get("config") or {}, dict):
        raise InvalidParameter("invalid image configuration")
    history = document.get("history") or []
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise InvalidParameter("invalid history in image configuration")
    return document


def _object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidParameter(f"{what} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidParameter(f"{what} is not a JSON object")
    return document


def _media_type(document: Mapping[str, Any], content_type: str) -> str:
    named = document.get("mediaType")
    media_type = named.lower() if isinstance(named, str) and named else content_type
    if media_type.startswith(_SCHEMA1) or "fsLayers" in document:
        raise InvalidParameter(
            "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. "
            "More information at https://docs.docker.com/go/deprecated-image-specs/"
        )
    if media_type in ACCEPTED:
        return media_type
    # OCI documents may leave their type out, and registries serve them as plain JSON.
    if "manifests" in document and "layers" not in document:
        return OCI_INDEX
    if "config" in document and "layers" in document:
        return OCI_MANIFEST
    return media_type


def _check_config(media_type: str) -> None:
    if media_type not in _CONFIG_TYPES:
        kind = "plugin" if media_type == "application/vnd.docker.plugin.v1+json" else "unknown"
        raise InvalidParameter(f'Encountered remote "{media_type}"({kind}) when fetching')


def _check_layer(media_type: str) -> None:
    if media_type.startswith("application/vnd.docker.ai."):
        raise InvalidParameter(
            'AI models are not yet supported by the Engine, please use "docker model pull/run" instead'
        )
    for known in _LAYER_TYPES:
        if media_type == known or media_type.startswith((f"{known}.", f"{known}+")):
            return
    raise InvalidParameter(f"unsupported media type {media_type}")
