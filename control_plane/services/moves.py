"""Where a container's agent and streams meet, and what happens when that changes (docs/wire-protocol.md, section 9).

`Container.gateway` is where client halves wait while no agent is linked, `AgentLink.gateway` where the agent is. When
an agent says hello elsewhere, the halves that wait are sent after it before it is welcome; only then the container's
own record changes, so that a control plane that dies in between leaves the work to the next one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from control_plane.errors import DockerError, NotFound
from control_plane.model import Container, ExpectedStream
from control_plane.services.gateways import Gateways
from control_plane.services.records import Records

StreamCheck = Callable[[str | None, str], tuple[str, str]]
"""From an `Authorization` header with a stream's ticket, and the stream's id, to tenant and container. A ticket that
has expired is good enough. Raises Unauthorized."""

_MOVE_SECONDS = 3.0
"""A gateway that does not answer by then is dead: what waited there redials by itself."""
_RESTING = frozenset({"created", "exited"})
_EXPECTED_SECONDS = 600.0
"""As long as a platform may take to bring an agent up. An attachment that came to nothing delays no later start."""
_EXPECTED_MOST = 16
_BESIDE_MOST = 4

Beside = Callable[[Container], Awaitable[Sequence[str]]]
"""`Moves.beside`."""


class GatewayCalls(Protocol):
    """`Agents`, as far as it is needed here."""

    async def call_at(
        self, url: str, container: Container, method: str, params: Mapping[str, Any], timeout: float
    ) -> dict[str, Any]:
        """One call to a gateway that may not have the container's agent. Raises DockerError."""
        ...


def place(container: Container) -> str:
    """The relay at which the container's agent is, or is awaited."""
    agent = container.agent
    return agent.gateway if agent is not None and agent.connected and agent.gateway else container.gateway


def expected(container: Container, present: float) -> list[str]:
    """The attachments that were announced for the container's next start, by their streams' ids. Pure."""
    return [one.stream for one in container.expected if one.at > present - _EXPECTED_SECONDS]


async def alone(_: Container) -> Sequence[str]:
    """`Moves.beside` where gateways do not register."""
    return ()


class Moves:
    """Without `gateways` there is one gateway and nothing moves."""

    def __init__(
        self, containers: Records[Container], calls: GatewayCalls, gateways: Gateways | None, check_stream: StreamCheck
    ) -> None:
        self._containers = containers
        self._calls = calls
        self._gateways = None if gateways is None or gateways.only else gateways
        self._check_stream = check_stream

    async def where(self, authorization: str | None, stream_id: str) -> str:
        """For a client half that redials: the relay's URL. Raises Unauthorized and NotFound."""
        tenant, container_id = self._check_stream(authorization, stream_id)
        container = await self._containers.get(tenant, container_id)
        if container is None or container.state.status in {"removing", "dead"}:
            raise NotFound(f"No such container: {container_id}")
        return place(await self.home(container))

    async def others(self, url: str) -> list[str]:
        """Where an agent may dial when the gateway at `url` is gone."""
        return [] if self._gateways is None else await self._gateways.others(url)

    async def beside(self, container: Container) -> list[str]:
        """Where the container's agent may dial when its own gateway is gone before it was ever welcome."""
        others = await self.others(container.gateway)
        return random.sample(others, min(len(others), _BESIDE_MOST))

    async def home(self, container: Container) -> Container:
        """The container, with another gateway when its own has died and nothing of it is there.

        Also while its agent is on its way: wherever that says hello, what waits at the new gateway follows it.
        """
        gateways = self._gateways
        if gateways is None or container.state.status not in {*_RESTING, "starting"}:
            return container
        if container.agent is not None and container.agent.connected:
            return container
        if await gateways.serves(container.gateway):
            return container
        try:
            chosen = await gateways.pick()
        except DockerError:
            return container  # none lives: its own may be the first that does

        def change(current: Container) -> Container | None:
            if current.gateway != container.gateway or current.agent != container.agent:
                return None
            return current.model_copy(update={"gateway": chosen})

        return await self._containers.update(container.tenant, container.id, change) or container

    async def expect(self, container: Container, stream: str) -> None:
        """Remembers an attachment that has come before its container's start.

        The relay it goes to knows of it; one that takes that relay's place does not, and the agent may be there before
        the client half has dialled again: one gateway that is replaced is enough. Nothing is written where gateways do
        not register.
        """
        if self._gateways is None:
            return
        present = time.time()
        new = ExpectedStream(stream=stream, at=present)

        def change(current: Container) -> Container | None:
            if current.state.status not in {*_RESTING, "starting"}:
                return None
            kept = [one for one in current.expected if one.at > present - _EXPECTED_SECONDS and one.stream != stream]
            return current.model_copy(update={"expected": [*kept, new][-_EXPECTED_MOST:]})

        if container.state.status in {*_RESTING, "starting"}:
            await self._containers.update(container.tenant, container.id, change)

    async def settle(self, before: Container, container: Container) -> list[str]:
        """The agent has said hello at another gateway than client halves wait at: they follow it.

        The result: ids of attachments that are on their way.
        """
        agent = container.agent
        if self._gateways is None or agent is None or not agent.gateway:
            return []
        places = {container.gateway}
        if before.agent is not None:
            places.add(before.agent.gateway)
        places -= {agent.gateway, ""}
        if not places:
            return []
        told = {"boot": agent.boot, "link": agent.link, "gateway": agent.gateway}
        answers = await asyncio.gather(*(self._tell(url, container, told) for url in sorted(places)))

        def change(current: Container) -> Container | None:
            present = current.agent
            if present is None or present.gateway != agent.gateway or not present.connected:
                return None
            return current.model_copy(update={"gateway": agent.gateway})

        await self._containers.update(container.tenant, container.id, change)
        return [stream for answer in answers for stream in answer]

    async def _tell(self, url: str, container: Container, told: Mapping[str, Any]) -> list[str]:
        try:
            answer = await self._calls.call_at(url, container, "move", told, _MOVE_SECONDS)
        except DockerError:
            return []
        streams = answer.get("streams")
        return [str(stream) for stream in streams] if isinstance(streams, list) else []
