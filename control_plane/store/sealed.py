"""A store whose secret fields are encrypted at rest: what lies in the file or the cloud does not tell them.

A field that was written before sealing was switched on is read as it is, and sealed with its document's next write.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, cast

from control_plane.store.base import Collection, Document, RevisionConflict, Store
from control_plane.store.key_wrapper import KeyWrapper
from control_plane.store.sealing import MARK, Sealer

Fields = Mapping[Collection, Sequence[tuple[str, ...]]]
"""By collection, the paths of the fields to seal."""

SECRET_FIELDS: Fields = {"containers": (("config", "Env"),), "execs": (("config", "Env"),)}
"""Environments: where users' credentials are. Registry credentials are never stored."""

_OPENED = 20_000


class SealedStore:
    """`Store` on top of another one."""

    def __init__(self, inner: Store, wrapper: KeyWrapper, fields: Fields = SECRET_FIELDS) -> None:
        self.lag = inner.lag
        self._inner = inner
        self._sealer = Sealer(wrapper)
        self._fields = fields
        self._opened: dict[tuple[str, str, str], Document] = {}

    async def get(self, collection: Collection, tenant: str, key: str) -> Document | None:
        """One document, or None."""
        found = await self._inner.get(collection, tenant, key)
        return None if found is None else await self._open(found)

    async def find(self, collection: Collection, tenant: str, prefix: str, limit: int = 2) -> builtins.list[Document]:
        """Documents whose key starts with `prefix`, in key order."""
        return await self._open_all(collection, await self._inner.find(collection, tenant, prefix, limit))

    async def list(self, collection: Collection, tenant: str | None = None, start: str = "") -> builtins.list[Document]:
        """All documents of a tenant, from the key `start` on, or of all tenants; in key order."""
        return await self._open_all(collection, await self._inner.list(collection, tenant, start))

    async def due(self, collection: Collection, at: float) -> builtins.list[Document]:
        """Those of all tenants that are due by `at`, in key order."""
        return await self._open_all(collection, await self._inner.due(collection, at))

    async def create(self, collection: Collection, tenant: str, key: str, body: Mapping[str, Any]) -> Document:
        """Writes a new document. Raises AlreadyExists."""
        sealed = await self._seal(collection, tenant, key, body)
        return await self._open(await self._inner.create(collection, tenant, key, sealed))

    async def replace(self, document: Document, body: Mapping[str, Any]) -> Document:
        """Writes if the revision is still current. Raises RevisionConflict."""
        sealed = await self._seal(document.collection, document.tenant, document.key, body)
        return await self._open(await self._inner.replace(document, sealed))

    async def delete(self, document: Document) -> None:
        """Deletes if the revision is still current. Raises RevisionConflict."""
        await self._inner.delete(document)
        self._opened.pop((document.collection, document.tenant, document.key), None)

    async def watch(
        self, collection: Collection, tenant: str, key: str | None = None, start: str = ""
    ) -> AsyncIterator[Document | None]:
        """Changes of a document, or the documents written in a collection."""
        async with aclosing(self._inner.watch(collection, tenant, key, start)) as changes:  # type: ignore[type-var]
            async for document in changes:
                yield None if document is None else await self._open(document)

    async def reseal(self, collection: Collection, told: Callable[[int, int], None] | None = None) -> int:
        """Seals anew what is not sealed with the current key-encryption key; how many documents that were.

        When it returns 0, keys other than the current one open nothing of the collection any more. `told` is called
        after each document with how many are done, and of how many. Raises DockerError.
        """
        current = await self._sealer.key_id()
        paths = self._fields.get(collection, ())
        stale = [
            document
            for document in await self._inner.list(collection)
            if not all(_is_sealed_with(current, document.body, path) for path in paths)
        ]
        for done, sealed in enumerate(stale, 1):
            # Written by another just now: with the current key, or found by the next call.
            with suppress(RevisionConflict):
                await self.replace(sealed, (await self._open(sealed)).body)
            if told is not None:
                told(done, len(stale))
        return len(stale)

    async def close(self) -> None:
        """Closes the store beneath and what the keys are had by."""
        await self._inner.close()
        await self._sealer.close()

    async def _seal(self, collection: Collection, tenant: str, key: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        for path in self._fields.get(collection, ()):
            holder = _holder(body, path)
            if holder is not None and path[-1] in holder:
                sealed = await self._sealer.seal(holder[path[-1]], _place(collection, tenant, key, path))
                body = _with(body, path, sealed)
        return body

    async def _open(self, document: Document) -> Document:
        paths = self._fields.get(document.collection)
        if not paths:
            return document
        place = (document.collection, document.tenant, document.key)
        known = self._opened.get(place)
        if known is not None and known.revision == document.revision:
            return known
        body = document.body
        for path in paths:
            holder = _holder(body, path)
            if holder is not None and _is_sealed(holder.get(path[-1])):
                value = await self._sealer.open(holder[path[-1]], _place(*place, path))
                body = _with(body, path, value)
        if len(self._opened) >= _OPENED:
            self._opened.clear()
        opened = self._opened[place] = Document(*place, document.revision, body)
        return opened

    async def _open_all(self, collection: Collection, documents: builtins.list[Document]) -> builtins.list[Document]:
        if not self._fields.get(collection):
            return documents
        return [await self._open(document) for document in documents]


def _place(collection: Collection, tenant: str, key: str, path: tuple[str, ...]) -> str:
    return "\0".join((collection, tenant, key, *path))


def _is_sealed(value: Any) -> bool:
    return isinstance(value, dict) and MARK in value


def _is_sealed_with(key_id: str, body: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Whether nothing at the path needs another key, or none at all."""
    holder = _holder(body, path)
    if holder is None or path[-1] not in holder:
        return True
    value = holder[path[-1]]
    return _is_sealed(value) and value.get("kek") == key_id


def _holder(body: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any] | None:
    """The object the path's last name is in, None when the body has no such object."""
    value: Any = body
    for name in path[:-1]:
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value if isinstance(value, Mapping) else None


def _with(body: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The body with another value at the path; what is not on the path is shared, nothing is changed in place."""
    changed = dict(body)
    changed[path[0]] = value if len(path) == 1 else _with(cast(Mapping[str, Any], body[path[0]]), path[1:], value)
    return changed
