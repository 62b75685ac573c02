"""Claims of Cloud Run functions: one container each, within a tenant."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.model import CloudFunction
from control_plane.services.function_records import FunctionRecords
from control_plane.store.sqlite import SqliteStore
from control_plane.timestamps import now


@pytest.fixture
async def records(tmp_path: Path) -> AsyncIterator[FunctionRecords]:
    store = SqliteStore(tmp_path / "store.sqlite")
    yield FunctionRecords(store)
    await store.close()


def _function(name: str, tenant: str = "a", container: str = "", uri: str = "https://f") -> CloudFunction:
    return CloudFunction(
        name=name, tenant=tenant, shape="s", uri=uri, container=container, created_at=now(), changed_at=time.time()
    )


async def test_one_of_many_claims_wins(records: FunctionRecords) -> None:
    await records.put(_function("skls-1"))
    claims = await asyncio.gather(*(records.claim("a", "s", f"container-{number}") for number in range(10)))
    winners = [claim for claim in claims if claim is not None]
    assert len(winners) == 1
    assert await records.of("a", winners[0].container) == winners[0]


async def test_never_across_tenants_or_shapes_nor_before_it_is_deployed(records: FunctionRecords) -> None:
    await records.put(_function("skls-1", tenant="b"))
    await records.put(_function("skls-2", uri=""))
    assert await records.claim("a", "s", "c") is None
    assert await records.claim("b", "other", "c") is None
    assert await records.ready("a", "s") == 0


async def test_released_by_its_owner_alone(records: FunctionRecords) -> None:
    await records.put(_function("skls-1", container="c"))
    owned = await records.of("a", "c")
    assert owned is not None
    assert not await records.release(owned.model_copy(update={"container": "d"}))
    assert await records.release(owned)
    assert await records.ready("a", "s") == 1
    await records.forget(owned)
    assert not await records.release(owned)
    assert await records.all() == []
