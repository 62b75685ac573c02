"""Reading and writing documents in Cosmos, one attempt each (throttled requests are repeated by the SDK itself)."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from control_plane.store.base import AlreadyExists, Collection, Document, RevisionConflict, StoreFull
from control_plane.store.cosmos.connection import Connection
from control_plane.store.cosmos.items import (
    LONGEST_ID,
    content_of,
    is_gone,
    new_item,
    next_order,
    partition_of,
    read_document,
    revision,
)
from control_plane.store.cosmos.polling import Polling
from control_plane.store.keys import AFTER_ALL, escape
from control_plane.store.revisions import Revision, revision_of

_ATTEMPTS = 10
_GONE_SECONDS = 3600
"""How long the change feed tells of a deletion: longer than a watch may lose its connection."""
_TOO_LARGE = 413
_PARTITION_FULL = (403, 1014)
_FIND = (
    "SELECT TOP %d * FROM c WHERE c.partition = @partition AND c.id >= @first AND c.id < @end "
    "AND NOT IS_DEFINED(c.gone) ORDER BY c.id"
)
_LIST = "SELECT * FROM c WHERE c.partition = @partition AND NOT IS_DEFINED(c.gone)"
_LIST_FROM = f"{_LIST} AND c.id >= @first"
_LIST_ALL = "SELECT * FROM c WHERE c.collection = @collection AND NOT IS_DEFINED(c.gone)"
_DUE = "SELECT * FROM c WHERE c.collection = @collection AND c.due <= @at AND NOT IS_DEFINED(c.gone)"


class CosmosDocuments:
    """`Documents` in one container."""

    longest_id = LONGEST_ID
    # Seen: a connection that breaks before the answer counts as one that was never made.
    repeats_writes = True

    def __init__(self, connection: Connection, polling: Polling, lifetimes: Mapping[str, float]) -> None:
        self._connection = connection
        self._polling = polling
        self._lifetimes = lifetimes
        self.opened = polling.opened
        self.closed = polling.closed

    async def read(self, collection: Collection, tenant: str, key: str, timeout: float) -> Document | None:
        """ReadItem: one request unit."""
        async with asyncio.timeout(timeout):
            item = await self._item(collection, tenant, key)
        return None if item is None or is_gone(item) else read_document(item)

    async def find(
        self, collection: Collection, tenant: str, prefix: str, limit: int, timeout: float
    ) -> list[Document]:
        """A query of one partition."""
        query = _FIND % int(limit)
        first = escape(prefix)
        async with asyncio.timeout(timeout):
            return await self._query(
                query, partition_of(collection, tenant), {"@first": first, "@end": first + AFTER_ALL}
            )

    async def list(
        self, collection: Collection, tenant: str | None, start: str, timeout: float
    ) -> builtins.list[Document]:
        """A query of one partition; of all of them for all tenants."""
        async with asyncio.timeout(timeout):
            if tenant is None:
                return await self._query(_LIST_ALL, None, {"@collection": collection})
            where = partition_of(collection, tenant)
            return await (
                self._query(_LIST_FROM, where, {"@first": escape(start)}) if start else self._query(_LIST, where, {})
            )

    async def due(self, collection: Collection, at: float, timeout: float) -> builtins.list[Document]:
        """A query of all partitions; an index on `due` makes it cheap."""
        async with asyncio.timeout(timeout):
            return await self._query(_DUE, None, {"@collection": collection, "@at": at})

    async def insert(
        self, collection: Collection, tenant: str, key: str, body: Mapping[str, Any], token: str, timeout: float
    ) -> Document:
        """CreateItem, or ReplaceItem of what a deleted document left. Raises AlreadyExists, StoreFull."""
        lifetime = self._lifetimes.get(collection)
        content = content_of(collection, body)
        async with asyncio.timeout(timeout):
            left = None
            for _ in range(_ATTEMPTS):
                before = Revision(0, "", "") if left is None else revision(left)
                order, tokens = next_order(before.order), before.tokens_after(token)
                item = new_item(collection, tenant, key, order, tokens, lifetime) | content
                written = await (self._create(item) if left is None else self._swap(item, before.version))
                if written is not None:
                    return read_document({**item, **written})
                left = await self._item(collection, tenant, key)
                if left is not None and not is_gone(left):
                    break
        raise AlreadyExists(f"{collection}/{key}")

    async def swap(self, document: Document, body: Mapping[str, Any], token: str, timeout: float) -> Document:
        """ReplaceItem with `If-Match`. Raises RevisionConflict, StoreFull."""
        before = revision_of(document)
        place = (document.collection, document.tenant, document.key)
        lifetime = self._lifetimes.get(document.collection)
        item = new_item(*place, next_order(before.order), before.tokens_after(token), lifetime)
        item |= content_of(document.collection, body)
        async with asyncio.timeout(timeout):
            written = await self._swap(item, before.version)
        if written is None:
            raise RevisionConflict(f"{document.collection}/{document.key}")
        return read_document({**item, **written})

    async def remove(self, document: Document, token: str, timeout: float) -> int:
        """ReplaceItem with `If-Match` by an item that is gone. Raises RevisionConflict."""
        before = revision_of(document)
        order = next_order(before.order)
        place = (document.collection, document.tenant, document.key)
        item = new_item(*place, order, before.tokens_after(token), _GONE_SECONDS) | {"gone": True}
        async with asyncio.timeout(timeout):
            if await self._swap(item, before.version) is None:
                raise RevisionConflict(f"{document.collection}/{document.key}")
        return order

    async def removed(self, document: Document, token: str, timeout: float) -> bool:
        """Whether the deletion with this token is among the item's last writes, or the item is no more."""
        async with asyncio.timeout(timeout):
            item = await self._item(document.collection, document.tenant, document.key)
        return item is None or revision(item).written_by(token)

    async def warm(self) -> None:
        """Loads the SDK and connects."""
        await self._connection.container()

    async def close(self) -> None:
        """Stops polling and closes the connections."""
        await self._polling.close()
        await self._connection.close()

    async def _item(self, collection: Collection, tenant: str, key: str) -> Mapping[str, Any] | None:
        container = await self._connection.container()
        from azure.cosmos.exceptions import CosmosResourceNotFoundError

        try:
            return await container.read_item(escape(key), partition_of(collection, tenant))
        except CosmosResourceNotFoundError:
            return None

    async def _create(self, item: dict[str, Any]) -> Mapping[str, Any] | None:
        """The item as written, None when the id is taken."""
        container = await self._connection.container()
        from azure.cosmos.exceptions import CosmosResourceExistsError

        async with _full():
            try:
                return await container.create_item(item)
            except CosmosResourceExistsError:
                return None

    async def _swap(self, item: dict[str, Any], version: str) -> Mapping[str, Any] | None:
        """The item as written, None when it was changed or is no more."""
        container = await self._connection.container()
        from azure.core import MatchConditions
        from azure.cosmos.exceptions import CosmosAccessConditionFailedError, CosmosResourceNotFoundError

        async with _full():
            try:
                return await container.replace_item(
                    item["id"], item, etag=version, match_condition=MatchConditions.IfNotModified
                )
            except (CosmosAccessConditionFailedError, CosmosResourceNotFoundError):
                return None

    async def _query(
        self, query: str, partition: str | None, parameters: Mapping[str, object]
    ) -> builtins.list[Document]:
        container = await self._connection.container()
        options: dict[str, Any] = {}
        if partition is not None:
            # In the text as well: a tenant's list never rests on a header alone.
            parameters = {"@partition": partition, **parameters}
            options["partition_key"] = partition
        given: builtins.list[dict[str, object]] = [{"name": name, "value": value} for name, value in parameters.items()]
        items = container.query_items(query, parameters=given, max_item_count=1000, **options)
        return [read_document(item) async for item in items]


@asynccontextmanager
async def _full() -> AsyncIterator[None]:
    """Turns Cosmos' refusals of more data into StoreFull."""
    from azure.cosmos.exceptions import CosmosHttpResponseError

    try:
        yield
    except CosmosHttpResponseError as error:
        if error.status_code == _TOO_LARGE:
            raise StoreFull("the store cannot take this: it is larger than an item of the store may be") from error
        if (error.status_code, error.sub_status) == _PARTITION_FULL:
            raise StoreFull("the store is full: this tenant's partition has reached its largest size") from error
        raise
