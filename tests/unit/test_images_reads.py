"""What looking up many images at once reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.model import Image
from control_plane.services.image_records import ImageRecords
from control_plane.services.records import Records
from control_plane.store.sqlite import SqliteStore
from control_plane.timestamps import now
from tests.counted_store import CountedStore


def _image(number: int, *tags: str) -> Image:
    return Image(
        id=f"sha256:{number:064x}",
        tenant="t",
        created_at=now(),
        tags=list(tags),
        repository="r",
        manifest_digest="sha256:0",
        config={},
    )


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[CountedStore]:
    store = CountedStore(SqliteStore(tmp_path / "store.db"))
    yield store
    await store.close()


async def test_many_images_are_found_by_one_list_at_most(store: CountedStore) -> None:
    kept = Records(store, "images", Image)
    for number in range(20):
        await kept.create("t", f"sha256:{number:064x}", _image(number, f"image{number}:latest"))
    records = ImageRecords(kept)
    wanted = [*(f"image{number}" for number in range(10)), "gone1", "gone2", "gone3", "NOT/a name"]
    expected = {f"image{number}": f"sha256:{number:064x}" for number in range(10)}
    store.reads = 0
    assert await records.ids("t", wanted) == expected
    assert store.reads == 20
    store.reads = 0
    assert await records.ids("t", wanted[:10]) == expected
    assert store.reads == 10  # each by the id it had
    store.reads = 0
    assert await records.ids("t", wanted) == expected
    assert store.reads == 10 + 20
