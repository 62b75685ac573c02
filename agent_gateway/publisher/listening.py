"""The listening sockets of one container's publication, and the connections that came in on them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from agent_gateway.client_half import ClientHalf
from agent_gateway.publisher.connection import PublishedConnection
from agent_gateway.publisher.memory import Publication
from agent_gateway.publisher.sockets import Sockets, again

MOST_CONNECTIONS = 1024
"""To the ports of one container."""
_log = logging.getLogger(__name__)

DialPort = Callable[[int, ClientHalf], Awaitable[None]]
"""Makes a half the client half of a stream to a port of the container. Raises Refused, StreamError."""


class Listening:
    """Sockets that are reserved (connections wait in them), served, or only remembered."""

    def __init__(
        self,
        name: str,
        publication: Publication,
        sockets: Sockets | None,
        dial: DialPort,
        *,
        shared: bool = False,
    ) -> None:
        """Without `sockets` they are made when it is served. `shared`: see `sockets.reserve`."""
        self._shared = shared
        self.name = name
        self.publication = publication
        self.sockets = sockets
        self._dial = dial
        self._servers: list[asyncio.Server] = []
        self._standing: set[PublishedConnection] = set()
        self._served = False

    async def serve(self) -> None:
        """Accepts connections. Repeatable."""
        if self._served:
            return
        self._served = True
        if self.sockets is None:
            self.sockets, missing = again(self.publication.ports, shared=self._shared)
            for taken in missing:
                _log.warning("a published port cannot be listened for again: %s: %s", taken.address, taken.reason)
        loop = asyncio.get_running_loop()
        for port, sock in self.sockets.by_port:
            self._servers.append(await loop.create_server(partial(self._connection, port), sock=sock))

    def close(self, *, cut: bool = False) -> None:
        """Listens no more. Connections go on until their container's end is told, unless they are cut."""
        for server in self._servers:
            server.close()
        if self.sockets is not None:
            self.sockets.close()
        if cut:
            for connection in list(self._standing):
                connection.reset()

    def _connection(self, port: int) -> PublishedConnection:
        return PublishedConnection(partial(self._dial, port), self._standing, MOST_CONNECTIONS)
