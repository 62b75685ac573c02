"""Hijacked requests: the ticket is asked with the user's token, and the relay it names is dialled."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import urlsplit

import orjson

from agent_gateway.client_half import ClientHalf, StreamError
from agent_gateway.control_plane_client import Grant, HijackRequest, Refused
from agent_gateway.faults import Lost
from agent_gateway.forwarding.address import is_loopback, proxy_for
from agent_gateway.forwarding.connections import Connections
from agent_gateway.forwarding.upstream import Bearer, Upstream, chunks
from agent_gateway.front_end import from_front_end, front_end_refusal
from agent_gateway.stream_dial import WebsocketCarrier
from agent_gateway.streams import stream_url
from agent_gateway.websockets import Socket, dial

_UNREACHABLE = 503


class UserTickets:
    """`control_plane_client.Tickets` for one user."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def tickets(self, request: HijackRequest) -> Grant:
        """`POST /internal/v1/tickets`. Raises Refused.

        With an exec's ticket its one start is claimed: `attempt` says that it was for us, if the answer is lost.
        """
        asked = {"method": request.method, "path": request.path, "query": request.query, "body": request.body}
        body = orjson.dumps(asked | {"attempt": secrets.token_hex(16)})
        headers = [(b"content-type", b"application/json")]
        try:
            answer = await self._upstream.ask("POST", "/internal/v1/tickets", headers, body, again=True)
            try:
                content = b"".join([chunk async for chunk in chunks(answer)])
            finally:
                await answer.aclose()
        except Lost as lost:
            raise self._upstream.lost(lost) from None
        if answer.status_code != 200 and from_front_end(answer):
            raise front_end_refusal(self._upstream.url, answer.status_code)
        try:
            found = orjson.loads(content)
            if answer.status_code != 200:
                raise Refused(answer.status_code, str(found["message"]))
            return Grant(
                found["stream_id"],
                found["ticket"],
                found["relay_url"],
                found["container"],
                bool(found["tty"]),
                found["content_type"],
            )
        except (orjson.JSONDecodeError, TypeError, KeyError):
            raise Refused(502, f"{self._upstream.url} gave no ticket that makes sense") from None


class Relays:
    """The relays that tickets name, dialled with the user's certificates and proxies."""

    def __init__(self, connections: Connections, *, allow_http: bool) -> None:
        self._connections = connections
        self._tls = connections.address.tls()
        self._allow_http = allow_http
        self._secure = connections.address.url.startswith("https:")

    def of(self, url: str) -> _DialledRelay:
        """Raises Refused for one that would show the stream to the network."""
        self.check(url)
        return _DialledRelay(self, url)

    def check(self, url: str) -> None:
        """Raises Refused."""
        parts = urlsplit(url)
        near = not self._secure and is_loopback(parts.hostname or "")
        if parts.scheme != "https" and not (parts.scheme == "http" and (near or self._allow_http)):
            raise Refused(502, f"the gateway's address {url} is refused: https:// is wanted")

    async def connect(self, url: str, socket: Socket, ticket: str) -> Any:
        """One connection, as `websockets.dial` makes it."""
        tls = self._tls if url.startswith("https:") else None
        return await dial(url, socket, ticket, tls=tls, proxy=proxy_for(url))

    async def where(self, stream_id: str, ticket: str) -> str:
        """The relay that serves a stream now. Raises StreamError: below 500 the stream is over."""
        target = f"/internal/v1/streams/{stream_id}/relay"
        try:
            status, body, _ = await Upstream(self._connections, Bearer(ticket)).fetch("POST", target, content=b"")
            found = orjson.loads(body)
            if status != 200:
                raise StreamError(status, str(found["message"]))
            self.check(found["relay_url"])
        except (Lost, Refused, orjson.JSONDecodeError, TypeError, KeyError) as error:
            raise StreamError(503, str(error)) from None
        return str(found["relay_url"])


class _DialledRelay:
    """One relay, as the front door joins it."""

    def __init__(self, relays: Relays, url: str) -> None:
        self._relays = relays
        self._url = url

    async def join(self, half: ClientHalf, stream_id: str, ticket: str) -> None:
        """Dials it, and where its agent has moved to after each cut. Raises StreamError."""

        async def moved(_: str) -> str:
            return stream_url(await self._relays.where(stream_id, ticket), stream_id)

        carrier = WebsocketCarrier(half, stream_url(self._url, stream_id), ticket, self._relays.connect, moved)
        try:
            await carrier.dial()
        except StreamError as error:
            if error.status != _UNREACHABLE:
                raise
            # Whether the relay has taken the stream is not known: it is gone on with, as after any other cut.
            carrier.take_over()
