"""Runs a gateway: Docker listeners (front door) and agent listeners (relay), in the process of the caller."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from agent_gateway import traces
from agent_gateway.asgi import App
from agent_gateway.control_plane_client import ControlPlane
from agent_gateway.forwarding.address import Address
from agent_gateway.forwarding.connections import Connections
from agent_gateway.forwarding.requests import Requests
from agent_gateway.front_door.app import FrontDoor
from agent_gateway.front_door.clients import Clients
from agent_gateway.front_door.http import HttpServer
from agent_gateway.front_door.proxied import ProxiedListener
from agent_gateway.publisher.memory import Memory
from agent_gateway.publisher.publisher import Publisher
from agent_gateway.relay.app import RelayApp
from agent_gateway.relay.local import LocalRelay
from agent_gateway.relay.streams import Streams
from agent_gateway.streams import Relay, RemoteRelay, Where

_BACKLOG = 1024
_AGENT_KEEP_ALIVE_SECONDS = 75.0
"""Between two calls of a control plane; front ends of platforms reuse a connection for a minute."""
_CONTROL_PLANE_IDLE_SECONDS = 4.0
"""Less than servers keep an idle connection (hypercorn: 5 s), so that a request hardly ever meets its end."""
_SOCKET_MODE = 0o660


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """`listen` addresses are `tcp://host:port` and `unix:///path`; port 0 takes a free one."""

    key: bytes
    """Signs tickets and tokens; the control plane has the same. 32 bytes at least."""
    url: str
    """Of this gateway's relay, as tickets name it."""
    docker_listen: list[str] = field(default_factory=list)
    agent_listen: list[str] = field(default_factory=list)
    control_plane_url: str = ""
    """Where requests are forwarded when there is no inner app."""
    local_only: bool = False
    """The Docker listeners ask for no token: what a web page could have sent them is refused."""
    proxy_secret: str = ""
    """What the TLS proxy before the Docker listeners shows when it names the subject of a client's certificate."""
    publications: Path | None = None
    """Where it is kept what published ports are listened for on this machine; None: nobody listens here."""
    shared_network: bool = False
    """Containers have this machine's network: what they publish under its own number is there already."""
    docker_proxies: list[str] = field(default_factory=list)
    """Addresses and networks of the proxies that alone may connect to the Docker listeners, and that begin every
    connection with a PROXY protocol header; empty: clients connect as they are, and no header is understood."""
    peer_connections: int = 0
    """Most connections of one address to the agent listeners that have shown no valid token; 0: any number."""


