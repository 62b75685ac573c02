"""Asking again after a cut: for how long, how often, and what counts as an answer."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from agent_gateway.control_plane_client import Refused
from agent_gateway.faults import Lost
from agent_gateway.forwarding.connections import Headers
from agent_gateway.forwarding.upstream import Upstream
from agent_gateway.front_end import from_front_end

if TYPE_CHECKING:
    import httpx

_PATIENCE_SECONDS = 300.0
"""So long the endpoint may be away in the middle of an answer."""
_LONGEST_PAUSE = 2.0


class Resumption:
    """The patience of one long answer. It is whole again after each success."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._broken_since: float | None = None
        self._delay = 0.0

    async def pause(self, why: Exception) -> None:
        """Waits a little more each time. Raises ConnectionAbortedError when patience is at its end."""
        now = asyncio.get_running_loop().time()
        self._broken_since = now if self._broken_since is None else self._broken_since
        if now - self._broken_since > _PATIENCE_SECONDS:
            raise ConnectionAbortedError(str(why)) from None
        if self._delay:
            await asyncio.sleep(self._delay * random.uniform(0.5, 1.0))
        self._delay = min(max(self._delay * 2, 0.05), _LONGEST_PAUSE)

    def succeeded(self) -> None:
        """Something came through."""
        self._broken_since = None
        self._delay = 0.0

    async def ask(self, method: str, target: str, headers: Headers | None = None) -> httpx.Response:
        """The control plane's answer, however long that takes. Raises ConnectionAbortedError."""
        while True:
            try:
                answer = await self._upstream.ask(method, target, headers, again=True)
                if answer.status_code < 500 and not from_front_end(answer):
                    return answer
                await answer.aclose()
                await self.pause(Lost(f"the endpoint answered {answer.status_code}"))
            except Lost as lost:
                await self.pause(lost)
            except Refused as refused:
                if refused.status == 401:
                    raise ConnectionAbortedError(refused.message) from None
                await self.pause(refused)

    async def fetch(self, method: str, target: str) -> tuple[int, bytes, str]:
        """The same for a small answer, whole: status, body, `Date`."""
        while True:
            try:
                status, body, date = await self._upstream.fetch(method, target)
                if status < 500:
                    return status, body, date
                await self.pause(Lost(f"the endpoint answered {status}"))
            except (Lost, Refused) as fault:
                await self.pause(fault)
