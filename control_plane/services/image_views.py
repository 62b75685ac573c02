"""Images as Docker shows them: rows of `docker images`, `docker image inspect`, `docker history`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from control_plane.model import ZERO_TIME, Image
from control_plane.timestamps import nanoseconds

_CURRENT_CONFIG: dict[str, Any] = {
    "Cmd": None,
    "Entrypoint": None,
    "Env": None,
    "Labels": None,
    "OnBuild": None,
    "User": "",
    "Volumes": None,
    "WorkingDir": "",
}
_LEGACY_CONFIG: dict[str, Any] = {
    **_CURRENT_CONFIG,
    "AttachStderr": False,
    "AttachStdin": False,
    "AttachStdout": False,
    "Domainname": "",
    "Hostname": "",
    "Image": "",
    "OpenStdin": False,
    "StdinOnce": False,
    "Tty": False,
}
_CONFIG_FIELDS = frozenset({*_CURRENT_CONFIG, "ArgsEscaped", "ExposedPorts", "Healthcheck", "Shell", "StopSignal"})


def chain_ids(image: Image) -> list[str]:
    """The ids of the layers on their layers, lowest first (the OCI image specification's ChainID)."""
    chains: list[str] = []
    for diff_id in (image.config.get("rootfs") or {}).get("diff_ids") or []:
        if not chains:
            chains.append(diff_id)
        else:
            chains.append("sha256:" + hashlib.sha256(f"{chains[-1]} {diff_id}".encode()).hexdigest())
    return chains


def shared_sizes(images: Iterable[Image]) -> dict[str, int]:
    """Image id → bytes of layers that other images have too."""
    counted: dict[str, int] = {}
    known = list(images)
    for image in known:
        for chain in chain_ids(image):
            counted[chain] = counted.get(chain, 0) + 1
    sizes = {}
    for image in known:
        pairs = zip(chain_ids(image), image.layers, strict=False)
        sizes[image.id] = sum(int(layer["size"]) for chain, layer in pairs if counted[chain] > 1)
    return sizes


def summary(image: Image, tags: list[str], digests: list[str], version: tuple[int, int]) -> dict[str, Any]:
    """A row of `GET /images/json`."""
    if version < (1, 43) and not tags and not digests:
        tags, digests = ["<none>:<none>"], ["<none>@<none>"]
    row: dict[str, Any] = {
        "Containers": -1,
        "Created": nanoseconds(image.created_at) // 1_000_000_000,
        "Id": image.id,
        "Labels": (image.config.get("config") or {}).get("Labels"),
        "ParentId": "",
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": -1,
        "Size": image.size,
    }
    if version < (1, 44):
        row["VirtualSize"] = image.size
    return row


def inspection(image: Image, version: tuple[int, int]) -> dict[str, Any]:
    """`GET /images/{name}/json`."""
    document = image.config
    history = document.get("history") or []
    comment = document.get("comment") or (history[-1].get("comment") if history else "") or ""
    view: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": image.tags,
        "RepoDigests": image.repo_digests,
        "Parent": "",
        "Comment": comment,
        "Created": image.created_at,
        "DockerVersion": document.get("docker_version") or "",
        "Author": document.get("author") or "",
        "Config": _config(document, version),
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size,
        "GraphDriver": {"Data": None, "Name": "registry"},
        "RootFS": {"Type": "layers", "Layers": (document.get("rootfs") or {}).get("diff_ids") or []},
        "Metadata": {"LastTagTime": image.tagged_at},
    }
    if document.get("variant"):
        view["Variant"] = document["variant"]
    if image.created_at == ZERO_TIME and version >= (1, 44):
        del view["Created"]
    if version < (1, 44):
        view["VirtualSize"] = image.size
    if version < (1, 45):
        view["Container"] = document.get("container") or ""
        view["ContainerConfig"] = document.get("container_config") or {}
    return view


def _config(document: Mapping[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    config = document.get("config") or {}
    if version < (1, 50):
        return {**_LEGACY_CONFIG, **config}
    return {**_CURRENT_CONFIG, **{key: value for key, value in config.items() if key in _CONFIG_FIELDS}}


def history(image: Image) -> list[dict[str, Any]]:
    """`GET /images/{name}/history`, the newest first."""
    rows: list[dict[str, Any]] = []
    sizes = iter(int(layer["size"]) for layer in image.layers)
    for entry in image.config.get("history") or []:
        size = 0 if entry.get("empty_layer") else next(sizes, 0)
        rows.insert(
            0,
            {
                "Comment": str(entry.get("comment") or ""),
                "Created": _seconds(entry.get("created")),
                "CreatedBy": str(entry.get("created_by") or ""),
                "Id": "<missing>",
                "Size": size,
                "Tags": None,
            },
        )
    if rows:
        rows[0]["Id"] = image.id
        rows[0]["Tags"] = image.tags or None
    return rows


def _seconds(text: object) -> int:
    try:
        return nanoseconds(text) // 1_000_000_000 if isinstance(text, str) else 0
    except (ValueError, OverflowError):
        return 0
