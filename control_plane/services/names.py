"""Container names: unique per tenant because reserving one creates a document."""

from __future__ import annotations

import asyncio
import random
import re

from control_plane.errors import Conflict, InvalidParameter
from control_plane.model import Container, Name
from control_plane.services.records import Records
from control_plane.services.words import ADJECTIVES, SURNAMES
from control_plane.store.base import AlreadyExists, RevisionConflict, Store

_VALID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_STALE_AFTER = 2.0
"""A reservation whose container is not there after this many seconds was left by a crash between two writes."""


def random_name(attempt: int) -> str:
    """`adjective_surname`; from the second attempt on with a digit, as moby does."""
    name = f"{random.choice(ADJECTIVES)}_{random.choice(SURNAMES)}"
    return name if attempt == 0 else f"{name}{random.randrange(10)}"


def checked(name: str) -> str:
    """The name without its leading slash. Raises InvalidParameter."""
    bare = name.removeprefix("/")
    if not _VALID.fullmatch(bare):
        raise InvalidParameter(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return bare


class Names:
    """Names without their leading slash are the keys; the document says which container holds it."""

    def __init__(self, store: Store, containers: Records[Container]) -> None:
        self._store = store
        self._names: Records[Name] = Records(store, "names", Name)
        self._containers = containers

    async def holder(self, tenant: str, name: str) -> str | None:
        """Id of the container that holds the name."""
        found = await self._names.get(tenant, name)
        return None if found is None else found.container

    async def check_free(self, tenant: str, name: str) -> None:
        """Raises Conflict when a container that exists has the name. `reserve` decides; this only spares work."""
        holder = await self.holder(tenant, name)
        if holder is not None and await self._holds(tenant, holder, name):
            raise _in_use(name, holder)

    async def reserve(self, tenant: str, name: str, container: str) -> None:
        """Takes the name. Raises Conflict with moby's text."""
        stale = False
        while True:
            try:
                await self._names.create(tenant, name, Name(container=container))
                return
            except AlreadyExists:
                document = await self._store.get("names", tenant, name)
            if document is None:
                continue
            holder = str(document.body["container"])
            if holder == container:
                return
            if await self._holds(tenant, holder, name):
                raise _in_use(name, holder)
            if stale:
                await self._drop(tenant, name, holder)
            else:
                # Its creator may be about to write the container: look again before calling it left over.
                await asyncio.sleep(_STALE_AFTER)
                stale = True

    async def reserve_random(self, tenant: str, container: str) -> str:
        """Takes a generated name, the short id when six are taken."""
        for attempt in range(6):
            name = random_name(attempt)
            if await self.holder(tenant, name) is None:
                try:
                    await self._names.create(tenant, name, Name(container=container))
                except AlreadyExists:
                    continue
                return name
        await self.reserve(tenant, container[:12], container)
        return container[:12]

    async def release(self, tenant: str, name: str, container: str) -> None:
        """Gives the name back if the container (still) holds it."""
        await self._drop(tenant, name, container)

    async def _holds(self, tenant: str, container: str, name: str) -> bool:
        found = await self._containers.get(tenant, container)
        return found is not None and found.name == name

    async def _drop(self, tenant: str, name: str, container: str) -> None:
        document = await self._store.get("names", tenant, name)
        if document is None or document.body["container"] != container:
            return
        try:
            await self._store.delete(document)
        except RevisionConflict:
            return


def _in_use(name: str, holder: str) -> Conflict:
    return Conflict(
        f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
