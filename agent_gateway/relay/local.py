"""The relay as the front door and the control plane in the same process use it: no websocket, no ticket to mint."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from agent_gateway.client_half import ClientHalf
from agent_gateway.relay.streams import Streams
from agent_gateway.streams import CALL_SECONDS, Stream, Where, new_stream_id, stream_url


class LocalRelay:
    """`streams.Relay` on the relay of this process."""

    def __init__(self, streams: Streams, where: Where | None = None) -> None:
        self._streams = streams
        self._where = where

    async def join(self, half: ClientHalf, stream_id: str, ticket: str) -> None:
        """Becomes the client half of the stream the ticket is for. Raises StreamError.

        When the agent turns up at another gateway the stream goes on there, over a websocket.
        """
        relocate = None if self._where is None else partial(_relocate, half, stream_id, ticket, self._where)
        await self._streams.join(half, stream_id, ticket, relocate)

    async def open(self, tenant: str, container: str, kind: str, params: Mapping[str, Any]) -> Stream:
        """Opens a stream. Raises StreamError."""
        stream = Stream()
        self._streams.join_local(stream, self._streams.pair_for(new_stream_id(), container, kind, params))
        return stream

    async def call(
        self,
        tenant: str,
        container: str,
        method: str,
        params: Mapping[str, Any],
        timeout: float = CALL_SECONDS,
    ) -> dict[str, Any]:
        """One call over the link. Raises StreamError."""
        return await self._streams.call(container, method, params, timeout)

    def connected(self, container: str) -> bool:
        """Whether the agent's link stands now."""
        link = self._streams.links.get(container)
        return link is not None and link.socket is not None

    def end(self, container: str, message: str | None = None) -> None:
        """No agent will come (any more): client halves that wait for one end, with 409 when there is a message."""
        self._streams.end(container, message)


def _relocate(half: ClientHalf, stream_id: str, ticket: str, where: Where) -> None:
    from agent_gateway.stream_dial import WebsocketCarrier

    async def moved(_: str) -> str:
        return stream_url(await where(stream_id, ticket), stream_id)

    WebsocketCarrier(half, "", ticket, moved=moved).take_over()
