"""The launcher's side of its unix socket: reads requests, sends answers, never waits for a slow client."""

from __future__ import annotations

import socket

from local_cloud.runtime.frames import FrameError, Frames, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from local_cloud.runtime.requests import Requests

_MAX_WAITING = 32 << 20


class Client:
    """One connection."""

    __slots__ = ("_clients", "_frames", "_out", "_writing", "socket")

    def __init__(self, connection: socket.socket, clients: Clients) -> None:
        self.socket = connection
        self._clients = clients
        self._frames = Frames()
        self._out = bytearray()
        self._writing = False

    def send(self, message: dict[str, Any]) -> None:
        """Queues an answer; a client that has gone loses it."""
        if self.socket.fileno() < 0:
            return
        self._out += encode(message)
        self._flush()

    def ready(self) -> None:
        """The socket can be read, written or is broken."""
        self._flush()
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        try:
            messages = self._frames.feed(data) if data else []
        except FrameError:
            data, messages = b"", []
        for message in messages:
            self._clients.requests.handle(self, message)
        if not data:
            self._clients.drop(self)

    def _flush(self) -> None:
        try:
            while self._out:
                del self._out[: self.socket.send(self._out)]
        except BlockingIOError:
            if len(self._out) > _MAX_WAITING:
                self._clients.drop(self)
                return
        except OSError:
            self._out.clear()
        if self._writing != bool(self._out):
            self._writing = bool(self._out)
            self._clients.watch(self.socket.fileno(), self.ready, self._writing)


class Clients:
    """All connections, and the listener."""

    def __init__(
        self,
        listener: socket.socket,
        greeting: dict[str, Any],
        requests: Requests,
        watch: Callable[..., None],
        forget: Callable[[int], None],
    ) -> None:
        self._listener, self._greeting = listener, greeting
        self.requests, self.watch, self._forget = requests, watch, forget
        self.connected: set[Client] = set()
        watch(listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        client = Client(connection, self)
        self.connected.add(client)
        self.watch(connection.fileno(), client.ready)
        client.send(self._greeting)

    def drop(self, client: Client) -> None:
        """Closes a connection; the containers it started go on."""
        if client.socket.fileno() < 0:
            return
        self._forget(client.socket.fileno())
        self.connected.discard(client)
        client.socket.close()
        self.requests.forget_client(client)

    def say_farewell(self) -> None:
        """Closes all connections: to a client that asked for the shutdown this is the answer."""
        self._forget(self._listener.fileno())
        self._listener.close()
        for client in list(self.connected):
            self.drop(client)