class Gateway:
    """Front door and relay. `agents` is what a control plane in the same process opens streams and calls with."""

    def __init__(
        self,
        settings: GatewaySettings,
        control_plane: ControlPlane,
        inner_app: App | None = None,
        where: Where | None = None,
    ) -> None:
        """`where` tells at which gateway a stream's agent is; without it there is one gateway."""
        if len(settings.key) < 32:
            raise ValueError("the signing key has less than 32 bytes")
        if inner_app is None and not settings.control_plane_url:
            raise ValueError("a gateway needs an inner app or the control plane's URL")
        self._settings = settings
        self._streams = Streams(settings.key, control_plane)
        self._where = where
        self.agents = LocalRelay(self._streams, where)
        self._remotes: dict[str, RemoteRelay] = {}
        clients = Clients(settings.key, settings.url, proxy_secret=settings.proxy_secret)
        self._requests = _requests(settings.control_plane_url, clients) if inner_app is None else None
        app = self._requests if inner_app is None else clients.vouched(inner_app)
        assert app is not None
        relay_app = RelayApp(self._streams, self._connections)
        self.publisher: Publisher | None = None
        if settings.publications is not None:
            memory = Memory(settings.publications)
            app = self.publisher = Publisher(
                app, control_plane, self._relay_for, memory, shared_network=settings.shared_network
            )
        front_door = FrontDoor(
            control_plane,
            app,
            self._relay_for,
            relay_app,
            local_only=settings.local_only,
            clients=clients,
        )
        self._docker = HttpServer(traces.around(front_door, relay_app.serves), relay_app)
        proxies = settings.docker_proxies
        self._accept_docker = ProxiedListener(self._docker, proxies) if proxies else self._docker
        self._agent = HttpServer(
            relay_app, relay_app, keep_alive_seconds=_AGENT_KEEP_ALIVE_SECONDS, most_of_peer=settings.peer_connections
        )
        self._servers: list[asyncio.Server] = []
        self._paths: list[str] = []
        self.docker_addresses: list[str] = []
        """Where Docker clients are served, with the ports that were taken."""
        self.agent_addresses: list[str] = []

    async def start(self) -> None:
        """Listens. Raises OSError when an address can't be had; nothing listens then."""
        try:
            for address in self._settings.agent_listen:
                self.agent_addresses.append(await self._listen(address, self._agent))
            for address in self._settings.docker_listen:
                self.docker_addresses.append(await self._listen(address, self._accept_docker))
        except BaseException:
            self._close_listeners()
            raise

    def linked(self) -> int:
        """How many agents are linked."""
        return sum(link.socket is not None for link in self._streams.links.all())

    def others(self, urls: Sequence[str]) -> None:
        """The other gateways that live: agents may dial them when this one is gone."""
        self._streams.moves.others(urls)

    def _connections(self) -> int:
        return len(self._docker.state.connections) + len(self._agent.state.connections)

    async def stop(self, drain_seconds: float = 0.0) -> None:
        """Listens no more, lets streams end for so long, then cuts what is left."""
        for server in self._servers:
            server.close()
        self._docker.shutdown()
        if self.publisher is not None:
            self.publisher.close()
        await self._streams.drain(drain_seconds)
        # Close frames and last bytes go out before the sockets are cut.
        await asyncio.sleep(0.05)
        self._docker.abort()
        self._agent.abort()
        self._close_listeners()
        for remote in self._remotes.values():
            await remote.aclose()
        if self._requests is not None:
            await self._requests.aclose()

    def _relay_for(self, url: str) -> Relay:
        if url.rstrip("/") == self._settings.url.rstrip("/"):
            return self.agents
        remote = self._remotes.get(url)
        if remote is None:
            remote = self._remotes[url] = RemoteRelay(url, where=self._where, patient=True)
        return remote

    async def _listen(self, address: str, server: Callable[[], asyncio.Protocol]) -> str:
        loop = asyncio.get_running_loop()
        parts = urlsplit(address)
        if parts.scheme == "unix" and parts.path:
            sock = _unix_socket(parts.path)
            self._paths.append(parts.path)
            self._servers.append(await loop.create_unix_server(server, sock=sock, backlog=_BACKLOG))
            return address
        if parts.scheme != "tcp" or parts.port is None:
            raise ValueError(f"listen address {address!r}: tcp://host:port or unix:///path is wanted")
        listener = await loop.create_server(
            server, parts.hostname or "127.0.0.1", parts.port, backlog=_BACKLOG, reuse_address=True
        )
        if self._settings.local_only:
            _without_pacing(listener)
        self._servers.append(listener)
        host, port = listener.sockets[0].getsockname()[:2]
        return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"

    def _close_listeners(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        for path in self._paths:
            with contextlib.suppress(OSError):
                os.unlink(path)
        self._paths.clear()


def _requests(url: str, clients: Clients) -> Requests:
    """What passes requests on to a control plane elsewhere, each with its own client's credentials."""
    connections = Connections(Address(url.rstrip("/")), idle_seconds=_CONTROL_PLANE_IDLE_SECONDS)
    return Requests(connections, clients.credentials)


def _without_pacing(listener: asyncio.Server) -> None:
    """Congestion control that paces (BBR, where it is the default) has nothing to learn inside a machine, and costs."""
    with contextlib.suppress(OSError):  # a kernel without it
        listener.sockets[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")


def _unix_socket(path: str) -> socket.socket:
    """Bound with its mode from the beginning; a dead socket of an earlier run is replaced, a live one is not."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(f"{path} is there and is not a socket")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
            else:
                raise OSError(f"{path}: another server listens there")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o777 & ~_SOCKET_MODE)
    try:
        sock.bind(path)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(mask)
    return sock
