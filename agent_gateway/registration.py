"""The gateway's lease in the control plane's registry: renewed every ten seconds with its load."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence

from agent_gateway.control_plane_client import HttpControlPlane, Refused

_LOGGER = logging.getLogger("agent_gateway.registration")

RENEWAL_SECONDS = 10.0
_RETRY_SECONDS = 2.0


class Registration:
    """`load` tells how many agents are linked; `others` is told the URLs of the other gateways that live."""

    def __init__(
        self, control_plane: HttpControlPlane, load: Callable[[], int], others: Callable[[Sequence[str]], None]
    ) -> None:
        self._control_plane = control_plane
        self._load = load
        self._others = others
        self._renewing: asyncio.Task[None] | None = None
        self._refused = ""
        self.registered = False
        """Whether the last renewal was accepted."""

    def start(self) -> None:
        """Registers now and from now on."""
        self._renewing = asyncio.create_task(self._renew_forever(), name="registration")

    async def drain(self) -> None:
        """No container is given to this gateway any more; those that it has go to the others that are told now."""
        await self._end_renewal()
        await self._register(draining=True)

    async def end(self) -> None:
        """The gateway is gone."""
        await self._end_renewal()
        with contextlib.suppress(Refused):
            await self._control_plane.deregister()

    async def _renew_forever(self) -> None:
        while True:
            await self._register()
            pause = RENEWAL_SECONDS if self.registered else _RETRY_SECONDS
            await asyncio.sleep(pause * random.uniform(0.9, 1.0))

    async def _register(self, *, draining: bool = False) -> None:
        try:
            others = await self._control_plane.register(self._load(), draining=draining)
        except Refused as refused:
            self.registered = False
            if refused.message != self._refused:
                self._refused = refused.message
                _LOGGER.warning("the control plane does not register this gateway: %s", refused.message)
            return
        if self._refused:
            self._refused = ""
            _LOGGER.warning("the control plane registers this gateway again")
        self.registered = True
        self._others(others)

    async def _end_renewal(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
            self._renewing = None
