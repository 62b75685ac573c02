"""An answer that goes on over as many connections as it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_gateway.asgi import Send
from agent_gateway.faults import Lost
from agent_gateway.forwarding.asked import Asked
from agent_gateway.forwarding.resumption import Resumption
from agent_gateway.forwarding.upstream import Upstream
from agent_gateway.front_end import from_front_end, front_end_refusal

if TYPE_CHECKING:
    import httpx


_OF_BODY = (b"content-length", b"content-type", b"content-encoding")


class Continued:
    """One request with such an answer. Subclasses are for wait, logs and events."""

    def __init__(self, upstream: Upstream, asked: Asked) -> None:
        self._upstream = upstream
        self._asked = asked
        self._resumption = Resumption(upstream)

    async def serve(self, send: Send) -> None:
        """The whole answer. Raises Refused before its head, ConnectionAbortedError when it cannot be gone on with."""
        raise NotImplementedError

    async def _first(self, method: str, target: str) -> httpx.Response:
        """The control plane's answer to what the client asked. Raises Refused."""
        try:
            headers = [header for header in self._asked.headers if header[0] not in _OF_BODY]
            answer = await self._upstream.ask(method, target, headers, again=True)
        except Lost as lost:
            raise self._upstream.lost(lost) from None
        if answer.status_code != 200 and from_front_end(answer):
            await answer.aclose()
            raise front_end_refusal(self._upstream.url, answer.status_code)
        return answer
