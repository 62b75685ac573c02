"""Who may join which stream, and how the agent comes to know of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from agent_gateway import traces
from agent_gateway.client_half import ClientHalf, StreamError
from agent_gateway.control_plane_client import ControlPlane
from agent_gateway.protocol import is_stream_id
from agent_gateway.relay.halves import LocalCarrier, LocalHalf, SpareHalf, WebsocketHalf
from agent_gateway.relay.links import REDIAL_WAIT_SECONDS, Link, Links, LinkSocket
from agent_gateway.relay.moves import ATTACH, Moves
from agent_gateway.relay.pairing import Pair, Pairs, StreamRefused
from agent_gateway.relay.reports import Reports
from agent_gateway.relay.used_tickets import UsedTickets
from agent_gateway.tickets import (
    KIND_CALL,
    AgentToken,
    Ticket,
    TicketRefused,
    verify_agent_token,
    verify_gateway_token,
    verify_ticket,
)

_EXITED_SECONDS = 1.0
"""After the last event and the end of the link: time for the agent's stream sockets to close in order."""
_BOUNCE_SECONDS = 5.0
"""So long an attachment from another gateway waits here for its agent, before it asks again where that is."""


class Streams:
    """The relay without its listener: links, pairs, tickets."""

    def __init__(self, key: bytes, control_plane: ControlPlane) -> None:
        self._key = key
        self.pairs = Pairs(self._unheard, self._agent_lost)
        self._used = UsedTickets()
        self.calls = 0
        """Calls since the start."""
        self._reports = Reports(control_plane, self.awaited)
        self.links = Links(self._reports.report, self._arrived, self._unlinked)
        self.moves = Moves(self.links, self.pairs)
        self._reports.welcomed = self.moves.welcomed
        self._draining = False

    # Tokens. They raise TicketRefused.

    def agent_token(self, token: str) -> AgentToken:
        """Who an agent is."""
        return verify_agent_token(self._key, token)

    def gateway_token(self, token: str) -> str:
        """The right to read this gateway's figures: the URL of the gateway that the token was made for."""
        return verify_gateway_token(self._key, token)

    def call_ticket(self, token: str, container: str) -> Ticket:
        """The right to call one container's agent."""
        ticket = verify_ticket(self._key, token)
        if ticket.container != container:
            raise TicketRefused("the ticket is for another container")
        if not self._used.use(ticket.id, ticket.expires):
            raise TicketRefused("the ticket has been used")
        return ticket

    # Websockets that come in. They raise TicketRefused or StreamRefused.

    def link(self, token: str) -> LinkSocket:
        """`GET /agent/link`."""
        agent = self.agent_token(token)
        return LinkSocket(self.links, agent)

    def spare(self, token: str) -> SpareHalf:
        """`GET /agent/streams`."""
        return SpareHalf(self.links, self.agent_token(token).container)

    def agent_half(self, token: str, stream: str) -> WebsocketHalf:
        """`GET /agent/streams/{stream_id}`."""
        agent = self.agent_token(token)
        if not is_stream_id(stream):
            raise StreamRefused(404, "no such stream")
        self.pairs.check(stream, agent.container)
        return WebsocketHalf("agent", lambda: self.pairs.for_agent(stream, agent.container))

    def client_half(self, token: str, stream: str, trace: Mapping[str, str] | None = None) -> WebsocketHalf:
        """`GET /streams/{stream_id}`; `trace` is what its headers name."""
        if not is_stream_id(stream):
            raise StreamRefused(404, "no such stream")
        ticket = verify_ticket(self._key, token, stream=stream, allow_expired=True)
        if ticket.kind == KIND_CALL:
            raise TicketRefused("the ticket is for calls")
        self.pairs.refuse_ended(stream)
        return _ClientHalf(self, ticket, trace)

    # In this process.

    async def join(
        self, half: ClientHalf, stream_id: str, ticket: str, relocate: Callable[[], None] | None = None
    ) -> None:
        """A client half in this process; `relocate` carries it on at another gateway. Raises StreamError."""
        try:
            checked = verify_ticket(self._key, ticket, stream=stream_id)
            pair = self.pair_of(checked)
        except (TicketRefused, StreamRefused) as refused:
            status = refused.status if isinstance(refused, StreamRefused) else 403
            raise StreamError(status, str(refused)) from None
        self.join_local(half, pair, relocate)

    def join_local(self, half: ClientHalf, pair: Pair, relocate: Callable[[], None] | None = None) -> None:
        """Puts a half of this process into its pair."""
        local = LocalHalf(pair, half, relocate)
        half.carrier = LocalCarrier(pair, local)
        pair.place("client", local)
        self.joined(pair)

    def pair_for(self, stream: str, container: str, kind: str, params: Mapping[str, Any]) -> Pair:
        """The pair of a stream the control plane itself opens. Raises StreamError."""
        try:
            return self.pairs.for_client(stream, container, kind, dict(params))
        except StreamRefused as refused:
            raise StreamError(refused.status, refused.message) from None

    async def call(self, container: str, method: str, params: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """One call over the link; `start` names the attachments that wait, `end` and `move` are our own.

        Raises StreamError.
        """
        self.calls += 1
        if method == "end":
            message = str(params.get("message") or f"the agent of container {container} is gone")
            self.end(container, message, 501 if params.get("status") == 501 else 409)
            return {}
        if method == "move":
            return self.moves.move(container, params)
        if method == "start":
            params = {**params, "streams": self.awaited(container, params.get("streams"))}
        link = self.links.expect(container)
        try:
            return await link.call(method, params, timeout)
        finally:
            if not link.boot:
                self.links.forget(link)

    def end(self, container: str, message: str | None = None, status: int = 409) -> None:
        """The control plane says that no agent will come: lone client halves end, with an error for a message."""
        link = self.links.get(container)
        if link is not None:
            link.over = True
        for pair in self.pairs.of(container):
            if pair.agent is None and pair.client is not None:
                if message is None:
                    pair.client.close()
                    self.pairs.remove(pair)
                else:
                    pair.fail(status, message)

    def waiting(self, container: str) -> list[str]:
        """The attachments that are there: the process starts only when the agent has opened them."""
        return [pair.stream for pair in self.pairs.of(container) if pair.kind == ATTACH and pair.client is not None]

    def awaited(self, container: str, named: object) -> list[str]:
        """What a start waits for: the attachments that are there, and those that the control plane has announced.

        Of these a client that is known to have gone delays nothing.
        """
        streams = self.waiting(container)
        for stream in named if isinstance(named, list) else ():
            if isinstance(stream, str) and stream not in streams and not self.pairs.has_ended(stream):
                streams.append(stream)
        return streams

    def joined(self, pair: Pair, *, expired: bool = False, trace: Mapping[str, str] | None = None) -> None:
        """A client half is in its place: the agent is told, unless its half is there."""
        if pair.agent is not None or pair.paired or self.moves.follow(pair):
            return
        if traces.active is not None and not expired and pair.opening is None:
            pair.opening = traces.active.opening(pair.kind, pair.container, trace or {})
        pair.expired = expired
        if expired:
            # It may only rejoin an agent's half that redials, after a restart of the relay.
            pair.opened = True
            pair.expire("client")
            self._look_again(pair)
            return
        link = self.links.get(pair.container)
        if link is not None and link.socket is not None:
            spare = self.links.take_spare(pair.container)
            if spare is not None:
                spare.assign(pair)
            else:
                link.open(pair)
                pair.expire("client")
        else:
            self._look_again(pair)

    async def drain(self, seconds: float) -> None:
        """Asks agents to dial again, waits for streams to end, then cuts what is left (it resumes elsewhere)."""
        self._draining = True
        await self.moves.drain(seconds)
        await self._reports.close()

    def pair_of(self, ticket: Ticket) -> Pair:
        """The pair a ticket is for. Raises StreamRefused."""
        return self.pairs.for_client(ticket.stream, ticket.container, ticket.kind, ticket.params)

    def _unheard(self, pair: Pair) -> None:
        link = self.links.get(pair.container)
        if link is not None and link.socket is not None:
            link.open(pair)

    def _look_again(self, pair: Pair) -> None:
        seconds = _BOUNCE_SECONDS if pair.kind == ATTACH else REDIAL_WAIT_SECONDS
        asyncio.get_running_loop().call_later(seconds, self._unlinked_still, pair)

    def _unlinked_still(self, pair: Pair) -> None:
        link = self.links.get(pair.container)
        if pair.ended or pair.agent is not None or (link is not None and link.socket is not None):
            return
        if pair.rejoining:
            # Its agent may be elsewhere; whoever redials asks where.
            pair.send_off("the agent is not linked here")
        elif pair.kind != ATTACH and not pair.opened:
            pair.fail(409, f"agent of container {pair.container} is not connected")

    def _agent_lost(self, pair: Pair) -> None:
        if self._draining and pair.redials:
            pair.go_away()
        else:
            self.moves.follow(pair)

    def _arrived(self, link: Link, renewed: bool) -> None:
        self.moves.arrived(link.container)
        if renewed:
            self.links.drop_spares(link.container)
        for pair in self.pairs.of(link.container):
            if pair.agent is not None or pair.client is None:
                continue
            if not pair.paired:
                if pair.expired and pair.kind != ATTACH:
                    continue  # it was opened before, or its time to be is over
                link.open(pair)
                pair.expire("client")
            elif renewed:
                pair.fail(409, f"the agent of container {link.container} was restarted")

    def _unlinked(self, link: Link, farewell: bool) -> None:
        if self._draining:
            return
        self._reports.unlinked(link, self.links, farewell=farewell)
        if link.over:
            asyncio.get_running_loop().call_later(_EXITED_SECONDS, self._exited, link)

    def _exited(self, link: Link) -> None:
        if link.socket is not None:
            return
        self.links.drop_spares(link.container)
        for pair in self.pairs.of(link.container):
            if pair.agent is None and (pair.opened or pair.paired):
                pair.fail(409, f"container {link.container} is not running")


class _ClientHalf(WebsocketHalf):
    """A client half that was dialled: the agent is told once it stands."""

    def __init__(self, streams: Streams, ticket: Ticket, trace: Mapping[str, str] | None) -> None:
        super().__init__("client", lambda: streams.pair_of(ticket))
        self._streams = streams
        self._ticket = ticket
        self._trace = trace

    def opened(self) -> None:
        super().opened()
        if self.pair is not None and not self.pair.ended:
            self._streams.joined(self.pair, expired=self._ticket.expired, trace=self._trace)
