"""Images as services see them: a store, our registry, users' registries, events that are remembered."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from control_plane.model import Container, RunState
from control_plane.registry.agent_binaries import BuiltInAgents
from control_plane.registry.archive import TarArchives
from control_plane.registry.client import UpstreamRegistries
from control_plane.registry.endpoints import RegistryPolicy
from control_plane.registry.files import RegistryLayerFiles
from control_plane.registry.layer import AgentLayerAppender
from control_plane.registry.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from control_plane.registry.push import RegistrySettings, StorageRegistry
from control_plane.services.events import Events
from control_plane.services.images import Images
from control_plane.store.sqlite import SqliteStore
from tests.registry_server import RegistryServer, registry_server


@dataclass
class Remembered(Events):
    """Events, kept for the test to look at: (type, action, actor, attributes)."""

    told: list[tuple[str, str, str, dict[str, str]]] = field(default_factory=list)

    async def publish(
        self, tenant: str, type: str, action: str, actor_id: str, attributes: Mapping[str, str] | None = None
    ) -> None:
        self.told.append((type, action, actor_id, dict(attributes or {})))


@dataclass
class World:
    """`own` is our registry, `upstream` a user's."""

    store: SqliteStore
    own: RegistryServer
    upstream: RegistryServer
    registry: StorageRegistry
    images: Images
    events: Remembered

    async def container(self, image_id: str, status: str = "exited", number: int = 1, **fields: Any) -> Container:
        container = Container(
            id=f"{number:064x}",
            tenant="t",
            name=f"c{number}",
            created_at="2026-01-01T00:00:00Z",
            image="x",
            image_id=image_id,
            config={},
            host_config=fields.pop("host_config", {}),
            backend="cloudrun",
            gateway="",
            state=RunState(status=status),
            **fields,
        )
        await self.store.create("containers", "t", container.id, container.model_dump(mode="json"))
        return container


@asynccontextmanager
async def image_world(directory: Path, auth: str = "", **policy: Any) -> AsyncIterator[World]:
    """Everything real but the registries' content."""
    async with registry_server() as own, registry_server(auth) as upstream:
        store = SqliteStore(directory / "store.db")
        events = Remembered()
        registry = StorageRegistry(RegistrySettings(own.url, "local/sockerless"))
        upstreams = UpstreamRegistries(RegistryPolicy(**policy))
        agent = directory / "agent"
        agent.write_bytes(b"agent" * 1000)
        appender = AgentLayerAppender(registry, BuiltInAgents({"amd64": agent}))
        files = RegistryLayerFiles(registry, directory)
        images = Images(store, registry, upstreams, TarArchives(directory), appender, files, events)
        try:
            yield World(store, own, upstream, registry, images, events)
        finally:
            await upstreams.close()
            await registry.close()
            await store.close()


def layer(**files: Any) -> bytes:
    """A layer's tar: content as bytes, a link's target as text, None for a directory. `__` in a name is a slash."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("__", "/"))
            if content is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()


def publish(
    server: RegistryServer, repository: str, *names: str, layers: tuple[bytes, ...] = (b"",), **config: Any
) -> dict[str, Any]:
    """Puts an image with gzipped layers into a registry; returns its descriptor."""
    plain = [one or layer(hello=b"hello") for one in layers]
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in plain]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "test"} for _ in plain],
        **config,
    }
    packed = [server.add_blob(repository, gzip.compress(one, mtime=0)) for one in plain]
    described = server.add_blob(repository, orjson.dumps(document))
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {**described, "mediaType": OCI_CONFIG},
        "layers": [{**one, "mediaType": f"{OCI_LAYER}+gzip"} for one in packed],
    }
    digest = server.add_manifest(repository, manifest, *names)
    return {
        "digest": digest,
        "mediaType": OCI_MANIFEST,
        "size": len(orjson.dumps(manifest)),
        "config": described["digest"],
        "layers": [one["digest"] for one in packed],
    }


async def content(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    """A request body in chunks."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
