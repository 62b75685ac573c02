"""The local cloud's registry is one that we can keep images in: with and without users."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette

from control_plane.registry.base import ANONYMOUS, RegistryError
from control_plane.registry.client import UpstreamRegistries
from control_plane.registry.endpoints import RegistryPolicy
from control_plane.registry.manifest import Descriptor, sha256, write
from control_plane.registry.platform import Platform
from control_plane.registry.push import RegistrySettings, StorageRegistry
from control_plane.registry.reference import Reference, parse_named
from local_cloud.calls import Calls
from local_cloud.gcp.artifact_registry.auth import RegistryAuth
from local_cloud.gcp.artifact_registry.model import Registry
from local_cloud.gcp.artifact_registry.service import RegistryFace
from local_cloud.state import State
from tests.image_world import content


@asynccontextmanager
async def _served(directory: Path, auth: RegistryAuth) -> AsyncIterator[str]:
    registry = Registry(State(directory / "state.db"), directory / "registry")
    app = Starlette(routes=RegistryFace(registry, auth, Calls()).routes())
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", ws="none")
    )
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    try:
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize("scheme", ["none", "basic", "bearer"])
async def test_an_image_is_kept_found_and_deleted(tmp_path: Path, scheme: str) -> None:
    users = {} if scheme == "none" else {"user": "secret"}
    async with _served(tmp_path, RegistryAuth(users, "basic" if scheme == "none" else scheme)) as host:
        registry = StorageRegistry(RegistrySettings(f"http://{host}", "local/images", None, "user", "secret"))
        upstreams = UpstreamRegistries(RegistryPolicy())
        repository = registry.repository("t", parse_named("busybox"))
        data = bytes(range(256)) * 10_000
        await registry.put_blob(repository, sha256(data), content(data))
        config = await registry.put_bytes(repository, b'{"rootfs":{"diff_ids":[]}}')
        layer = Descriptor("application/vnd.oci.image.layer.v1.tar", sha256(data), len(data))
        manifest, media_type = write(Descriptor("", config, 26), [layer.document()])
        digest = await registry.put_manifest(repository, manifest, media_type)
        other = registry.repository("t", parse_named("other"))
        assert await registry.mount_blob(other, sha256(data), repository)
        assert b"".join([one async for one in registry.blob(other, sha256(data), len(data))]) == data
        if scheme == "none":
            wanted = Reference(host, repository.partition("/")[2], None, digest)
            found = await upstreams.find(wanted, Platform(), ANONYMOUS)
            assert found.manifest.layers == (layer,)
        else:
            with pytest.raises(RegistryError):
                await upstreams.find(Reference(host, "x", "1"), Platform(), ANONYMOUS)
        await registry.delete_manifest(repository, digest)
        await registry.delete_manifest(repository, digest)
        with pytest.raises(RegistryError, match="digest"):
            await registry.put_blob(repository, sha256(b"x"), content(b"y"))
        await upstreams.close()
        await registry.close()
