"""What gateways report of agents' links: hello and gone; events are handed on to `services/agent_events.py`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from control_plane.backends.base import Backend
from control_plane.errors import DockerError, NotFound, Unavailable
from control_plane.model import Container
from control_plane.services.agent_events import AgentEvents
from control_plane.services.background import Background
from control_plane.services.greeting import Action, Hello, greet
from control_plane.services.launch_spec import launch_spec
from control_plane.services.moves import Moves, expected
from control_plane.services.outcomes import Outcomes, clock
from control_plane.services.reports import Failed, LinkGone
from control_plane.services.run_settings import RunSettings
from control_plane.telemetry import hooks
from control_plane.timestamps import now

_log = logging.getLogger(__name__)

GatewayCheck = Callable[[str | None], str]
"""From an `Authorization` header to the gateway's URL. Raises Unauthorized."""

_CANNOT_START = 128


class StagedFiles(Protocol):
    """`services.staging.Staging`, as far as it is needed here."""

    async def deliver(self, container: Container, spec: Mapping[str, Any]) -> None:
        """Pushes the files put in before the start. Raises DockerError."""
        ...


class Suspicion(Protocol):
    """`services.reconcile.Reconciler`, as far as it is needed here."""

    async def look_after(self, container: Container) -> None:
        """Asks the cloud how a run stands whose agent is silent, again for a while."""
        ...


class Links:
    """One compare-and-set per message, and no cloud call while the agent waits for its answer."""

    def __init__(
        self,
        outcomes: Outcomes,
        backends: Mapping[str, Backend],
        staged: StagedFiles,
        agent_events: AgentEvents,
        check_gateway: GatewayCheck,
        background: Background,
        settings: RunSettings,
        renewed_token: Callable[[Container], str] = lambda _: "",
    ) -> None:
        self._renewed_token = renewed_token
        self._outcomes = outcomes
        self._containers = outcomes.containers
        self._backends = backends
        self._staged = staged
        self.report = agent_events.report
        self._hold = agent_events.hold
        self.check_gateway = check_gateway
        self._background = background
        self._settings = settings
        self._suspicion: Suspicion | None = None
        self.moves: Moves | None = None
        """Where agents and streams meet when there are several gateways."""
        self.greeted: set[str] = set()
        """Containers whose agents have said hello to this process; a hint for the reconciler after its start."""

    def suspect_with(self, suspicion: Suspicion) -> None:
        """Who looks after containers whose agents have gone."""
        self._suspicion = suspicion

    async def hello(self, tenant: str, container_id: str, message: Mapping[str, Any]) -> dict[str, Any]:
        """An agent's link is up: `{"action", "spec", "token"}` (docs/wire-protocol.md, section 7)."""
        hello = Hello(
            boot=str(message["boot"]),
            run=int(message.get("run") or 0),
            running=bool(message.get("running")),
            gateway=str(message.get("gateway") or ""),
            at=now(),
            now=clock(),
            token_run=int(message.get("token_run") or 0),
            instance=str(message.get("instance") or ""),
            link=int(message.get("link") or 0),
        )
        action: Action = "shutdown"
        before: Container | None = None

        def change(current: Container) -> Container:
            nonlocal action, before
            before = current
            in_place = self._backends[current.backend].capabilities.restarts_in_place
            after, action = greet(current, hello, in_place=in_place)
            return after

        container = await self._containers.update(tenant, container_id, change)
        if container is None or before is None:
            return {"action": "shutdown"}
        if container.state.finished_at != before.state.finished_at:
            await self._outcomes.follow_up(before, container)
        if action == "shutdown":
            _log.info("container %s (%s): an agent is told to shut down", container_id[:12], container.state.status)
            self._rest(container)
            return {"action": action}
        self.greeted.add(container_id)
        if message.get("held") is False:
            self._hold(container)
        # Before the spec: a start counts the attachments that wait, and they may wait at another gateway.
        streams = await self.moves.settle(before, container) if self.moves is not None and hello.gateway else []
        answer: dict[str, Any] = {"action": action}
        if action == "start":
            trace = before.lease.trace if before.lease is not None else ""
            with hooks.in_trace(trace, "agent: hello"):
                answer = await self._start(container)
            if trace:
                answer["trace"] = trace
            streams += [stream for stream in expected(container, hello.now) if stream not in streams]
        if streams:
            answer["streams"] = streams
        if self.moves is not None:
            answer["gateways"] = await self.moves.others(hello.gateway)
        if answer["action"] != "shutdown" and (renewed := self._renewed_token(container)):
            answer["token"] = renewed
        return answer

    async def token(self, tenant: str, container_id: str, boot: str) -> str:
        """A fresh token for the agent that holds the container's link. Raises NotFound for any other."""
        container = await self._containers.get(tenant, container_id)
        renewed = "" if container is None else self._renewed_token(container)
        if container is None or container.agent is None or container.agent.boot != boot or not renewed:
            raise NotFound(f"No such container: {container_id}")
        return renewed

    async def _start(self, container: Container) -> dict[str, Any]:
        try:
            mounts = self._backends[container.backend].platform_mounts(container)
            spec = launch_spec(container, mounts, self._settings)
            if container.staged:
                await self._staged.deliver(container, spec)
        except Unavailable:
            raise  # the gateway or the storage is going away: the agent says hello again
        except DockerError as error:
            failed = Failed(container.state.run, _CANNOT_START, error.message, clock())
            await self._outcomes.apply(container.tenant, container.id, failed)
            return {"action": "shutdown"}
        return {"action": "start", "spec": spec}

    async def gone(self, tenant: str, container_id: str, boot: str, instance: str = "") -> None:
        """No link for a while, or the agent said farewell. What it ran is looked up in the cloud, in the background."""
        after = await self._outcomes.apply(tenant, container_id, LinkGone(boot, instance))
        silent = (
            after is not None and after.agent is not None and after.agent.boot == boot and not after.agent.connected
        )
        if silent or after is None:
            self.greeted.discard(container_id)
        if not silent or after is None:
            return
        if after.state.status in {"running", "paused", "starting"}:
            if self._suspicion is not None:
                self._background.spawn(self._suspicion.look_after(after), f"look after {container_id[:12]}")
        else:
            self._rest(after)

    def _rest(self, container: Container) -> None:
        """The platform need not keep what a container ran in that has ended, and whose agent ends too."""
        if container.state.status in {"created", "exited"} and (
            container.agent is None or not container.agent.connected
        ):
            resting = self._backends[container.backend].rest(container)
            self._background.spawn(resting, f"rest what {container.id[:12]} ran in")
