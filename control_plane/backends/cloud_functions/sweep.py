"""Finds what crashes leave behind: functions, records and services of containers that are gone, spares nobody uses."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

from control_plane.backends.cloud_functions.functions import Functions
from control_plane.backends.cloud_functions.records import FunctionRecords
from control_plane.backends.cloud_functions.services import Services
from control_plane.backends.gcp import labels
from control_plane.model import CloudFunction

IDLE = 3600.0
"""Seconds after which a function that was kept ready, and not claimed, is removed."""
RETIRED = "retired"
"""Claims an idle spare in place of a container: who claims it is the only one who may delete it."""


class Sweep:
    """One pass over the endpoint's functions."""

    def __init__(
        self,
        functions: Functions,
        services: Services,
        records: FunctionRecords,
        known: set[str],
        *,
        grace: float,
        busy: Callable[[str], bool],
    ) -> None:
        self._functions = functions
        self._services = services
        self._records = records
        self._known = known
        self._known_values = {labels.container_value(container) for container in known}
        self._grace = grace
        self._busy = busy
        self._now = time.time()

    async def run(self) -> int:
        """Returns how many functions and services were removed. Raises CloudError."""
        removed = await self._retire_idle()
        records = {record.name: record for record in await self._records.all()}
        seen: set[str] = set()
        async for function in self._functions.ours():
            name = str(function.name).rpartition("/")[2]
            seen.add(name)
            removed += await self._function(name, function, records.get(name))
        for record in records.values():
            if record.name not in seen and self._now - record.changed_at >= self._grace:
                await self._records.forget(record)
        async for service in self._services.ours():
            removed += await self._service(service, seen)
        return removed

    async def _retire_idle(self) -> int:
        """Spares idle for an hour: so many of their shape are taken out, whichever the claim gives."""
        removed = 0
        for record in await self._records.all():
            if record.container or self._now - record.changed_at < IDLE:
                continue
            taken = await self._records.claim(record.tenant, record.shape, f"{RETIRED}-{secrets.token_hex(8)}")
            if taken is not None:
                removed += await self._delete(taken.name, taken)
        return removed

    async def _function(self, name: str, function: Any, record: CloudFunction | None) -> int:
        if self._busy(name) or self._now - _seconds(function.create_time) < self._grace:
            return 0
        if record is None:
            # A deployment that was broken off, by its label: a start of the container takes it over.
            owner = dict(function.labels).get(labels.CONTAINER)
            return 0 if owner in self._known_values else await self._delete(name, None)
        if not record.container or record.container in self._known or self._now - record.changed_at < self._grace:
            return 0
        current = await self._records.of(record.tenant, record.container)
        return await self._delete(name, record) if current is not None and current.name == name else 0

    async def _delete(self, name: str, record: CloudFunction | None) -> int:
        removed = await self._functions.delete(name)
        if record is not None:
            await self._records.forget(record)
        return int(removed)

    async def _service(self, service: Any, functions: set[str]) -> int:
        name = str(service.name).rpartition("/")[2]
        young = self._now - _seconds(service.create_time) < self._grace
        if name in functions or young or self._busy(name):
            return 0
        return int(await self._services.delete(str(service.name)))


def _seconds(at: Any) -> float:
    return float(at.timestamp()) if at else 0.0
