"""The index of an OCI layout: which manifests it holds, under which names.

Fact source: the OCI image layout specification; names are in the annotations containerd and buildkit write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from control_plane.registry.manifest import MANIFEST_LIMIT, Manifest, descriptor, read
from control_plane.registry.platform import DEFAULT, Platform, choose
from control_plane.registry.tarsource import ArchiveError

_DEPTH = 3
_CONTAINERD_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"

ReadBlob = Callable[[str, int], bytes]
"""Reads a blob of the layout by digest, verified, up to a size."""


@dataclass(frozen=True, slots=True)
class NamedManifest:
    """An image in an archive: paths of its config and layers, and its tags."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...]


def named_manifests(index: Any, blob: ReadBlob, platform: Platform | None) -> list[NamedManifest]:
    """The images of the index; entries of one image under several names are merged. Raises ArchiveError."""
    entries = index.get("manifests") if isinstance(index, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ArchiveError("invalid archive: index.json has no list of manifests")
    found: dict[str, NamedManifest] = {}
    for entry in entries:
        manifest = _manifest(entry, blob, platform or DEFAULT, _DEPTH)
        if manifest is None:
            continue
        tags = _tags(entry)
        if (known := found.get(manifest.digest)) is not None:
            tags = tuple(dict.fromkeys((*known.tags, *tags)))
        layers = tuple(_path(layer.digest) for layer in manifest.layers)
        found[manifest.digest] = NamedManifest(_path(manifest.config.digest), layers, tags)
    return list(found.values())


def _manifest(entry: Mapping[str, Any], blob: ReadBlob, wanted: Platform, depth: int) -> Manifest | None:
    if isinstance(entry.get("platform"), dict) and not choose([entry], wanted):
        return None
    described = descriptor(entry)
    top = read(blob(described.digest, MANIFEST_LIMIT), described.media_type)
    if isinstance(top, Manifest):
        return top
    for inner in choose(top.entries, wanted) if depth else []:
        manifest = _manifest(inner, blob, wanted, depth - 1)
        if manifest is not None:
            return manifest
    return None


def _tags(entry: Mapping[str, Any]) -> tuple[str, ...]:
    annotations = entry.get("annotations")
    if not isinstance(annotations, dict):
        return ()
    name = annotations.get(_CONTAINERD_NAME)
    if isinstance(name, str) and name:
        return (name,)
    name = annotations.get(_REF_NAME)
    # The layout's own field may hold a tag without a name, which names no image.
    return (name,) if isinstance(name, str) and (":" in name or "/" in name) else ()


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"
