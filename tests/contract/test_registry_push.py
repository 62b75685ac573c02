"""Our registry over the wire: uploads, mounts, agent layers, looking into layers."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from control_plane.errors import NotFound, NotServed
from control_plane.model import Image
from control_plane.registry.base import ANONYMOUS, RegistryError
from control_plane.registry.manifest import DOCKER_LAYER, DOCKER_MANIFEST, OCI_MANIFEST
from control_plane.registry.push import RegistrySettings, StorageRegistry
from control_plane.registry.reference import parse_named
from tests.image_world import World, content, image_world, layer, publish
from tests.registry_server import registry_server, repository_path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with image_world(tmp_path) as made:
        yield made


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_repository_is_the_tenants_and_a_valid_path() -> None:
    registry = StorageRegistry(RegistrySettings("https://europe-docker.pkg.dev", "/project/images/"))
    names = {
        "busybox": "docker.io/library/busybox",
        "[::1]:5000/a__b": "1-5000/a-b",
        "Registry.Example/a": "registry.example/a",
    }
    for name, path in names.items():
        expected = f"europe-docker.pkg.dev/project/images/tenant-1/{path}"
        assert registry.repository("Tenant_1", parse_named(name)).replace("tenant_1", "tenant-1") == expected
    long = registry.repository("t", parse_named("/".join(["a" * 30] * 8)))
    assert len(long) < 255


async def test_a_stream_is_uploaded_once(world: World) -> None:
    data = bytes(range(256)) * 20_000
    repository = world.registry.repository("t", parse_named("a"))
    await asyncio.gather(*(world.registry.put_blob(repository, _digest(data), content(data)) for _ in range(3)))
    assert world.own.blobs[repository_path(repository)][_digest(data)] == data
    assert sum(request.startswith("PATCH") for request in world.own.requests) == 1
    assert await world.registry.has_blob(repository, _digest(data))
    assert b"".join([one async for one in world.registry.blob(repository, _digest(data), len(data))]) == data


async def test_nothing_is_kept_of_a_stream_that_breaks_or_lies(world: World) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield bytes(2 << 20)
        raise RuntimeError("gone")

    repository = world.registry.repository("t", parse_named("a"))
    with pytest.raises(RuntimeError, match="gone"):
        await world.registry.put_blob(repository, _digest(b"x"), breaking())
    with pytest.raises(RegistryError, match="digest invalid"):
        await world.registry.put_blob(repository, _digest(b"x"), content(b"y"))
    assert not world.own.blobs
    assert not world.own.uploads


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_uploads_are_authorised(auth: str) -> None:
    async with registry_server(auth) as server:
        registry = StorageRegistry(RegistrySettings(server.url, "p", username="user", password="secret"))
        repository = registry.repository("t", parse_named("a"))
        await registry.put_blob(repository, _digest(b"data"), content(b"data"))
        await registry.close()
        server.tokens.add("ready-made")

        async def token() -> str:
            return "ready-made"

        if auth == "bearer":
            registry = StorageRegistry(RegistrySettings(server.url, "p", access_token=token))
            await registry.put_blob(repository, _digest(b"other"), content(b"other"))
            await registry.close()
            assert len(server.blobs["p/t/docker.io/library/a"]) == 2


async def test_a_blob_of_another_repository_is_mounted(world: World) -> None:
    first = world.registry.repository("t", parse_named("a"))
    second = world.registry.repository("t", parse_named("b"))
    digest = await world.registry.put_bytes(first, b"shared")
    assert await world.registry.mount_blob(second, digest, first)
    assert await world.registry.has_blob(second, digest)
    assert not await world.registry.mount_blob(second, _digest(b"unknown"), first)
    assert not world.own.uploads


async def _pulled(world: World, *layers: bytes, **config: object) -> Image:
    publish(world.upstream, "a", "1", layers=layers, **config)
    name = f"{world.upstream.host}/a:1"
    async for _ in world.images.pull("t", parse_named(name), None, ANONYMOUS):
        pass
    return await world.images.resolve("t", name)


async def test_the_agent_is_appended_and_the_rest_kept(world: World) -> None:
    config = {"Entrypoint": ["/x"], "Cmd": ["y"], "User": "1000", "Labels": {"a": "b"}, "WorkingDir": "/w"}
    image = await _pulled(world, layer(hello=b"hello"), config=config)
    derived = await world.images.ensure_agent_layer(image)
    path = repository_path(image.repository)
    raw, media_type = world.own.manifests[path][derived.agent_digest or ""]
    manifest = orjson.loads(raw)
    assert media_type == manifest["mediaType"] == OCI_MANIFEST
    assert [one["digest"] for one in manifest["layers"][:-1]] == [one["digest"] for one in image.layers]
    document = orjson.loads(world.own.blobs[path][manifest["config"]["digest"]])
    assert document["config"] == {"Entrypoint": ["/.sockerless/agent"], "Labels": {"a": "b"}, "WorkingDir": "/w"}
    assert len(document["history"]) == 2
    packed = world.own.blobs[path][manifest["layers"][-1]["digest"]]
    plain = gzip.decompress(packed)
    assert document["rootfs"]["diff_ids"][-1] == _digest(plain)
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        agent = tar.getmember(".sockerless/agent")
        assert (agent.mode, agent.uid, agent.size) == (0o755, 0, 5000)
    # The user's own image is as it was.
    assert (await world.images.inspect("t", image.id, (1, 47)))["Config"]["Entrypoint"] == ["/x"]


async def test_the_derived_image_is_pushed_once_and_again_for_another_agent(world: World, tmp_path: Path) -> None:
    image = await _pulled(world, layer(hello=b"hello"))
    first = await world.images.ensure_agent_layer(image)
    world.own.requests.clear()
    assert await world.images.ensure_agent_layer(first) == first
    assert world.own.requests == []
    (tmp_path / "two").mkdir()
    from control_plane.registry.agent_binaries import BuiltInAgents
    from control_plane.registry.layer import AgentLayerAppender

    (tmp_path / "agent").write_bytes(b"newer")
    newer = AgentLayerAppender(world.registry, BuiltInAgents({"amd64": tmp_path / "agent"}))
    assert await newer.derive(first) != first.agent_digest
    (tmp_path / "agent").write_bytes(b"agent" * 1000)
    same = AgentLayerAppender(world.registry, BuiltInAgents({"amd64": tmp_path / "agent"}))
    assert await same.derive(first) == first.agent_digest


async def test_an_image_without_layers_gets_the_agent(world: World) -> None:
    publish(world.upstream, "empty", "1", layers=())
    async for _ in world.images.pull("t", parse_named(f"{world.upstream.host}/empty:1"), None, ANONYMOUS):
        pass
    derived = await world.images.ensure_agent_layer(await world.images.resolve("t", f"{world.upstream.host}/empty:1"))
    raw, _ = world.own.manifests[repository_path(derived.repository)][derived.agent_digest or ""]
    assert len(orjson.loads(raw)["layers"]) == 1


async def test_a_docker_image_stays_one(world: World) -> None:
    image = await _pulled(world, layer(hello=b"hello"))
    docker = image.model_copy(update={"layers": [{**one, "mediaType": DOCKER_LAYER} for one in image.layers]})
    derived = await world.images.ensure_agent_layer(docker)
    raw, media_type = world.own.manifests[repository_path(image.repository)][derived.agent_digest or ""]
    assert media_type == DOCKER_MANIFEST
    assert orjson.loads(raw)["layers"][-1]["mediaType"] == DOCKER_LAYER


async def test_there_is_no_agent_for_every_processor(world: World) -> None:
    image = await _pulled(world, layer(hello=b"hello"), architecture="s390x")
    with pytest.raises(NotServed, match=r"no agent for s390x images \(available: amd64\)"):
        await world.images.ensure_agent_layer(image)


async def _tree(world: World) -> Image:
    lower = layer(
        etc=None,
        etc__passwd=b"root",
        etc__old=b"old",
        opt=None,
        opt__a=b"a",
        opt__b=b"b",
        bin="usr/bin",
        usr__bin__sh="busybox",
        usr__bin__busybox=b"busybox" * 100,
        up="../../../etc",
        circle="circle",
        gone=b"gone",
    )
    upper = layer(
        **{"etc__.wh.old": b"", "opt__.wh..wh..opq": b"", "opt__c": b"c", ".wh.gone": b"", "etc__passwd": b"toor!"}
    )
    return await _pulled(world, lower, upper)


async def test_files_are_seen_through_the_layers(world: World) -> None:
    image = await _tree(world)
    assert (await world.images.stat(image, "/etc/passwd"))["size"] == 5
    assert (await world.images.stat(image, "/up/passwd"))["name"] == "passwd"
    shell = await world.images.stat(image, "/bin/sh")
    assert (shell["name"], shell["linkTarget"], shell["mode"] >> 27 & 1) == ("sh", "/usr/bin/busybox", 1)
    assert (await world.images.stat(image, "/bin/"))["mode"] >> 31 == 1
    assert (await world.images.stat(image, "/"))["name"] == "/"
    for path in ("/etc/old", "/opt/a", "/gone", "/nosuch", "/etc/passwd/x", "/circle/x", "/etc/passwd/"):
        with pytest.raises(NotFound):
            await world.images.stat(image, path)


async def test_a_layer_is_indexed_once(world: World) -> None:
    image = await _tree(world)
    await world.images.stat(image, "/etc")
    world.own.requests.clear()
    await world.images.stat(image, "/bin/sh")
    assert world.own.requests == []


async def test_a_directory_is_copied_out_as_the_layers_show_it(world: World) -> None:
    image = await _tree(world)
    data = b"".join([one async for one in world.images.read(image, "/etc")])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert sorted(tar.getnames()) == ["etc", "etc/passwd"]
        held = tar.extractfile("etc/passwd")
        assert held is not None
        assert held.read() == b"toor!"
    data = b"".join([one async for one in world.images.read(image, "/bin/busybox")])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getmember("busybox").size == 700
    data = b"".join([one async for one in world.images.read(image, "/")])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert "opt/c" in tar.getnames()
        assert "opt/a" not in tar.getnames()
    with pytest.raises(NotFound):
        await anext(aiter(world.images.read(image, "/gone")))


async def test_hard_links_are_copied_with_their_content(world: World) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("a/one")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
        for name in ("b/two", "b/three"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.LNKTYPE, "a/one"
            tar.addfile(link)
    image = await _pulled(world, out.getvalue())
    assert (await world.images.stat(image, "/b/two"))["size"] == 3
    data = b"".join([one async for one in world.images.read(image, "/b")])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for name in ("b/two", "b/three"):
            held = tar.extractfile(name)
            assert held is not None
            assert held.read() == b"abc"
