"""Containers as records: resolve, list, inspect, rename, update."""

from __future__ import annotations

import re
from collections.abc import Callable

from control_plane.errors import Conflict, InvalidParameter, NotFound
from control_plane.model import Container
from control_plane.services.names import Names, checked
from control_plane.services.records import Records
from control_plane.store.base import Store

_FULL_ID = re.compile(r"[0-9a-f]{64}")


class Containers:
    """The tenant's containers. Reads never leave the store.

    `records` is the typed collection (key: the full id), `names` the names; whoever removes a container deletes its
    record and releases its name.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.records: Records[Container] = Records(store, "containers", Container)
        self.names = Names(store, self.records)

    async def resolve(self, tenant: str, reference: str) -> Container:
        """By full id, by name (with or without the leading slash), by unique id prefix; in moby's order.

        Raises NotFound, or InvalidParameter when a prefix fits several.
        """
        if not reference:
            raise InvalidParameter('invalid name or ID supplied: ""')
        if _FULL_ID.fullmatch(reference) and (by_id := await self.records.get(tenant, reference)) is not None:
            return by_id
        name = reference.removeprefix("/")
        holder = await self.names.holder(tenant, name)
        if holder is not None:
            by_name = await self.records.get(tenant, holder)
            # A crash in the middle of a rename leaves a second name behind: it is not this container's.
            if by_name is not None and by_name.name == name:
                return by_name
        found = await self.records.find(tenant, reference) if reference.isalnum() else []
        if len(found) > 1:
            raise InvalidParameter(f"multiple IDs found with provided prefix: {reference}")
        if not found:
            raise NotFound(f"No such container: {reference}")
        return found[0]

    async def list(self, tenant: str | None = None) -> list[Container]:
        """Every container, in id order. Across tenants with None (reconciler)."""
        return await self.records.list(tenant)

    async def update(self, container: Container, change: Callable[[Container], Container | None]) -> Container:
        """Changes the record by compare-and-set (see `Records.update`). Raises NotFound when it was removed."""
        changed = await self.records.update(container.tenant, container.id, change)
        if changed is None:
            raise NotFound(f"No such container: {container.id}")
        return changed

    async def rename(self, container: Container, new_name: str) -> Container:
        """`docker rename`. Raises InvalidParameter or Conflict with moby's texts."""
        if not new_name:
            raise InvalidParameter("Neither old nor new names may be empty")
        if container.name == new_name.removeprefix("/"):
            raise InvalidParameter("Renaming a container with the same name as its current name")
        try:
            name = checked(new_name if new_name.startswith("/") else f"/{new_name}")
            await self.names.reserve(container.tenant, name, container.id)
        except (InvalidParameter, Conflict) as error:
            raise type(error)(f"Error when allocating new name: {error.message}") from None
        old_name = container.name
        try:
            renamed = await self.update(container, lambda current: current.model_copy(update={"name": name}))
        except NotFound:
            await self.names.release(container.tenant, name, container.id)
            raise
        await self.names.release(container.tenant, old_name, container.id)
        return renamed
