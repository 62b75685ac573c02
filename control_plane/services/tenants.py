"""Tenants as records: made, listed and shut out by the operator."""

from __future__ import annotations

import re
from collections.abc import Callable

from control_plane.errors import Conflict, InvalidParameter, NotFound
from control_plane.model import Tenant, TenantPolicy
from control_plane.services.records import Records
from control_plane.store.base import AlreadyExists, Store
from control_plane.timestamps import now

OPERATOR = "_operator"
"""Where the store keeps what belongs to no tenant; no tenant can have this name."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}[a-z0-9]")
"""Fit for a label's value, a bucket's prefix and a registry's path in every cloud."""


class Tenants:
    """One document each. Reads are one look-up in the store."""

    def __init__(self, store: Store) -> None:
        self._records: Records[Tenant] = Records(store, "tenants", Tenant)

    async def create(self, name: str, policy: TenantPolicy | None = None) -> Tenant:
        """Raises InvalidParameter for a name that does not fit everywhere, Conflict for one that was ever used."""
        if not _NAME.fullmatch(name):
            raise InvalidParameter(
                f"invalid tenant name {name[:40]!r}: 2 to 32 lower-case letters, digits and dashes, a letter first"
            )
        tenant = Tenant(name=name, created_at=now(), policy=policy or TenantPolicy())
        try:
            return await self._records.create(OPERATOR, name, tenant)
        except AlreadyExists:
            # Also of a revoked one: its containers and volumes may still be there, and are nobody else's.
            raise Conflict(f"tenant {name} exists already") from None

    async def list(self) -> list[Tenant]:
        """All of them, revoked ones too."""
        return await self._records.list(OPERATOR)

    async def active(self, name: str) -> Tenant | None:
        """The tenant, unless there is none or it was revoked."""
        tenant = await self._records.get(OPERATOR, name)
        return tenant if tenant is not None and not tenant.revoked_at else None

    async def limit(self, name: str, policy: TenantPolicy) -> Tenant:
        """Sets what its containers may be from now on. Raises NotFound."""
        return await self._change(name, lambda tenant: tenant.model_copy(update={"policy": policy}))

    async def revoke(self, name: str) -> Tenant:
        """Shuts the tenant out; its containers go on. Repeatable. Raises NotFound."""
        return await self._change(
            name, lambda tenant: tenant if tenant.revoked_at else tenant.model_copy(update={"revoked_at": now()})
        )

    async def _change(self, name: str, change: Callable[[Tenant], Tenant]) -> Tenant:
        changed = await self._records.update(OPERATOR, name, change)
        if changed is None:
            raise NotFound(f"no such tenant: {name}")
        return changed
