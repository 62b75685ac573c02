"""What agents report over their links, event by event; accepted in any order and any number of times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from control_plane.backends.base import Backend
from control_plane.model import Container
from control_plane.services.background import Background
from control_plane.services.execs import Execs
from control_plane.services.moves import Beside, alone
from control_plane.services.outcomes import Outcomes, clock
from control_plane.services.records import Records
from control_plane.services.reports import Exited, Failed, HealthReported, Report, Started
from control_plane.telemetry import hooks
from control_plane.timestamps import nanoseconds, now

_HEALTH = ("starting", "healthy", "unhealthy")
_OUTPUT_LIMIT = 4096
"""moby keeps so much of a probe's output."""
_MESSAGE_LIMIT = 8192
"""Of the text of a failed start, which names the command."""


class AgentEvents:
    """One compare-and-set per event. What an agent says counts for its own container only."""

    def __init__(
        self,
        outcomes: Outcomes,
        execs: Execs,
        backends: Mapping[str, Backend],
        background: Background,
        beside: Beside = alone,
    ) -> None:
        self._outcomes = outcomes
        self._backends = backends
        self._background = background
        self._beside = beside
        self._containers: Records[Container] = outcomes.containers
        self._execs = execs

    async def report(self, tenant: str, container_id: str, event: Mapping[str, Any]) -> None:
        """One event (docs/wire-protocol.md, section 2). Unknown types, runs and boots change nothing."""
        kind = event.get("type")
        if kind in {"exec_started", "exec_exited"}:
            await self._exec(tenant, container_id, kind, event)
            return
        if kind == "released":
            await self._released(tenant, container_id, event)
            return
        report = _parse(event)
        if report is None or not await self._from_present_agent(tenant, container_id, event):
            return
        with hooks.in_trace(await self._trace(tenant, container_id), f"agent: {kind}"):
            after = await self._outcomes.apply(tenant, container_id, report)
        if isinstance(report, Exited) and after is not None:
            await self._execs.end_all(after)

    async def _trace(self, tenant: str, container_id: str) -> str:
        """Of the request whose start this is the answer to; the store is not asked where traces are off."""
        if hooks.continued is None:
            return ""
        container = await self._containers.get(tenant, container_id)
        return container.lease.trace if container is not None and container.lease is not None else ""

    async def _released(self, tenant: str, container_id: str, event: Mapping[str, Any]) -> None:
        if await self._from_present_agent(tenant, container_id, event):
            container = await self._containers.get(tenant, container_id)
            if container is not None:
                self.hold(container)

    def hold(self, container: Container) -> None:
        """Nothing holds the platform's instance that the agent is in: it is asked for again, in the background."""
        if container.state.status not in {"removing", "dead"}:
            self._background.spawn(self._hold(container), f"hold the instance of {container.id[:12]}")

    async def _hold(self, container: Container) -> None:
        await self._backends[container.backend].hold(container, gateways=await self._beside(container))

    async def _from_present_agent(self, tenant: str, container_id: str, event: Mapping[str, Any]) -> bool:
        boot = event.get("boot")
        container = await self._containers.get(tenant, container_id)
        if container is None:
            return False
        return not boot or container.agent is None or container.agent.boot == boot

    async def _exec(self, tenant: str, container_id: str, kind: str, event: Mapping[str, Any]) -> None:
        exec_id = str(event.get("exec"))
        if kind == "exec_started":
            await self._execs.started(tenant, container_id, exec_id, int(event.get("pid") or 0))
        else:
            await self._execs.exited(tenant, container_id, exec_id, int(event.get("code") or 0))


def _parse(event: Mapping[str, Any]) -> Report | None:
    run, at = int(event.get("run") or 0), _time(event.get("at"))
    match event.get("type"):
        case "started":
            return Started(run, int(event.get("pid") or 0), at)
        case "failed":
            return Failed(run, int(event.get("code") or 0), str(event.get("message") or "")[:_MESSAGE_LIMIT], clock())
        case "exited":
            error = str(event.get("error") or "")[:_MESSAGE_LIMIT]
            return Exited(run, int(event.get("code") or 0), at, clock(), oom=bool(event.get("oom")), error=error)
        case "health":
            return _health(run, event)
    return None


def _health(run: int, event: Mapping[str, Any]) -> HealthReported | None:
    status, log = event.get("status"), event.get("log") or {}
    if status not in _HEALTH or not isinstance(log, dict):
        return None
    probe = {
        "Start": _time(log.get("start")),
        "End": _time(log.get("end")),
        "ExitCode": code if isinstance(code := log.get("exit_code"), int) else 0,
        "Output": str(log.get("output") or "")[:_OUTPUT_LIMIT],
    }
    return HealthReported(run, status, int(event.get("failing_streak") or 0), probe if log else {})


def _time(text: Any) -> str:
    """The agent's time, ours when it is none."""
    try:
        return text if isinstance(text, str) and nanoseconds(text) else now()
    except ValueError:
        return now()
