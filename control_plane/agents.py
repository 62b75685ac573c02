"""`services.ports.Agents` over the gateway's streams and calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from agent_gateway.streams import Relay, RemoteRelay, StreamError
from agent_gateway.streams import Stream as GatewayStream
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
from control_plane.services.ports import AgentUnreachable, Stream

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

    def _relay(self, container: Container) -> Relay:
        url = container.agent.gateway if container.agent is not None and container.agent.gateway else container.gateway
        local = self._local.get(url)
        if local is not None:
            return local
        remote = self._remote.get(url)
        if remote is None:
            remote = self._remote[url] = RemoteRelay(url, self._key)
        return remote

    async def open(self, container: Container, kind: str, params: Mapping[str, Any]) -> Stream:
        """See `services.ports.Agents`."""
        _check_agent(container)
        try:
            stream = await self._relay(container).open(container.tenant, container.id, kind, params)
        except StreamError as error:
            raise docker_error(error) from None
        return RelayedStream(stream)

    async def call(self, container: Container, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """See `services.ports.Agents`. A call that a broken link cut off is repeated once, unless it is an exec's."""
        relay = self._relay(container)
        if method != "end":
            _check_agent(container)
        try:
            return await relay.call(container.tenant, container.id, method, params)
        except StreamError as error:
            if error.status != _BROKEN or method == "exec":
                raise docker_error(error) from None
        try:
            return await relay.call(container.tenant, container.id, method, params)
        except StreamError as error:
            if error.status == _BROKEN and method != "start":
                raise AgentUnreachable(error.message) from None
            raise docker_error(error) from None

    async def close(self) -> None:
        """Closes the connections to remote relays."""
        await asyncio.gather(*(relay.aclose() for relay in self._remote.values()))
