"""`docker pull` and `docker load`: lines, records, tenants."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from control_plane.errors import Forbidden, NotFound, ServerError
from control_plane.registry.base import ANONYMOUS, Credentials
from control_plane.registry.manifest import sha256
from control_plane.registry.platform import Platform, parse
from control_plane.registry.reference import parse_named
from control_plane.services.progress import encode, progress_line
from tests import images as made
from tests.image_world import World, content, image_world, layer, publish
from tests.registry_server import repository_path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with image_world(tmp_path) as running:
        yield running


async def _pull(
    world: World, name: str, platform: Platform | None = None, tenant: str = "t", login: Credentials = ANONYMOUS
) -> list[dict[str, Any]]:
    return [line async for line in world.images.pull(tenant, parse_named(name), platform, login)]


async def _load(world: World, data: bytes, **options: Any) -> list[dict[str, Any]]:
    quiet = options.pop("quiet", True)
    return [line async for line in world.images.load("t", content(data), options.get("platform"), quiet=quiet)]


async def test_a_pull_is_told_as_docker_tells_it(world: World) -> None:
    described = publish(world.upstream, "a/b", "1")
    name = f"{world.upstream.host}/a/b:1"
    lines = await _pull(world, name)
    short = described["layers"][0][7:19]
    said = [(line["status"], line.get("id", "")) for line in lines if line["status"] != "Downloading"]
    assert said == [
        ("Pulling from a/b", "1"),
        ("Pulling fs layer", short),
        ("Verifying Checksum", short),
        ("Download complete", short),
        ("Pull complete", short),
        (f"Digest: {described['digest']}", ""),
        (f"Status: Downloaded newer image for {name}", ""),
    ]
    moving = [line for line in lines if line["status"] == "Downloading"]
    assert moving[-1]["progressDetail"]["current"] == moving[-1]["progressDetail"]["total"]
    assert encode(lines[0]) == b'{"status":"Pulling from a/b","id":"1"}\r\n'
    assert world.events.told == [("image", "pull", name, {"name": f"{world.upstream.host}/a/b"})]


def test_the_bar_is_dockers() -> None:
    line = progress_line("x", "Downloading", 1_500_000, 3_000_000)
    assert line["progress"] == "[=========================>                         ]    1.5MB/3MB"
    assert line["progressDetail"] == {"current": 1_500_000, "total": 3_000_000}


async def test_the_image_is_kept_per_tenant_by_digest(world: World) -> None:
    described = publish(world.upstream, "a/b", "1")
    name = f"{world.upstream.host}/a/b:1"
    await _pull(world, name)
    image = await world.images.resolve("t", name)
    host = world.upstream.host.replace(":", "-")
    assert image.repository == f"{world.own.host}/local/sockerless/t/{host}/a/b"
    assert (image.id, image.manifest_digest) == (described["config"], described["digest"])
    assert described["digest"] in world.own.manifests[repository_path(image.repository)]
    with pytest.raises(NotFound):
        await world.images.resolve("other", name)
    with pytest.raises(NotFound):
        await world.images.resolve("other", image.id)


async def test_an_image_is_found_by_every_name_it_has(world: World) -> None:
    described = publish(world.upstream, "a/b", "1")
    name = f"{world.upstream.host}/a/b"
    await _pull(world, f"{name}:1")
    image_id = described["config"]
    for text in (f"{name}:1", f"{name}@{described['digest']}", image_id, image_id[7:], image_id[7:19], image_id[:20]):
        assert (await world.images.resolve("t", text)).id == image_id
    for text, message in ((name, f"{name}:latest"), ("nosuch", "nosuch:latest"), ("sha256:" + "0" * 64,) * 2):
        with pytest.raises(NotFound) as caught:
            await world.images.resolve("t", text)
        assert caught.value.message == f"No such image: {message}"


async def test_what_is_up_to_date_is_not_fetched(world: World) -> None:
    described = publish(world.upstream, "a", "1")
    name = f"{world.upstream.host}/a:1"
    await _pull(world, name)
    world.upstream.requests.clear()
    lines = await _pull(world, name)
    assert world.upstream.requests == ["HEAD /v2/a/manifests/1"]
    assert [line["status"] for line in lines] == [
        "Pulling from a",
        f"Digest: {described['digest']}",
        f"Status: Image is up to date for {name}",
    ]


async def test_a_moved_tag_leaves_the_old_image_without_it(world: World) -> None:
    old = publish(world.upstream, "a", "1")
    name = f"{world.upstream.host}/a:1"
    await _pull(world, name)
    new = publish(world.upstream, "a", "1", layers=(layer(x=b"new"),))
    await _pull(world, name)
    assert (await world.images.resolve("t", name)).id == new["config"]
    left = await world.images.resolve("t", old["config"])
    assert left.tags == []
    assert left.repo_digests == [f"{world.upstream.host}/a@{old['digest']}"]


async def test_a_layer_of_an_own_image_is_not_fetched_again(world: World) -> None:
    shared = layer(base=b"base")
    first = publish(world.upstream, "a", "1", layers=(shared,))
    publish(world.upstream, "b", "1", layers=(shared, layer(x=b"x")))
    await _pull(world, f"{world.upstream.host}/a:1")
    world.upstream.requests.clear()
    lines = await _pull(world, f"{world.upstream.host}/b:1")
    digest = first["layers"][0]
    assert {"status": "Already exists", "progressDetail": {}, "id": digest[7:19]} in lines
    assert f"GET /v2/b/blobs/{digest}" not in world.upstream.requests


async def test_another_tenants_layer_has_to_be_brought(world: World) -> None:
    """Whoever publishes a manifest that names a layer without having it gets nothing of the other tenant's."""
    secret = publish(world.upstream, "private", "1", layers=(layer(secret=b"secret"),))
    await _pull(world, f"{world.upstream.host}/private:1", tenant="victim")
    publish(world.upstream, "evil", "1", layers=(layer(secret=b"secret"),))
    del world.upstream.blobs["evil"][secret["layers"][0]]
    with pytest.raises(ServerError, match="blob unknown"):
        await _pull(world, f"{world.upstream.host}/evil:1", tenant="thief")
    assert await world.images.list("thief", {}, (1, 47)) == []


