"""Which Cloud Run function belongs to which container, and which are ready for the next one: the store's word on it.

A claim is a compare-and-set, so a function is never two containers'; its tenant never changes.
"""

from __future__ import annotations

import time

from control_plane.model import CloudFunction
from control_plane.services.records import Records
from control_plane.store.base import AlreadyExists, Store


class FunctionRecords:
    """The collection `functions`, keyed by the function's name."""

    def __init__(self, store: Store) -> None:
        self._records = Records(store, "functions", CloudFunction)

    async def of(self, tenant: str, container: str) -> CloudFunction | None:
        """The function made for this container, or claimed by it."""
        return next((known for known in await self._records.list(tenant) if known.container == container), None)

    async def claim(self, tenant: str, shape: str, container: str) -> CloudFunction | None:
        """A ready function of the shape, which is this container's from now on; None when there is none."""
        for known in await self._ready(tenant, shape):
            taken = await self._records.update(
                tenant,
                known.name,
                lambda current: (
                    None
                    if current.container
                    else current.model_copy(update={"container": container, "changed_at": time.time()})
                ),
            )
            if taken is not None and taken.container == container:
                return taken
        return None

    async def put(self, function: CloudFunction) -> None:
        """Writes the record of a function that is the caller's: new, or changed."""
        try:
            await self._records.create(function.tenant, function.name, function)
        except AlreadyExists:
            await self._records.update(function.tenant, function.name, lambda _: function)

    async def release(self, function: CloudFunction) -> bool:
        """Ready again; False when it is gone, or another container's by now."""
        owner = function.container

        def change(current: CloudFunction) -> CloudFunction | None:
            if current.container != owner:
                return None
            return current.model_copy(update={"container": "", "changed_at": time.time()})

        after = await self._records.update(function.tenant, function.name, change)
        return after is not None and not after.container

    async def ready(self, tenant: str, shape: str) -> int:
        """How many could be claimed."""
        return len(await self._ready(tenant, shape))

    async def forget(self, function: CloudFunction) -> None:
        """Deletes the record. Repeatable."""
        await self._records.delete(function.tenant, function.name)

    async def all(self) -> list[CloudFunction]:
        """Of all tenants, for the sweep."""
        return await self._records.list()

    async def _ready(self, tenant: str, shape: str) -> list[CloudFunction]:
        known = [one for one in await self._records.list(tenant) if one.shape == shape and one.uri]
        return sorted((one for one in known if not one.container), key=lambda one: one.changed_at)
