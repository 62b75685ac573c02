"""The pool: what is claimed, kept ready, released; with records in memory and deployments that only count."""

from __future__ import annotations

import asyncio

import pytest

from control_plane.backends.calls import CloudError
from control_plane.backends.cloud_functions.plan import Shape
from control_plane.backends.cloud_functions.pool import Pool
from control_plane.backends.gcp import resources
from control_plane.model import CloudFunction
from tests.unit.cloud_function_records import MemoryRecords, function

LIMITS = resources.Limits(1, 1 << 30)


def shape(tenant: str = "acme", digest: str = "s") -> Shape:
    return Shape(tenant, digest, LIMITS, {})


class Deploying:
    """Deploys at once, or fails."""

    def __init__(self, records: MemoryRecords) -> None:
        self.records = records
        self.deployed: list[str] = []
        self.error: Exception | None = None

    async def __call__(self, wanted: Shape) -> CloudFunction:
        if self.error is not None:
            raise self.error
        made = function(f"skls-spare{len(self.deployed)}", tenant=wanted.tenant, shape=wanted.digest)
        self.deployed.append(made.name)
        await self.records.put(made)
        return made


@pytest.fixture
def records() -> MemoryRecords:
    return MemoryRecords()


@pytest.fixture
def deploying(records: MemoryRecords) -> Deploying:
    return Deploying(records)


async def settled(pool: Pool) -> None:
    while pool._filling:  # noqa: ASYNC110 (its own tasks end it)
        await asyncio.sleep(0)


async def test_a_shape_that_was_used_has_one_ready_for_the_next(records: MemoryRecords, deploying: Deploying) -> None:
    pool = Pool(records, 1, deploying, patience=0.0)
    assert await pool.claim(shape(), "a") is None
    pool.used(shape())
    pool.used(shape())
    await settled(pool)
    assert deploying.deployed == ["skls-spare0"]
    claimed = await pool.claim(shape(), "b")
    assert claimed is not None
    assert claimed.container == "b"
    await settled(pool)
    assert deploying.deployed == ["skls-spare0", "skls-spare1"]  # in place of the claimed one


async def test_one_that_comes_back_soon_is_not_replaced(records: MemoryRecords, deploying: Deploying) -> None:
    pool = Pool(records, 1, deploying, patience=0.05)
    await records.put(function())
    claimed = await pool.claim(shape(), "a")
    assert claimed is not None
    assert await pool.release(claimed)
    await asyncio.sleep(0.1)
    await settled(pool)
    assert deploying.deployed == []


async def test_a_function_never_changes_its_tenant_or_shape(records: MemoryRecords, deploying: Deploying) -> None:
    pool = Pool(records, 1, deploying)
    await records.put(function())
    assert await pool.claim(shape("other"), "a") is None
    assert await pool.claim(shape(digest="t"), "a") is None
    assert await pool.claim(shape(), "a") is not None
    await pool.close()


async def test_of_many_who_claim_each_gets_its_own(records: MemoryRecords, deploying: Deploying) -> None:
    pool = Pool(records, 5, deploying)
    for number in range(3):
        await records.put(function(f"skls-{number}"))
    found = await asyncio.gather(*(pool.claim(shape(), f"c{number}") for number in range(5)))
    names = [one.name for one in found if one is not None]
    assert sorted(names) == ["skls-0", "skls-1", "skls-2"]
    await pool.close()


async def test_no_more_are_kept_than_wanted(records: MemoryRecords, deploying: Deploying) -> None:
    pool = Pool(records, 1, deploying)
    await records.put(function("skls-1", container="a"))
    await records.put(function("skls-2", container="b"))
    assert await pool.release(records.kept["skls-1"])
    assert not await pool.release(records.kept["skls-2"])
    assert not await pool.release(function("skls-gone", container="c"))


async def test_without_pool_nothing_is_claimed_kept_or_made(records: MemoryRecords, deploying: Deploying) -> None:
    pool = Pool(records, 0, deploying, patience=0.0)
    await records.put(function())
    assert await pool.claim(shape(), "a") is None
    pool.used(shape())
    assert not await pool.release(function(container="a"))
    await settled(pool)
    assert deploying.deployed == []


async def test_a_spare_that_cannot_be_made_is_no_harm(
    records: MemoryRecords, deploying: Deploying, caplog: pytest.LogCaptureFixture
) -> None:
    pool = Pool(records, 1, deploying, patience=0.0)
    deploying.error = CloudError("RESOURCE_EXHAUSTED", "quota", "deploying")
    pool.used(shape())
    await settled(pool)
    assert "quota" in caplog.text
    deploying.error = None
    pool.used(shape())
    await settled(pool)
    assert await pool.claim(shape(), "a") is not None
    await pool.close()