async def test_a_login_is_used_and_not_kept(tmp_path: Path) -> None:
    async with image_world(tmp_path, "bearer") as world:
        publish(world.upstream, "a", "1")
        name = f"{world.upstream.host}/a:1"
        with pytest.raises(NotFound) as caught:
            await _pull(world, name)
        assert caught.value.message == (
            f"pull access denied for {world.upstream.host}/a, repository does not exist or may require "
            "'docker login': denied: requested access to the resource is denied"
        )
        await _pull(world, name, login=Credentials("user", "secret"))
        kept = b"".join(path.read_bytes() for path in tmp_path.glob("store.db*"))  # noqa: ASYNC240
        assert kept
        assert b"secret" not in kept


async def test_refusals_before_the_first_line_are_errors(world: World) -> None:
    host = world.upstream.host
    with pytest.raises(NotFound) as missing:
        await _pull(world, f"{host}/nosuch:1")
    assert missing.value.message == f"manifest for {host}/nosuch:1 not found: manifest unknown: manifest unknown"
    with pytest.raises(NotFound) as unknown:
        await _pull(world, f"{host}/nosuch")
    assert unknown.value.message.startswith(f"repository {host}/nosuch not found: name unknown: ")
    with pytest.raises(Forbidden, match="'scratch' is a reserved name"):
        await _pull(world, "scratch")


async def test_a_corrupt_layer_ends_the_pull_and_leaves_no_image(world: World) -> None:
    described = publish(world.upstream, "a", "1")
    world.upstream.corrupt.add(described["layers"][0])
    with pytest.raises(ServerError, match="filesystem layer verification failed"):
        await _pull(world, f"{world.upstream.host}/a:1")
    assert await world.images.list("t", {}, (1, 47)) == []
    assert not world.own.uploads


async def test_a_pull_given_up_leaves_no_upload(world: World) -> None:
    publish(world.upstream, "a", "1")
    lines = world.images.pull("t", parse_named(f"{world.upstream.host}/a:1"), None, ANONYMOUS)
    await anext(lines)
    await anext(lines)
    await lines.aclose()  # type: ignore[attr-defined]
    assert not world.own.uploads


async def test_every_tag_is_pulled_when_none_is_named(world: World) -> None:
    publish(world.upstream, "a", "1", "2")
    lines = await _pull(world, f"{world.upstream.host}/a")
    assert [line["id"] for line in lines if line["status"].startswith("Pulling from")] == ["1", "2"]
    assert lines[-1]["status"] == f"Status: Downloaded newer image for {world.upstream.host}/a"


async def test_another_platform_than_asked_for_is_warned_of(world: World) -> None:
    publish(world.upstream, "a", "1")
    lines = await _pull(world, f"{world.upstream.host}/a:1", parse("linux/arm64"))
    assert lines[-1]["status"].startswith("WARNING: image with reference")
    with pytest.raises(NotFound, match=r"does not match the specified platform \(linux/arm64\)"):
        await world.images.resolve("t", f"{world.upstream.host}/a:1", parse("linux/arm64"))


def _compressed(data: bytes) -> dict[str, bytes]:
    return {
        "plain": data,
        "gzip": gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
        "zstd": zstandard.compress(data),
        "xz": lzma.compress(data),
    }


