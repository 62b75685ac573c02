"""Opens each kind of store on documents of a test's own. Another kind joins by another entry in STORES."""

from __future__ import annotations

import asyncio
import importlib.util
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from control_plane.store.base import Document, Store
from control_plane.store.cosmos.store import CosmosStore
from control_plane.store.firestore.store import FirestoreStore
from control_plane.store.key_file import KeyFile, new_key_file
from control_plane.store.sealed import SealedStore
from control_plane.store.sqlite import SqliteStore
from tests.contract.store_servers import Missing, shared_cosmos, shared_firestore

Open = Callable[[], Awaitable[Store]]
"""Opens the same documents again, as another process would."""

COSMOS_KEY = "dGVzdA=="


async def _sqlite(directory: Path) -> Open:
    async def open_store() -> Store:
        return SqliteStore(directory / "store.db")

    return open_store


async def _sealed(directory: Path) -> Open:
    new_key_file(directory / "keys")

    async def open_store() -> Store:
        return SealedStore(SqliteStore(directory / "store.db"), KeyFile(directory / "keys"))

    return open_store


async def _firestore(directory: Path) -> Open:
    needs("google.cloud.firestore")
    server = shared_firestore()
    if isinstance(server, Missing):
        pytest.skip(str(server))
    project = f"test-{secrets.token_hex(6)}"

    async def open_store() -> Store:
        return FirestoreStore(project, emulator=f"127.0.0.1:{server.port}")

    return open_store


async def _cosmos(directory: Path) -> Open:
    needs("azure.cosmos")
    server = shared_cosmos()
    if isinstance(server, Missing):
        pytest.skip(str(server))
    return await cosmos_opener(server.port)


async def cosmos_opener(port: int, name: str = "") -> Open:
    """Makes a database of its own, as Terraform would, and gives what opens it."""
    from azure.cosmos import PartitionKey
    from azure.cosmos.aio import CosmosClient

    url, name = f"http://127.0.0.1:{port}", name or f"test-{secrets.token_hex(6)}"
    async with CosmosClient(url, credential=COSMOS_KEY, enable_endpoint_discovery=False) as client:
        database = await client.create_database(name)
        await database.create_container("documents", PartitionKey("/partition"), default_ttl=-1)

    async def open_store() -> Store:
        return CosmosStore(url, COSMOS_KEY, name, endpoint_discovery=False)

    return open_store


def needs(module: str) -> None:
    """Skips the test when an SDK is not installed."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"{module} is not installed")


STORES: dict[str, Callable[[Path], Awaitable[Open]]] = {
    "sqlite": _sqlite,
    "sqlite_sealed": _sealed,
    "firestore": _firestore,
    "cosmos": _cosmos,
}


@pytest.fixture(params=sorted(STORES))
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    opener = await STORES[request.param](tmp_path)
    async with Closing(opener) as open_store:
        yield open_store


@pytest.fixture
async def store(reopen: Open) -> Store:
    return await reopen()


class Closing:
    """Closes what was opened within the block."""

    def __init__(self, opener: Open) -> None:
        self._opener = opener
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Open:
        return self._open

    async def _open(self) -> Store:
        store = await self._opener()
        self._opened.push_async_callback(store.close)
        return store

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()


async def next_change(changes: AsyncIterator[Document | None], seconds: float = 20) -> Document | None:
    return await asyncio.wait_for(anext(changes), seconds)
