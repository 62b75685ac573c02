"""Typed access to the store: documents in, model classes out, changes by compare-and-set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from control_plane.model import Entity
from control_plane.store.base import Collection, Document, RevisionConflict, Store

E = TypeVar("E", bound=Entity)

_ATTEMPTS = 50
_CACHE_SIZE = 20_000

_Decoded = dict[tuple[str, str], tuple[str, Any]]
_DECODED: WeakKeyDictionary[Store, dict[tuple[Collection, type[Entity]], _Decoded]] = WeakKeyDictionary()
"""Shared by all that look at a collection: what one deletes the others do not keep."""


class Records(Generic[E]):
    """One collection of the store as instances of one model class.

    Decoding is cached by revision: a document read a thousand times is validated once.
    """

    def __init__(self, store: Store, collection: Collection, model: type[E]) -> None:
        self.store = store
        self.collection = collection
        self.model = model
        self._decoded = _DECODED.setdefault(store, {}).setdefault((collection, model), {})

    def decode(self, document: Document) -> E:
        """The document as an instance; the same one for the same revision."""
        place = (document.tenant, document.key)
        known = self._decoded.get(place)
        if known is not None and known[0] == document.revision:
            seen: E = known[1]
            return seen
        entity = self.model.model_validate(document.body)
        if len(self._decoded) >= _CACHE_SIZE:
            self._decoded.clear()
        self._decoded[place] = (document.revision, entity)
        return entity

    async def get(self, tenant: str, key: str) -> E | None:
        """One entity, or None."""
        document = await self.store.get(self.collection, tenant, key)
        return None if document is None else self.decode(document)

    async def find(self, tenant: str, prefix: str, limit: int = 2) -> list[E]:
        """Entities whose key starts with `prefix`."""
        return [self.decode(d) for d in await self.store.find(self.collection, tenant, prefix, limit)]

    async def due(self, at: float) -> list[E]:
        """Those of all tenants that are due by `at`, Unix seconds (`Store.due`)."""
        return [self.decode(d) for d in await self.store.due(self.collection, at)]

    async def keys(self) -> set[str]:
        """The keys of all tenants' entities, none of them decoded."""
        return {document.key for document in await self.store.list(self.collection)}

    async def list(self, tenant: str | None = None) -> list[E]:
        """All of a tenant; of all tenants with None."""
        return [self.decode(d) for d in await self.store.list(self.collection, tenant)]

    async def create(self, tenant: str, key: str, entity: E) -> E:
        """Raises AlreadyExists."""
        return self.decode(await self.store.create(self.collection, tenant, key, entity.model_dump(mode="json")))

    async def update(self, tenant: str, key: str, change: Callable[[E], E | None]) -> E | None:
        """Applies `change` by compare-and-set, reading again on conflict.

        `change` is pure and may run several times; it may raise to refuse. Returning None leaves the document as it is.
        The result is the entity as stored, or None when there is no such document.
        """
        for _ in range(_ATTEMPTS):
            document = await self.store.get(self.collection, tenant, key)
            if document is None:
                return None
            current = self.decode(document)
            wanted = change(current)
            if wanted is None or wanted == current:
                return current
            try:
                return self.decode(await self.store.replace(document, wanted.model_dump(mode="json")))
            except RevisionConflict:
                continue
        raise RevisionConflict(f"{self.collection}/{key}: still contended after {_ATTEMPTS} attempts")

    async def delete(self, tenant: str, key: str) -> bool:
        """Deletes whatever revision is there; False when it is already gone."""
        for _ in range(_ATTEMPTS):
            document = await self.store.get(self.collection, tenant, key)
            if document is None:
                return False
            try:
                await self.store.delete(document)
            except RevisionConflict:
                continue
            self._decoded.pop((tenant, key), None)
            return True
        raise RevisionConflict(f"{self.collection}/{key}: still contended after {_ATTEMPTS} attempts")
