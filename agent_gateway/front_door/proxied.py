"""Connections from a TLS proxy: each begins with a PROXY protocol header, and becomes an HTTP connection behind it.

The header is never optional. Where it were, a client that reaches the listener could write one itself, or leave it out.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import time
from collections.abc import Iterable
from typing import Any, cast

from agent_gateway.front_door.http import GatewayProtocol, HttpServer
from agent_gateway.front_door.proxy_protocol import Malformed, Proxied, parse

_LOGGER = logging.getLogger("agent_gateway")
_HEADER_SECONDS = 5.0
_COMPLAINT_SECONDS = 60.0
"""Between two lines of the log about refused connections: whoever floods the listener does not flood the log."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and networks (`10.0.0.0/8`) as they are written. Raises ValueError."""
    return tuple(ipaddress.ip_network(text) for text in texts)


class ProxiedListener:
    """The protocol factory of Docker listeners that proxies alone may connect to."""

    def __init__(self, server: HttpServer, proxies: Iterable[str]) -> None:
        """`proxies`: their addresses and networks. On a unix socket the file's mode decides instead."""
        self.server = server
        self._proxies = networks(proxies)
        self._refused = 0
        self._complained = -_COMPLAINT_SECONDS

    def __call__(self) -> asyncio.Protocol:
        """One connection."""
        return _HeaderAwaited(self)

    def trusts(self, transport: asyncio.Transport) -> bool:
        """Whether the peer is one of the proxies."""
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_UNIX:
            return True
        peer = transport.get_extra_info("peername")
        try:
            address = ipaddress.ip_address(peer[0].partition("%")[0])
        except (TypeError, IndexError, ValueError):
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._proxies)

    def complain(self, transport: asyncio.Transport, reason: str) -> None:
        """Tells the operator, once in a while."""
        self._refused += 1
        now = time.monotonic()
        if now - self._complained >= _COMPLAINT_SECONDS:
            peer = transport.get_extra_info("peername")
            _LOGGER.warning(
                "refused a connection of %r to a Docker listener: %s (%d so far)", peer, reason, self._refused
            )
            self._complained = now


class _HeaderAwaited(asyncio.Protocol):
    """A connection until its header is there; then the transport is given to an HTTP protocol, with nothing between."""

    def __init__(self, listener: ProxiedListener) -> None:
        self._listener = listener
        self._held = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport = cast(Any, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if not self._listener.trusts(self.transport):
            self._refuse("its address is not one of the proxies'")
            return
        # What the server closes and cuts at its end.
        self._listener.server.state.connections.add(cast(Any, self))
        self._timer = asyncio.get_running_loop().call_later(
            _HEADER_SECONDS, self._refuse, "no PROXY header came in time"
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._held += data
        try:
            found = parse(self._held)
        except Malformed as malformed:
            self._refuse(str(malformed))
            return
        if found is not None:
            self._hand_over(*found)

    def shutdown(self) -> None:
        """The server ends: nothing is under way here."""
        self.transport.close()

    def _hand_over(self, proxied: Proxied, end: int) -> None:
        self._leave()
        http = GatewayProtocol(self._listener.server, proxied)
        self.transport.set_protocol(http)
        http.connection_made(self.transport)
        if len(self._held) > end:
            http.data_received(bytes(self._held[end:]))

    def _refuse(self, reason: str) -> None:
        self._leave()
        self._listener.complain(self.transport, reason)
        self.transport.abort()

    def _leave(self) -> None:
        self._listener.server.state.connections.discard(cast(Any, self))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
