"""`sockerless connect URL`: the front door beside the user."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson

from agent_gateway.connector.listener import Listener, default_address, listen
from agent_gateway.connector.tickets import Relays, UserTickets
from agent_gateway.connector.tokens import TokenOptions, Tokens, UserCredentials, tokens
from agent_gateway.control_plane_client import Refused
from agent_gateway.faults import CannotConnect, Lost
from agent_gateway.forwarding.address import Address
from agent_gateway.forwarding.connections import Connections
from agent_gateway.forwarding.requests import Requests
from agent_gateway.forwarding.upstream import Upstream
from agent_gateway.front_door.app import FrontDoor
from agent_gateway.front_door.http import HttpServer
from agent_gateway.front_end import from_front_end, front_end_refusal
from agent_gateway.publisher.memory import Memory
from agent_gateway.publisher.publisher import Publisher

_CHECK_SECONDS = 30.0
_MOST_FILES = 8192


def connect(
    url: str,
    listen: Sequence[str] = (),
    *,
    token: str = "",
    token_file: str = "",
    token_command: str = "",
    audience: str = "",
    ca: str = "",
    allow_http: bool = False,
    beyond_loopback: bool = False,
) -> int:
    """Serves Docker clients until SIGINT or SIGTERM; the exit code.

    `listen`: `unix:///path` and `tcp://127.0.0.1:port`; by default a socket in the user's runtime directory. `audience`
    is that of the identity token GitHub Actions is asked for. `allow_http` and `beyond_loopback` lift two refusals that
    protect the token: for closed networks only.
    """
    try:
        address = Address.parse(url, ca, allow_http=allow_http)
        source = tokens(TokenOptions(token, token_file, token_command, audience), address.url)
        listen = listen or [default_address()]
        connector = Connector(
            address, source, allow_http=allow_http, publications=publications_file(address.url, listen)
        )
        _allow_many_files()
        asyncio.run(_serve(connector, listen, beyond_loopback))
    except CannotConnect as error:
        print(f"sockerless: {error}", file=sys.stderr)
        return 1
    return 0


def publications_file(url: str, listen: Sequence[str]) -> Path | None:
    """Where a connector at these addresses finds what the one before it listened for; None: nobody could come after."""
    if any(address.startswith("tcp:") and address.endswith(":0") for address in listen):
        return None
    # A home directory may be shared among machines.
    name = hashlib.sha256("\n".join((socket.gethostname(), url, *sorted(listen))).encode()).hexdigest()[:16]
    try:
        return Path.home() / ".sockerless" / "published" / f"{name}.json"
    except RuntimeError:
        return None


def _allow_many_files() -> None:
    """Every stream is a socket, one of a published port's connections two; the usual soft limit is soon reached."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


async def _serve(connector: Connector, addresses: Sequence[str], beyond_loopback: bool) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    try:
        await connector.check()
        for address in addresses:
            await connector.listen(address, beyond_loopback=beyond_loopback)
        await connector.remember()
        print(f"export DOCKER_HOST={connector.addresses[0]}", flush=True)
        await ended.wait()
    finally:
        await connector.stop()


class Connector:
    """A front door whose control plane and relays are elsewhere."""

    def __init__(
        self, address: Address, source: Tokens, *, allow_http: bool = False, publications: Path | None = None
    ) -> None:
        """`publications`: where it is kept what published ports are listened for."""
        user, connections = UserCredentials(source), Connections(address)
        self._upstream = Upstream(connections, user)
        self._requests = Requests(connections, lambda _: user)
        relays = Relays(connections, allow_http=allow_http)
        tickets = UserTickets(self._upstream)
        self._publisher = Publisher(self._requests, tickets, relays.of, Memory(publications))
        front_door = FrontDoor(tickets, self._publisher, relays.of, local_only=True)
        self._server = HttpServer(front_door, None)
        self._listeners: list[Listener] = []

    @property
    def addresses(self) -> list[str]:
        """Where it listens."""
        return [listener.address for listener in self._listeners]

    async def check(self) -> None:
        """That the endpoint is there and takes the token. Raises CannotConnect."""
        url = self._upstream.url
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                answer = await self._upstream.ask("GET", "/version", again=True)
                body = await answer.aread()
                await answer.aclose()
        except TimeoutError:
            raise CannotConnect(f"{url} does not answer") from None
        except Lost as lost:
            raise CannotConnect(f"{url}: the connection was lost: {lost}") from None
        except Refused as refused:
            raise CannotConnect(refused.message) from None
        if answer.status_code == 200 and not from_front_end(answer):
            return
        if from_front_end(answer):
            if answer.status_code == 200:
                raise CannotConnect(f"{url} is not a Sockerless endpoint")
            raise CannotConnect(front_end_refusal(url, answer.status_code).message)
        raise CannotConnect(f"{url}: {_message(body) or answer.status_code}")

    async def listen(self, address: str, *, beyond_loopback: bool = False) -> None:
        """Serves Docker clients at an address. Raises CannotConnect."""
        self._listeners.append(await listen(address, self._server, beyond_loopback=beyond_loopback))

    async def remember(self) -> None:
        """Listens for the published ports that an earlier connector has left. Nobody else has its addresses now."""
        await self._publisher.remember()

    async def stop(self) -> None:
        """Cuts everything; containers go on."""
        for listener in self._listeners:
            listener.close()
        self._publisher.close()
        self._server.shutdown()
        self._server.abort()
        # Aborted transports tell their streams, which say goodbye to the relay.
        await asyncio.sleep(0.05)
        await self._requests.aclose()


def _message(body: bytes) -> str:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    return str(found.get("message", "")) if isinstance(found, dict) else ""
