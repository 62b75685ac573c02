"""The Cloud Run backend against the local cloud, which refuses what the real service refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from control_plane.backends.base import RunOutcome
from control_plane.backends.cloud_run.backend import CloudRunBackend
from control_plane.backends.cloud_run.settings import CloudRunSettings, load_settings
from control_plane.backends.gcp.clients import Clients, Endpoint
from control_plane.backends.gcp.storage import ObjectStorage
from control_plane.backends.gcp.volume_storage import BucketVolumes
from control_plane.errors import InvalidParameter
from control_plane.model import Container, Execution, Image, Mount, RunState, Volume
from local_cloud.server import LocalCloud
from tests.contract import local_gcp_fixtures


class Images:
    """Every image has an agent layer: the image itself."""

    async def stat(self, image: Image, path: str) -> Mapping[str, Any]:
        return {"name": path}

    async def ensure_agent_layer(self, image: Image) -> Image:
        return image.model_copy(update={"agent_digest": image.manifest_digest})


@dataclass
class World:
    cloud: LocalCloud
    backend: CloudRunBackend
    settings: CloudRunSettings
    image: Image
    specs: dict[str, Any]

    def calls(self) -> dict[str, int]:
        return {name.rpartition(".")[2]: count for name, count in self.cloud.calls.counts().items() if count}

    async def ended(self, execution: Execution) -> RunOutcome:
        while True:
            outcome = await self.backend.outcome(execution)
            if outcome.finished:
                return outcome
            await asyncio.sleep(0.01)

    async def started(self) -> None:
        async with asyncio.timeout(10):
            while not self.specs:  # noqa: ASYNC110 (the process is started by the local cloud)
                await asyncio.sleep(0.01)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with local_gcp_fixtures.local_cloud(tmp_path / "cloud", create_delay=0.05) as (cloud, _):
        reference = await local_gcp_fixtures.push(cloud.http_url, "local/apps/tool:latest")
        repository = reference.rpartition(":")[0]
        digest = (await _digest(cloud.http_url, "local/apps/tool")).strip()
        settings = load_settings(
            project="local", bucket="volumes-bucket", bind_rules="/=nfs://localhost/",
            gcp_endpoint=cloud.grpc_target, log_drain=0.2, writes_per_minute=0, log_reads_per_minute=0,
        )  # fmt: skip
        clients = Clients(Endpoint(grpc=cloud.grpc_target, storage=cloud.http_url))
        backend = CloudRunBackend(settings, clients, Images())
        image = Image(
            id="sha256:1", tenant="acme", created_at="", tags=["tool:latest"], repository=repository,
            manifest_digest=digest, config={"config": {}},
        )  # fmt: skip
        yield World(cloud, backend, settings, image, cloud.runtime.specs)
        await backend.close()


async def _digest(url: str, name: str) -> str:
    import httpx

    async with httpx.AsyncClient(base_url=url) as client:
        answer = await client.head(f"/v2/{name}/manifests/latest", headers={"Accept": local_gcp_fixtures.MANIFEST})
        return answer.headers["Docker-Content-Digest"]


def container(*argv: str, id: str = "ab" * 32, **changes: Any) -> Container:
    plain = Container(
        id=id, tenant="acme", name="c", created_at="", image="tool", image_id="sha256:1", config={"Cmd": list(argv)},
        host_config={}, backend="cloudrun", gateway="http://127.0.0.1:1", state=RunState(run=1, status="starting"),
    )  # fmt: skip
    return plain.model_copy(update=changes)


async def test_without_agent_the_users_command_runs_with_its_exit_code_and_logs(world: World) -> None:
    held = container("/bin/sh", "-c", "echo out; echo err >&2; printf end; exit 7")
    execution = await world.backend.run(held, world.image, "token", agentless=True)
    outcome = await world.ended(execution)
    assert (outcome.exit_code, outcome.error) == (7, "")
    lines = world.backend.logs(
        held.model_copy(update={"execution": execution}), since=None, until=None, tail=None, follow=True
    )
    found = [(line.stream, line.text) async for line in lines]
    assert sorted(found) == [("stderr", b"err\n"), ("stdout", b"end\n"), ("stdout", b"out\n")]


async def test_second_run_of_an_image_and_shape_is_one_write(world: World) -> None:
    world.cloud.calls.reset()
    await world.backend.run(container(), world.image, "token")
    assert world.calls()["CreateJob"] == 1
    world.cloud.calls.reset()
    await world.backend.run(container(id="cd" * 32), world.image, "token")
    assert world.calls() == {"RunJob": 1}


async def test_what_the_agent_is_given(world: World) -> None:
    await world.backend.run(container(), world.image, "token")
    await world.started()
    (spec,) = world.specs.values()
    assert spec.argv[0] == "/.sockerless/agent"
    ours = {name: value for name, value in spec.env.items() if name.startswith("SOCKERLESS_")}
    assert ours == {
        "SOCKERLESS_CALLBACK_URL": "http://127.0.0.1:1",
        "SOCKERLESS_CONTAINER_ID": "ab" * 32,
        "SOCKERLESS_AGENT_TOKEN": "token",
        "SOCKERLESS_RUN": "1",
    }


async def test_binds_and_volumes_are_mounted_by_the_platform(world: World, tmp_path: Path) -> None:
    storage = ObjectStorage("local", world.settings.bucket_name, endpoint=world.cloud.http_url)
    await BucketVolumes(storage).create(Volume(name="data", tenant="acme", created_at=""))
    mounts = [
        Mount(type="bind", source=str(tmp_path), destination="/work"),
        Mount(type="volume", name="data", destination="/data"),
    ]
    held = container(mounts=mounts)
    placed = world.backend.platform_mounts(held)
    assert [(m.source, m.subpath) for m in placed] == [
        ("/.sockerless/volumes/0", str(tmp_path).lstrip("/")), ("/.sockerless/volumes/1", ""),
    ]  # fmt: skip
    await world.backend.run(held, world.image, "token")
    await world.started()
    (spec,) = world.specs.values()
    assert [mount.target for mount in spec.mounts] == ["/.sockerless/volumes/0", "/.sockerless/volumes/1"]
    assert (spec.mounts[0].source / placed[0].subpath).samefile(tmp_path)
    assert spec.mounts[1].source.is_dir()
    await storage.close()


async def test_cancel_ends_the_process(world: World) -> None:
    held = container("/bin/sleep", "600")
    execution = await world.backend.run(held, world.image, "token", agentless=True)
    await world.started()
    await world.backend.cancel(execution)
    outcome = await world.ended(execution)
    assert outcome.exit_code == 143 or "cancel" in outcome.error
    await world.backend.cancel(execution)


async def test_an_image_that_is_not_there_is_told_by_the_platform(world: World) -> None:
    gone = world.image.model_copy(update={"manifest_digest": "sha256:" + "0" * 64})
    with pytest.raises(Exception, match="not found"):
        await world.backend.run(container(), gone, "token")


async def test_a_reserved_name_in_the_environment_is_refused_with_the_platforms_text(world: World) -> None:
    held = container("true", config={"Cmd": ["true"], "Env": ["PORT=1"]})
    with pytest.raises(InvalidParameter, match="PORT"):
        await world.backend.run(held, world.image, "token", agentless=True)


async def test_sizes_and_labels_are_what_the_service_takes(world: World) -> None:
    for number, host_config in enumerate(
        [{"NanoCpus": 2_500_000_000}, {"Memory": 20 << 30}, {"NanoCpus": 100_000_000, "Memory": 600_000_000}]
    ):
        held = container(id=f"{number:064x}", tenant="Tenant ÄÖ/1", host_config=host_config)
        await world.backend.run(held, world.image, "token")


async def test_remove_deletes_the_containers_own_job(world: World) -> None:
    held = container("/bin/true")
    execution = await world.backend.run(held, world.image, "token", agentless=True)
    await world.ended(execution)
    world.cloud.calls.reset()
    await world.backend.remove(held.model_copy(update={"execution": execution}))
    await world.backend.remove(held.model_copy(update={"execution": execution}))
    assert world.calls() == {"DeleteJob": 2}
