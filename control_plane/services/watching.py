"""Waiting for a container to get somewhere, by the store's watch: no polling, whichever instance makes the change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from control_plane.model import Container
from control_plane.services.records import Records


async def changes(records: Records[Container], tenant: str, key: str) -> AsyncIterator[Container | None]:
    """The container now and after each change; None when it does not exist (any more)."""
    watched = records.store.watch("containers", tenant, key)
    try:
        async for document in watched:
            yield await records.get(tenant, key) if document is None else records.decode(document)
    finally:
        close = getattr(watched, "aclose", None)
        if close is not None:
            await close()


async def reach(
    records: Records[Container], container: Container, done: Callable[[Container], bool], timeout: float | None
) -> Container | None:
    """The container as soon as `done` says so, None when it was removed. Raises TimeoutError (None waits for ever)."""
    stream = changes(records, container.tenant, container.id)
    try:
        async with asyncio.timeout(timeout):
            async for current in stream:
                if current is None or done(current):
                    return current
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    raise TimeoutError
