"""A store that counts what a cloud would bill: documents read, and the least that an empty answer costs."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

from control_plane.store.base import Collection, Document, Store


class CountedStore:
    """`Store` on top of another one. Firestore's counting: a read for each document, one for an empty answer."""

    def __init__(self, inner: Store) -> None:
        self.lag = inner.lag
        self.inner = inner
        self.reads = 0
        self.writes = 0
        self.told = 0
        """Documents that watches of collections were told: one read each where the store has a feed of its own."""

    def _read(self, found: builtins.list[Document]) -> builtins.list[Document]:
        self.reads += max(len(found), 1)
        return found

    async def get(self, collection: Collection, tenant: str, key: str) -> Document | None:
        self.reads += 1
        return await self.inner.get(collection, tenant, key)

    async def find(self, collection: Collection, tenant: str, prefix: str, limit: int = 2) -> builtins.list[Document]:
        return self._read(await self.inner.find(collection, tenant, prefix, limit))

    async def list(self, collection: Collection, tenant: str | None = None, start: str = "") -> builtins.list[Document]:
        return self._read(await self.inner.list(collection, tenant, start))

    async def due(self, collection: Collection, at: float) -> builtins.list[Document]:
        return self._read(await self.inner.due(collection, at))

    async def create(self, collection: Collection, tenant: str, key: str, body: Mapping[str, Any]) -> Document:
        self.writes += 1
        return await self.inner.create(collection, tenant, key, body)

    async def replace(self, document: Document, body: Mapping[str, Any]) -> Document:
        self.writes += 1
        return await self.inner.replace(document, body)

    async def delete(self, document: Document) -> None:
        self.writes += 1
        await self.inner.delete(document)

    async def watch(
        self, collection: Collection, tenant: str, key: str | None = None, start: str = ""
    ) -> AsyncIterator[Document | None]:
        async with aclosing(self.inner.watch(collection, tenant, key, start)) as changes:  # type: ignore[type-var]
            async for document in changes:
                self.told += document is not None
                yield document

    async def close(self) -> None:
        await self.inner.close()