@pytest.mark.parametrize("kind", ["plain", "gzip", "zstd", "xz"])
async def test_an_archive_is_loaded_in_any_compression(world: World, kind: str) -> None:
    data = made.archive("a/b:1", [layer(x=b"x"), layer(y=b"y")], {"Cmd": ["x"]})
    lines = await _load(world, _compressed(data)[kind])
    assert lines == [{"stream": "Loaded image: a/b:1\n"}]
    image = await world.images.resolve("t", "a/b:1")
    assert image.config["config"]["Cmd"] == ["x"]
    assert (await world.images.stat(image, "/y"))["size"] == 1
    assert ("image", "load", image.id, {"name": image.id}) in world.events.told


async def test_layers_may_be_compressed_in_the_archive(world: World) -> None:
    plain = layer(x=b"x" * 1000)
    archive = made.archive("a:1", [plain], {})
    for pack in (gzip.compress, zstandard.compress, lzma.compress):
        out = io.BytesIO()
        with tarfile.open(fileobj=io.BytesIO(archive)) as source, tarfile.open(fileobj=out, mode="w") as target:
            for member in source:
                held = source.extractfile(member)
                assert held is not None
                data = held.read()
                if member.name.endswith("layer.tar"):
                    data = pack(data)
                member.size = len(data)
                target.addfile(member, io.BytesIO(data))
        assert await _load(world, out.getvalue()) == [{"stream": "Loaded image: a:1\n"}]
        image = await world.images.resolve("t", "a:1")
        assert (await world.images.stat(image, "/x"))["size"] == 1000
        await world.images.remove("t", "a:1")


async def test_several_images_and_one_without_a_name(world: World) -> None:
    parts = [made.archive(f"a:{number}", [layer(x=str(number).encode())], {}) for number in (1, 2)]
    out = io.BytesIO()
    rows: list[Any] = []
    with tarfile.open(fileobj=out, mode="w") as target:
        for part in parts:
            with tarfile.open(fileobj=io.BytesIO(part)) as source:
                for member in source:
                    held = source.extractfile(member)
                    assert held is not None
                    if member.name == "manifest.json":
                        rows += orjson.loads(held.read())
                    else:
                        target.addfile(member, held)
        manifest = tarfile.TarInfo("manifest.json")
        manifest.size = len(orjson.dumps(rows))
        target.addfile(manifest, io.BytesIO(orjson.dumps(rows)))
    assert [line["stream"] for line in await _load(world, out.getvalue())] == [
        "Loaded image: a:1\n",
        "Loaded image: a:2\n",
    ]
    nameless = made.archive("x:1", [layer(z=b"z")], {}).replace(b'"RepoTags": ["x:1"]', b'"RepoTags": [     ]')
    lines = await _load(world, nameless)
    assert lines[0]["stream"].startswith("Loaded image ID: sha256:")
    assert (await world.images.resolve("t", lines[0]["stream"].split()[-1])).tags == []


async def test_a_loaded_tag_is_taken_from_the_old_image(world: World) -> None:
    await _load(world, made.archive("a:1", [layer(x=b"1")], {}))
    old = await world.images.resolve("t", "a:1")
    lines = await _load(world, made.archive("a:1", [layer(x=b"2")], {}))
    assert lines[0]["stream"] == (
        f"The image a:1 already exists, renaming the old one with ID {old.id} to empty string\n"
    )
    assert (await world.images.resolve("t", old.id)).tags == []


async def test_progress_is_told_when_asked_for(world: World) -> None:
    lines = await _load(world, made.archive("a:1", [layer(x=b"1" * 100_000)], {}), quiet=False)
    assert lines[0]["status"] == "Loading layer"


def _oci_layout(name: str, annotation: str) -> bytes:
    plain = layer(x=b"oci")
    packed = gzip.compress(plain)
    config = orjson.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [sha256(plain)]}}
    )
    kind = "application/vnd.oci.image"
    manifest = orjson.dumps(
        {
            "schemaVersion": 2,
            "config": {"mediaType": f"{kind}.config.v1+json", "digest": sha256(config), "size": len(config)},
            "layers": [{"mediaType": f"{kind}.layer.v1.tar+gzip", "digest": sha256(packed), "size": len(packed)}],
        }
    )
    entry = {
        "mediaType": f"{kind}.manifest.v1+json",
        "digest": sha256(manifest),
        "size": len(manifest),
        "annotations": {annotation: name},
    }
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": orjson.dumps({"manifests": [entry]})}
    files |= {f"blobs/sha256/{sha256(one)[7:]}": one for one in (config, manifest, packed)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


async def test_an_oci_layout_is_loaded(world: World) -> None:
    data = _oci_layout("docker.io/library/oci:1", "io.containerd.image.name")
    assert await _load(world, data) == [{"stream": "Loaded image: oci:1\n"}]
    assert (await world.images.stat(await world.images.resolve("t", "oci:1"), "/x"))["size"] == 3
    lines = await _load(world, _oci_layout("latest", "org.opencontainers.image.ref.name"))
    assert lines[0]["stream"].startswith("Loaded image ID: ")
