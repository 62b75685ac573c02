"""`Admission` by the policies of tenants: one read of the tenant's document for each create."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

from control_plane.auth.policy import Wanted, check_policy, check_size, run_limit
from control_plane.errors import Forbidden, TooMany
from control_plane.model import TenantPolicy
from control_plane.services.tenants import Tenants
from control_plane.store.base import Store


class Quotas:
    """Bounds of each tenant, as they are now."""

    def __init__(self, store: Store, tenants: Tenants) -> None:
        self._store = store
        self._tenants = tenants
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def admit(self, tenant: str, wanted: Wanted, platform_limit: int) -> int:
        """See `Admission.admit`."""
        policy = await self._policy(tenant)
        check_policy(policy, wanted)
        return run_limit(policy, platform_limit)

    async def check_size(self, tenant: str, limits: Mapping[str, Any]) -> None:
        """See `Admission.check_size`."""
        check_size(await self._policy(tenant), limits)

    @asynccontextmanager
    async def room(self, tenant: str) -> AsyncIterator[None]:
        """See `Admission.room`.

        Exact within one instance: a tenant with a quota makes its containers one after the other. Several instances
        may each let one more through at the same instant.
        """
        most = (await self._policy(tenant)).max_containers
        if not most:
            yield
            return
        turn = self._turns.get(tenant)
        if turn is None:
            turn = self._turns[tenant] = asyncio.Lock()
        async with turn:
            if len(await self._store.find("containers", tenant, "", most)) >= most:
                raise TooMany(
                    f"quota: this tenant may have {most} containers, stopped ones included, and has as many; "
                    "remove some (`docker container prune`, `docker run --rm`)"
                )
            yield

    async def _policy(self, tenant: str) -> TenantPolicy:
        found = await self._tenants.active(tenant)
        if found is None:
            raise Forbidden("this tenant has no access any more")
        return found.policy
