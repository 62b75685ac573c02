"""`docker images`, `tag`, `rmi`, `image prune`, `history`, `inspect`: moby's rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.errors import Conflict, InvalidParameter, NotFound
from control_plane.model import Image
from control_plane.registry.reference import parse_named
from control_plane.services.filters import path_match
from control_plane.services.image_removal import single_reference
from tests import images as made
from tests.image_world import World, content, image_world, layer

_NOW = (1, 50)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with image_world(tmp_path) as running:
        yield running


async def _image(world: World, tag: str, mark: str = "", **config: Any) -> Image:
    data = made.archive(tag, [layer(base=b"base"), layer(x=(mark or tag).encode())], config)
    async for _ in world.images.load("t", content(data), None, quiet=True):
        pass
    return await world.images.resolve("t", tag)


async def _tags(world: World, **filters: list[str]) -> list[list[str]]:
    return sorted(row["RepoTags"] for row in await world.images.list("t", filters, _NOW))


async def test_a_row_is_dockers(world: World) -> None:
    image = await _image(world, "a:1", Labels={"k": "v"})
    rows = await world.images.list("t", {}, (1, 47))
    assert rows == [
        {
            "Containers": -1,
            "Created": 1767225600,
            "Id": image.id,
            "Labels": {"k": "v"},
            "ParentId": "",
            "RepoDigests": [],
            "RepoTags": ["a:1"],
            "SharedSize": -1,
            "Size": image.size,
        }
    ]
    assert (await world.images.list("t", {}, (1, 40)))[0]["VirtualSize"] == image.size


async def test_lists_are_filtered(world: World) -> None:
    await _image(world, "a:1", Labels={"k": "v"})
    await _image(world, "ghcr.io/x/b:2")
    await _image(world, "c:3")
    await world.images.tag("t", "a:1", parse_named("extra:1"))
    await _image(world, "c:3", mark="newer")
    assert await _tags(world) == [[], ["a:1", "extra:1"], ["c:3"], ["ghcr.io/x/b:2"]]
    assert await _tags(world, dangling=["true"]) == [[]]
    assert await _tags(world, dangling=["0"]) == [["a:1", "extra:1"], ["c:3"], ["ghcr.io/x/b:2"]]
    assert await _tags(world, label=["k"]) == await _tags(world, label=["k=v"]) == [["a:1", "extra:1"]]
    assert await _tags(world, label=["k=w"]) == []
    assert await _tags(world, reference=["a"]) == [["a:1"]]
    assert await _tags(world, reference=["*:1"]) == [["a:1", "extra:1"]]
    assert await _tags(world, reference=["ghcr.io/*/b"]) == [["ghcr.io/x/b:2"]]
    assert await _tags(world, reference=["ghcr.io/*"]) == []
    assert await _tags(world, before=["a:1"]) == []
    assert await _tags(world, until=["2020-01-01"]) == []
    with pytest.raises(InvalidParameter, match="invalid filter 'nosuch'"):
        await _tags(world, nosuch=["x"])
    with pytest.raises(InvalidParameter, match=r"invalid filter 'dangling=\[x\]'"):
        await _tags(world, dangling=["x"])
    with pytest.raises(NotFound, match="No such image: nosuch:latest"):
        await _tags(world, since=["nosuch"])


async def test_shared_sizes_count_layers_of_several_images(world: World) -> None:
    image = await _image(world, "a:1")
    await _image(world, "b:1")
    rows = await world.images.list("t", {}, _NOW, shared_size=True)
    assert {row["SharedSize"] for row in rows} == {image.layers[0]["size"]}


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*", "a", True),
        ("*", "a/b", False),
        ("a?c", "abc", True),
        ("[a-c]x", "bx", True),
        ("[^a]x", "ax", False),
        ("a.c", "abc", False),
        ("\\*", "*", True),
        ("a**b", "axxb", True),
    ],
)
def test_patterns_stop_at_slashes(pattern: str, name: str, matches: bool) -> None:
    assert path_match(pattern, name) is matches


@pytest.mark.parametrize("pattern", ["[", "a\\", "[]", "*a" * 20])
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidParameter):
        path_match(pattern, "x")


async def test_an_image_is_inspected(world: World) -> None:
    image = await _image(world, "a:1", Cmd=["sh"], ExposedPorts={"80/tcp": {}})
    view = await world.images.inspect("t", "a:1", _NOW)
    assert view["Id"] == image.id
    assert view["RootFS"]["Layers"] == image.config["rootfs"]["diff_ids"]
    assert view["Config"] == {
        "Cmd": ["sh"],
        "Entrypoint": None,
        "Env": None,
        "ExposedPorts": {"80/tcp": {}},
        "Labels": None,
        "OnBuild": None,
        "User": "",
        "Volumes": None,
        "WorkingDir": "",
    }
    assert view["Metadata"]["LastTagTime"] > "2026"
    old = await world.images.inspect("t", "a:1", (1, 43))
    assert old["Config"]["AttachStdin"] is False
    assert (old["VirtualSize"], old["ContainerConfig"]) == (image.size, {})
    rows = await world.images.history("t", "a:1")
    assert [row["Id"] for row in rows] == [image.id, "<missing>"]
    assert [row["Size"] for row in rows] == [one["size"] for one in reversed(image.layers)]


async def test_tags_are_given_and_taken(world: World) -> None:
    a, b = await _image(world, "a:1"), await _image(world, "b:1")
    await world.images.tag("t", "a:1", parse_named("x:1"))
    await world.images.tag("t", b.id, parse_named("x:1"))
    assert (await world.images.resolve("t", "x:1")).id == b.id
    assert (await world.images.resolve("t", a.id)).tags == ["a:1"]
    assert ("image", "tag", b.id, {"name": "x:1"}) in world.events.told
    with pytest.raises(NotFound):
        await world.images.tag("t", "nosuch", parse_named("y:1"))
    with pytest.raises(InvalidParameter, match="ambiguous tag"):
        await world.images.tag("t", "a:1", parse_named("sha256:1"))


async def test_a_tag_given_by_many_at_once_is_in_one_place(world: World) -> None:
    images = [await _image(world, f"a:{number}") for number in range(4)]
    await asyncio.gather(*(world.images.tag("t", one.id, parse_named("x:1")) for one in images * 3))
    rows = await world.images.list("t", {"reference": ["x:1"]}, _NOW)
    assert len(rows) <= 1


async def test_a_name_is_untagged_before_the_image_is_deleted(world: World) -> None:
    image = await _image(world, "a:1")
    await world.images.tag("t", "a:1", parse_named("b:1"))
    assert await world.images.remove("t", "a:1") == [{"Untagged": "a:1"}]
    rows = await world.images.remove("t", "b:1")
    assert rows[0] == {"Untagged": "b:1"}
    assert rows[1] == {"Deleted": image.id}
    assert len(rows) == 4
    assert not any(world.own.manifests.values())
    assert [one[:3] for one in world.events.told[-3:]] == [
        ("image", "untag", image.id),
        ("image", "untag", image.id),
        ("image", "delete", image.id),
    ]
    with pytest.raises(NotFound):
        await world.images.remove("t", "b:1")


async def test_shared_layers_are_not_among_the_deleted(world: World) -> None:
    await _image(world, "a:1")
    await _image(world, "b:1")
    assert len(await world.images.remove("t", "a:1")) == 3


async def test_an_id_with_several_tags_needs_force(world: World) -> None:
    image = await _image(world, "a:1")
    await world.images.tag("t", "a:1", parse_named("b:1"))
    with pytest.raises(Conflict) as caught:
        await world.images.remove("t", image.id[7:19])
    assert caught.value.message == (
        f"conflict: unable to delete {image.id[7:19]} (must be forced) - image is referenced in multiple repositories"
    )
    rows = await world.images.remove("t", image.id, force=True)
    assert [row for row in rows if "Untagged" in row] == [{"Untagged": "a:1"}, {"Untagged": "b:1"}]


async def test_a_running_container_holds_its_image(world: World) -> None:
    image = await _image(world, "a:1")
    container = await world.container(image.id, "running")
    short, user = image.id[7:19], container.id[:12]
    with pytest.raises(Conflict) as by_name:
        await world.images.remove("t", "a:1")
    assert by_name.value.message == (
        f'conflict: unable to remove repository reference "a:1" (must force) - container {user} '
        f"is using its referenced image {short}"
    )
    with pytest.raises(Conflict) as by_id:
        await world.images.remove("t", image.id, force=True)
    assert by_id.value.message == (
        f"conflict: unable to delete {short} (cannot be forced) - image is being used by running container {user}"
    )
    assert await world.images.remove("t", "a:1", force=True) == [{"Untagged": "a:1"}]
    assert (await world.images.resolve("t", image.id)).tags == []


async def test_a_stopped_container_keeps_what_it_is_made_of(world: World) -> None:
    image = await _image(world, "a:1")
    container = await world.container(image.id)
    with pytest.raises(Conflict) as caught:
        await world.images.remove("t", image.id)
    assert caught.value.message.endswith(
        f"(must be forced) - image is being used by stopped container {container.id[:12]}"
    )
    assert await world.images.remove("t", image.id, force=True) == [{"Untagged": "a:1"}]
    assert (await world.images.resolve("t", image.id)).manifest_digest


async def test_prune_takes_what_nobody_names_or_uses(world: World) -> None:
    await _image(world, "a:1", mark="old")
    new = await _image(world, "a:1", mark="new")
    used = await _image(world, "b:1", Labels={"keep": ""})
    await world.container(used.id)
    report = await world.images.prune("t", {})
    assert [row for row in report["ImagesDeleted"] if row.get("Deleted") in {new.id, used.id}] == []  # type: ignore[attr-defined]
    assert report["SpaceReclaimed"]
    assert await world.images.prune("t", {"dangling": ["false"], "label!": ["keep"]}) == {
        "ImagesDeleted": [
            {"Untagged": "a:1"},
            {"Deleted": new.id},
            {"Deleted": (await _chains(new))[1]},
        ],
        "SpaceReclaimed": new.layers[1]["size"],
    }
    assert await world.images.prune("t", {"dangling": ["false"]}) == {"ImagesDeleted": None, "SpaceReclaimed": 0}
    assert await _tags(world) == [["b:1"]]
    with pytest.raises(InvalidParameter):
        await world.images.prune("t", {"nosuch": ["x"]})


async def _chains(image: Image) -> list[str]:
    from control_plane.services.image_views import chain_ids

    return chain_ids(image)


@pytest.mark.parametrize(
    ("references", "single"),
    [
        ([], False),
        (["a:1"], True),
        (["a:1", "a@sha256:x"], True),
        (["a:1", "a:2"], False),
        (["a:1", "b@sha256:x"], False),
        (["a@sha256:x", "a@sha256:y"], True),
        (["h:5000/a:1", "h:5000/a@sha256:x"], True),
    ],
)
def test_a_single_reference_is_one_repository_with_one_tag(references: list[str], single: bool) -> None:
    assert single_reference(references) is single
