"""The registry of gateways: which live, how busy they are, and which one a new container gets.

A gateway renews its lease every ten seconds; one that does not is taken for dead half a minute later.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from contextlib import suppress

from control_plane.errors import Unavailable
from control_plane.model import Gateway
from control_plane.services.records import Records
from control_plane.store.base import AlreadyExists, Store
from control_plane.timestamps import now

LEASE_SECONDS = 30.0
_TENANT = "endpoint"
_FRESH_SECONDS = 2.0
"""So long one reading serves every create and start of this process."""
_KEPT_SECONDS = 600.0
"""After its lease has ended a gateway's record is kept for whoever looks why."""
_NONE_LIVES = (
    "no gateway is available: none has reported within the last 30 seconds, or all are being shut down; "
    "see that at least one gateway runs and reaches the control plane"
)


class Gateways:
    """With `only` there is one gateway, which does not register: the embedded endpoint's, or a fixed one."""

    def __init__(self, store: Store, only: str = "") -> None:
        self.only = only
        self._records = Records(store, "gateways", Gateway)
        self._known: list[Gateway] = []
        self._read_at = float("-inf")
        self._given: dict[str, int] = {}
        """Containers given out since the last reading: else all would go to the one that was idle then."""
        self._reading = asyncio.Lock()

    async def pick(self) -> str:
        """The URL of the least busy gateway that lives. Raises Unavailable."""
        if self.only:
            return self.only
        candidates = [gateway for gateway in await self._live() if not gateway.draining]
        if not candidates:
            raise Unavailable(_NONE_LIVES)
        chosen = min(candidates, key=lambda g: (g.load + self._given.get(g.url, 0), random.random()))
        self._given[chosen.url] = self._given.get(chosen.url, 0) + 1
        return chosen.url

    async def serves(self, url: str) -> bool:
        """Whether a gateway lives and goes on living."""
        if self.only:
            return True
        return any(gateway.url == url and not gateway.draining for gateway in await self._live())

    async def dead(self, url: str) -> bool:
        """Whether a gateway is gone for certain: its lease is long over, or given up, while others have theirs."""
        live = await self._live()
        if self.only or not live or any(gateway.url == url for gateway in live):
            return False
        ended = max((gateway.lease_until for gateway in self._known if gateway.url == url), default=0.0)
        return ended < time.time() - LEASE_SECONDS

    async def living(self) -> set[str]:
        """The URLs of all that live, drain or not."""
        return {gateway.url for gateway in await self._live()}

    async def register(self, url: str, instance: str, load: int, *, draining: bool) -> list[str]:
        """A gateway's lease, renewed. The result: the URLs of the others that live and do not drain.

        Of two processes at one URL (a new one in an old one's place) the one that does not drain has the record.
        """
        until = time.time() + LEASE_SECONDS
        wanted = Gateway(url=url, instance=instance, load=load, lease_until=until, draining=draining, started_at=now())

        def change(known: Gateway) -> Gateway | None:
            if known.instance == instance:
                return wanted.model_copy(update={"started_at": known.started_at})
            return None if draining and not known.draining and known.lease_until > time.time() else wanted

        if await self._records.update(_TENANT, _key(url), change) is None:
            with suppress(AlreadyExists):
                await self._records.create(_TENANT, _key(url), wanted)
            self._read_at = float("-inf")
        if draining:
            self._read_at = float("-inf")
        return await self.others(url)

    async def others(self, url: str) -> list[str]:
        """The URLs of the other gateways that live and go on living."""
        return [other.url for other in await self._live() if other.url != url and not other.draining]

    async def deregister(self, url: str, instance: str) -> None:
        """The gateway is gone; repeatable. A newer one in its place stays."""
        known = await self._records.get(_TENANT, _key(url))
        if known is not None and known.instance == instance:
            await self._records.delete(_TENANT, _key(url))
        self._read_at = float("-inf")

    async def _live(self) -> list[Gateway]:
        async with self._reading:
            if time.monotonic() - self._read_at > _FRESH_SECONDS:
                self._known = await self._records.list(_TENANT)
                self._read_at = time.monotonic()
                self._given.clear()
                await self._forget_dead()
        present = time.time()
        return [gateway for gateway in self._known if gateway.lease_until > present]

    async def _forget_dead(self) -> None:
        for gateway in self._known:
            if gateway.lease_until < time.time() - _KEPT_SECONDS:
                await self._records.delete(_TENANT, _key(gateway.url))


def _key(url: str) -> str:
    """A URL as a document's key: no slashes, one length."""
    return hashlib.sha256(url.encode()).hexdigest()[:32]
