"""What moves a container's process: start, stop, kill, restart, pause, unpause, resize, top."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Protocol

from control_plane.errors import DockerError, InvalidParameter, NotModified, ServerError
from control_plane.model import Container, Published
from control_plane.services import signals
from control_plane.services.lifecycle import (
    PauseRequested,
    RestartRequested,
    UnpauseRequested,
    is_restarting,
    not_running,
)
from control_plane.services.outcomes import Outcomes
from control_plane.services.ports import Agents
from control_plane.services.published_ports import Offer, not_bound, settle
from control_plane.services.starts import Starts
from control_plane.services.stops import Stops

_PS_COLUMN = re.compile(r"\s+([^\s]*)=\s*(PID[^\s]*)")


class Resolver(Protocol):
    """`services.containers.Containers`, as far as it is needed here."""

    async def resolve(self, tenant: str, reference: str) -> Container:
        """Raises NotFound with moby's text."""
        ...


class Runs:
    """Docker's verbs, by the user's word for the container (id, prefix or name)."""

    def __init__(self, containers: Resolver, starts: Starts, stops: Stops, outcomes: Outcomes, agents: Agents) -> None:
        self._resolve = containers.resolve
        self._starts = starts
        self._stops = stops
        self._outcomes = outcomes
        self._events = outcomes.events
        self._agents = agents

    async def start(self, tenant: str, reference: str, offer: Offer | None = None) -> None:
        """`docker start`; see `Starts.start` and `published_ports.settle` for what it raises."""
        container = await self._resolve(tenant, reference)
        await self._start(container, offer, settle(container, offer))

    async def _start(self, container: Container, offer: Offer | None, published: Published | None) -> Container:
        taken = None if offer is None else offer.taken
        refused = None if taken is None else not_bound(container, taken)
        return await self._starts.start(container, published=published, refused=refused)

    async def stop(self, tenant: str, reference: str, signal: str = "", grace: int | None = None) -> None:
        """`docker stop`. Raises NotModified, or InvalidParameter for an unknown signal."""
        container = await self._resolve(tenant, reference)
        try:
            number = signals.parse_signal(signal) if signal else None
            await self._stops.stop(container, number, grace)
        except NotModified:
            raise
        except InvalidParameter as error:
            raise InvalidParameter(f"cannot stop container: {reference}: {error.message}") from None

    async def kill(self, tenant: str, reference: str, signal: str = "") -> None:
        """`docker kill`. Raises Conflict when it does not run, InvalidParameter for an unknown signal."""
        try:
            number = signals.parse_signal(signal) if signal else signals.KILL
            await self._stops.kill(await self._resolve(tenant, reference), number)
        except DockerError as error:
            raise type(error)(f"cannot kill container: {reference}: {error.message}", internal=error.internal) from None

    async def restart(
        self,
        tenant: str,
        reference: str,
        signal: str = "",
        grace: int | None = None,
        offer: Offer | None = None,
    ) -> None:
        """`docker restart`: stop when it runs, then start. Failures are 500, as moby's."""
        container = await self._resolve(tenant, reference)
        published = settle(container, offer, restarts=True)
        try:
            number = signals.parse_signal(signal) if signal else None
            event = RestartRequested(self._starts.lease())
            container = await self._outcomes.apply(tenant, container.id, event) or container
            with suppress(NotModified):  # it was not running
                await self._stops.stop(container, number, grace)
            with suppress(NotModified):  # somebody else has started it again
                container = await self._start(container, offer, published)
            await self._events.publish(container, "restart")
        except DockerError as error:
            message = f"Cannot restart container {reference}: {error.message}"
            raise ServerError(message, internal=error.internal) from error

    async def pause(self, tenant: str, reference: str) -> None:
        """`docker pause`. Raises Conflict."""
        container = await self._resolve(tenant, reference)
        await self._outcomes.apply(tenant, container.id, PauseRequested())
        await self._ask(container, "pause", f"cannot pause container {container.id}")
        paused = await self._outcomes.apply(tenant, container.id, PauseRequested(done=True))
        if paused is not None and paused.state.status == "paused":
            await self._events.publish(paused, "pause")

    async def unpause(self, tenant: str, reference: str) -> None:
        """`docker unpause`. Raises ServerError when it is not paused, as moby."""
        container = await self._resolve(tenant, reference)
        await self._outcomes.apply(tenant, container.id, UnpauseRequested())
        await self._ask(container, "unpause", f"Cannot unpause container {container.id}")
        running = await self._outcomes.apply(tenant, container.id, UnpauseRequested(done=True))
        if running is not None and running.state.status == "running":
            await self._events.publish(running, "unpause")

    async def _ask(self, container: Container, method: str, refusal: str) -> None:
        try:
            await self._agents.call(container, method, {})
        except DockerError as error:
            raise type(error)(f"{refusal}: {error.message}", internal=error.internal) from None

    async def resize(self, tenant: str, reference: str, rows: int, columns: int) -> None:
        """`POST /containers/{name}/resize`. Raises Conflict when it does not run."""
        container = await self._resolve(tenant, reference)
        if container.state.status not in {"running", "paused"}:
            raise not_running(container)
        await self._agents.call(container, "resize", {"rows": rows, "cols": columns})
        await self._events.publish(container, "resize", height=str(rows), width=str(columns))

    async def top(self, tenant: str, reference: str, ps_args: str = "") -> dict[str, Any]:
        """`docker top`: `{"Titles": […], "Processes": [[…]]}`. Raises Conflict when it does not run."""
        arguments = ps_args or "-ef"
        for name, value in _PS_COLUMN.findall(arguments):
            if name != "pid":
                raise ServerError(f'specifying "{name}={value}" is not allowed')
        container = await self._resolve(tenant, reference)
        if container.state.status == "restarting":
            raise is_restarting(container)
        if container.state.status not in {"running", "paused"}:
            raise not_running(container)
        processes = await self._agents.call(container, "top", {"ps_args": arguments})
        await self._events.publish(container, "top")
        return processes
