"""Docker's volumes: names, drivers, filters, conflicts, anonymous ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.errors import Conflict, InvalidParameter, NotFound, Unavailable
from control_plane.model import Container, Mount, RunState, Volume
from control_plane.services.volumes import ANONYMOUS_LABEL, Volumes
from control_plane.store.sqlite import SqliteStore
from tests.image_world import Remembered


class Storage:
    """VolumeStorage that remembers."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.refuses = False

    async def create(self, volume: Volume) -> None:
        self.names.add(volume.name)

    async def remove(self, volume: Volume) -> None:
        if self.refuses:
            raise Unavailable("storage is away")
        self.names.discard(volume.name)

    def mountpoint(self, volume: Volume) -> str:
        return f"gs://bucket/{volume.tenant}/{volume.name}"


class World:
    def __init__(self, directory: Path) -> None:
        self.store = SqliteStore(directory / "store.db")
        self.storage = Storage()
        self.events = Remembered()
        self.volumes = Volumes(self.store, self.storage, self.events)

    async def container(self, *volumes: str, number: int = 1, tenant: str = "t") -> Container:
        container = Container(
            id=f"{number:064x}",
            tenant=tenant,
            name=f"c{number}",
            created_at="2026-01-01T00:00:00Z",
            image="x",
            image_id="x",
            config={},
            host_config={},
            backend="cloudrun",
            gateway="",
            mounts=[Mount(type="volume", name=name, destination="/data") for name in volumes],
            state=RunState(status="exited"),
        )
        await self.store.create("containers", tenant, container.id, container.model_dump(mode="json"))
        return container

    async def names(self, **filters: list[str]) -> list[str]:
        return [volume.name for volume in await self.volumes.list("t", filters)]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.store.close()


async def test_a_volume_is_created_once(world: World) -> None:
    first = await world.volumes.create("t", "data", labels={"a": "b"})
    again = await world.volumes.create("t", "data", labels={"other": "x"})
    assert first == again
    assert world.events.told == [("volume", "create", "data", {"driver": "local"})]
    assert world.storage.names == {"data"}
    assert await world.volumes.list("other", {}) == []


async def test_a_volume_is_shown_as_dockers(world: World) -> None:
    volume = await world.volumes.create("t", "data", labels={"a": "b"})
    view = world.volumes.view(volume)
    assert view.pop("CreatedAt").endswith("Z")
    assert view == {
        "Driver": "local",
        "Labels": {"a": "b"},
        "Mountpoint": "gs://bucket/t/data",
        "Name": "data",
        "Options": None,
        "Scope": "local",
    }


async def test_an_anonymous_volume_has_an_id_for_a_name(world: World) -> None:
    volume = await world.volumes.ensure("t", None)
    assert len(volume.name) == 64
    assert volume.anonymous
    assert volume.labels == {ANONYMOUS_LABEL: ""}
    assert not (await world.volumes.ensure("t", "named")).anonymous


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("x",), InvalidParameter, "create x: volume name is too short, names should be at least two alphanumeric"),
        (("../x",), InvalidParameter, 'create ../x: "../x" includes invalid characters for a local volume name, only '),
        (("a" * 300,), InvalidParameter, "longer than 255"),
        (("ab", "nfs"), NotFound, 'create ab: error looking up volume plugin nfs: plugin "nfs" not found'),
        (("ab", "local", {"foo": "1"}), InvalidParameter, 'create ab: invalid option: "foo"'),
        (("ab", "local", {"type": "nfs"}), InvalidParameter, 'option "type" of the local driver cannot be served'),
    ],
)
async def test_what_is_not_served_is_refused(
    world: World, arguments: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        await world.volumes.create("t", *arguments)
    assert message in str(caught.value)
    assert not world.storage.names


async def test_lists_are_filtered(world: World) -> None:
    await world.volumes.create("t", "data-1", labels={"a": "b"})
    await world.volumes.create("t", "data-2")
    await world.volumes.create("t", "other")
    await world.container("other")
    assert await world.names() == ["data-1", "data-2", "other"]
    assert await world.names(name=["data"]) == ["data-1", "data-2"]
    assert await world.names(name=["^other$"]) == ["other"]
    assert await world.names(name=["(a+)+$"]) == []
    assert await world.names(driver=["local"]) == ["data-1", "data-2", "other"]
    assert await world.names(driver=["nfs"]) == []
    assert await world.names(label=["a=b"]) == ["data-1"]
    assert await world.names(dangling=["true"]) == ["data-1", "data-2"]
    assert await world.names(dangling=["false"]) == ["other"]
    with pytest.raises(InvalidParameter, match="invalid filter 'nosuch'"):
        await world.names(nosuch=["x"])


async def test_a_volume_in_use_stays(world: World) -> None:
    await world.volumes.create("t", "data")
    first, second = await world.container("data"), await world.container("data", number=2)
    with pytest.raises(Conflict) as caught:
        await world.volumes.remove("t", "data", force=True)
    assert caught.value.message == f"remove data: volume is in use - [{first.id}, {second.id}]"


async def test_a_volume_is_removed(world: World) -> None:
    await world.volumes.create("t", "data")
    await world.volumes.remove("t", "data")
    assert world.events.told[-1] == ("volume", "destroy", "data", {"driver": "local"})
    assert not world.storage.names
    with pytest.raises(NotFound, match="get data: no such volume"):
        await world.volumes.remove("t", "data")
    await world.volumes.remove("t", "data", force=True)


async def test_a_volume_that_the_cloud_will_not_delete_stays_on_record(world: World) -> None:
    await world.volumes.create("t", "data")
    world.storage.refuses = True
    with pytest.raises(Unavailable):
        await world.volumes.remove("t", "data")
    assert await world.names() == ["data"]


async def test_prune_takes_anonymous_ones_unless_told_otherwise(world: World) -> None:
    anonymous = await world.volumes.ensure("t", None)
    used = await world.volumes.ensure("t", None)
    await world.volumes.create("t", "named")
    await world.volumes.create("t", "kept", labels={"keep": ""})
    await world.container(used.name)
    assert await world.volumes.prune("t", {}) == {"SpaceReclaimed": 0, "VolumesDeleted": [anonymous.name]}
    report = await world.volumes.prune("t", {"all": ["1"], "label!": ["keep"]})
    assert report["VolumesDeleted"] == ["named"]
    assert (await world.volumes.prune("t", {}, all_volumes=True))["VolumesDeleted"] == ["kept"]
    with pytest.raises(InvalidParameter, match="only one value is expected"):
        await world.volumes.prune("t", {"all": ["1", "0"]})
    with pytest.raises(InvalidParameter, match="invalid syntax"):
        await world.volumes.prune("t", {"all": ["maybe"]})


async def test_a_containers_anonymous_volumes_go_with_it(world: World) -> None:
    own, shared = await world.volumes.ensure("t", None), await world.volumes.ensure("t", None)
    await world.volumes.create("t", "named")
    container = await world.container(own.name, shared.name, "named")
    await world.container(shared.name, number=2)
    await world.volumes.remove_anonymous(container)
    assert await world.names() == sorted([shared.name, "named"])
