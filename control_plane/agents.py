"""`services.ports.Agents` over the gateway's streams and calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from agent_gateway.streams import GatewayUnreachable, Relay, RemoteRelay, StreamError
from agent_gateway.streams import Stream as GatewayStream
from agent_gateway.tickets import TicketRefused, verify_ticket
from control_plane.errors import (
    Conflict,
    DockerError,
    Forbidden,
    GatewayTimeout,
    InvalidParameter,
    NotFound,
    NotServed,
    ServerError,
    Unauthorized,
    Unavailable,
)
from control_plane.model import Container
from control_plane.services.moves import place
from control_plane.services.ports import AgentUnreachable, Stream

Present = Callable[[str, str], Awaitable[Container | None]]
"""From tenant and id to the container as it is now."""

_ERRORS: dict[int, type[DockerError]] = {
    error.status: error
    for error in (
        InvalidParameter,
        Unauthorized,
        Forbidden,
        NotFound,
        Conflict,
        ServerError,
        NotServed,
        Unavailable,
        GatewayTimeout,
    )
}
_BROKEN = 503
"""The link broke during the call, or the gateway cannot be reached: whether the agent has heard is not known."""
_PATIENCE = 3.0
"""Seconds for an agent to dial another gateway when its own can't be reached."""
_LOOK_SECONDS = 0.1
_END_SECONDS = 5.0
_UNREACHABLE = "is not connected"
"""How the relay says that there is no link (docs/wire-protocol.md, section 5)."""


def docker_error(error: StreamError) -> DockerError:
    """The agent's or relay's error as ours."""
    if error.status == 409 and _UNREACHABLE in error.message:
        return AgentUnreachable(error.message)
    known = _ERRORS.get(error.status)
    if known is not None:
        return known(error.message)
    return ServerError(error.message)


def _check_agent(container: Container) -> None:
    """Nobody will dial: the wait for a redial is spared. Raises AgentUnreachable."""
    if container.execution is not None and container.execution.agentless:
        raise AgentUnreachable(f"container {container.id} runs without an agent: none connected when it was started")


class RelayedStream:
    """A stream whose errors are DockerErrors."""

    def __init__(self, stream: GatewayStream) -> None:
        self._stream = stream

    async def result(self) -> dict[str, Any]:
        """See `services.ports.Stream`."""
        try:
            return await self._stream.result()
        except StreamError as error:
            raise docker_error(error) from None

    async def chunks(self) -> AsyncIterator[bytes]:
        """See `services.ports.Stream`."""
        try:
            async for chunk in self._stream.chunks():
                yield chunk
        except StreamError as error:
            raise docker_error(error) from None

    async def send(self, data: bytes) -> None:
        """See `services.ports.Stream`."""
        try:
            await self._stream.send(data)
        except StreamError as error:
            raise docker_error(error) from None

    async def send_eof(self) -> None:
        """See `services.ports.Stream`."""
        await self._stream.send_eof()

    async def close(self) -> None:
        """See `services.ports.Stream`."""
        await self._stream.close()


class RelayedAgents:
    """Reaches each container's agent through the relay of its gateway: the one in this process, or one dialled."""

    def __init__(self, key: bytes, local: Mapping[str, Relay] | None = None) -> None:
        self._key = key
        self._local = dict(local or {})
        self._remote: dict[str, RemoteRelay] = {}
        self._present: Present | None = None

    def follow(self, present: Present) -> None:
        """Who knows where agents are now: asked when one is not where it was."""
        self._present = present

    def _relay(self, url: str) -> Relay:
        local = self._local.get(url)
        if local is not None:
            return local
        remote = self._remote.get(url)
        if remote is None:
            where = None if self._present is None else self._where
            remote = self._remote[url] = RemoteRelay(url, self._key, where)
        return remote

    async def open(self, container: Container, kind: str, params: Mapping[str, Any]) -> Stream:
        """See `services.ports.Agents`."""
        _check_agent(container)
        url = place(container)
        try:
            return RelayedStream(await self._relay(url).open(container.tenant, container.id, kind, params))
        except StreamError as error:
            if error.status != _BROKEN:
                raise docker_error(error) from None
            url = await self._moved(container, url, _PATIENCE)
        try:
            return RelayedStream(await self._relay(url).open(container.tenant, container.id, kind, params))
        except StreamError as error:
            raise docker_error(error) from None

    async def call(self, container: Container, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """See `services.ports.Agents`. A call that a broken link cut off is repeated once, unless it is an exec's."""
        if method == "end":
            return await self._end(container, params)
        _check_agent(container)
        url = place(container)
        try:
            return await self._relay(url).call(container.tenant, container.id, method, params)
        except StreamError as error:
            moved = await self._second_try(container, url, method, error)
            if moved is None:
                raise docker_error(error) from None
        try:
            return await self._relay(moved).call(container.tenant, container.id, method, params)
        except StreamError as error:
            # Of a start it matters whether the agent may have heard.
            if isinstance(error, GatewayUnreachable) or (error.status == _BROKEN and method != "start"):
                raise AgentUnreachable(error.message) from None
            raise docker_error(error) from None

    async def call_at(
        self, url: str, container: Container, method: str, params: Mapping[str, Any], timeout: float
    ) -> dict[str, Any]:
        """See `services.ports.Agents`."""
        try:
            return await self._relay(url).call(container.tenant, container.id, method, params, timeout)
        except StreamError as error:
            raise docker_error(error) from None

    async def _end(self, container: Container, params: Mapping[str, Any]) -> dict[str, Any]:
        """To the gateway that the agent was at, and to the one where client halves wait when there is none."""
        urls = {container.gateway, place(container)}
        if container.agent is not None and container.agent.gateway:
            urls.add(container.agent.gateway)
        failed: DockerError | None = None
        for url in sorted(urls):
            try:
                await self.call_at(url, container, "end", params, _END_SECONDS)
            except DockerError as error:
                failed = error
        if failed is not None and len(urls) == 1:
            raise failed
        return {}

    async def _second_try(self, container: Container, url: str, method: str, error: StreamError) -> str | None:
        """Where the call may be made once more; None: it may not, or there is no better place."""
        if isinstance(error, GatewayUnreachable):
            return await self._moved(container, url, _PATIENCE)
        if error.status == 409 and _UNREACHABLE in error.message:
            moved = await self._moved(container, url, 0.0)
            return moved if moved != url else None
        if error.status != _BROKEN or method == "exec":
            return None
        return await self._moved(container, url, 0.0)

    async def _moved(self, container: Container, url: str, patience: float) -> str:
        """Where the agent is now; the same URL when it has not turned up elsewhere within `patience` seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while self._present is not None:
            current = await self._present(container.tenant, container.id)
            if current is None:
                break
            if place(current) != url:
                return place(current)
            if loop.time() >= until:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        return url

    async def _where(self, stream_id: str, ticket: str) -> str:
        """For our own streams when they redial. Raises StreamError."""
        try:
            checked = verify_ticket(self._key, ticket, stream=stream_id, allow_expired=True)
        except TicketRefused as refused:
            raise StreamError(401, str(refused)) from None
        assert self._present is not None
        current = await self._present(checked.tenant, checked.container)
        if current is None:
            raise StreamError(404, f"No such container: {checked.container}")
        return place(current)

    async def close(self) -> None:
        """Closes the connections to remote relays."""
        await asyncio.gather(*(relay.aclose() for relay in self._remote.values()))
