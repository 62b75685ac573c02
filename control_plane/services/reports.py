"""What agents and clouds report about a run, and what it makes of the container. Pure; part of `lifecycle.advance`.

Every report names its run (or boot); one that does not fit the present one, or was applied before, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from control_plane.model import ZERO_TIME, Container, Execution, Health, Lease
from control_plane.services.restart_policy import next_delay, ran_for, should_restart
from control_plane.timestamps import nanoseconds

POLICY = "restart-policy"
"""Owner of the lease that says when a policy's restart is due."""
_HEALTH_LOG = 5


@dataclass(frozen=True, slots=True)
class Accepted:
    """The cloud accepted the execution of a run."""

    run: int
    execution: Execution


@dataclass(frozen=True, slots=True)
class Started:
    """The process runs."""

    run: int
    pid: int
    at: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The process could not be started: Docker's code (125 to 128) and text."""

    run: int
    code: int
    message: str
    now: float


@dataclass(frozen=True, slots=True)
class Exited:
    """The process ended. `error` is the platform's text where the agent could not say."""

    run: int
    code: int
    at: str
    now: float
    oom: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class HealthReported:
    """A probe's result."""

    run: int
    status: Literal["starting", "healthy", "unhealthy"]
    failing_streak: int
    log: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LinkGone:
    """The relay lost the agent's link."""

    boot: str
    instance: str = ""
    """Of the gateway's process; another one may have the link by now. Empty: whoever had it."""


Report = Accepted | Started | Failed | Exited | HealthReported | LinkGone


def apply_report(container: Container, report: Report) -> Container:
    """The container after the report; the same object when nothing changes."""
    return _REPORTS[type(report)](container, report)


def restart_under_way(container: Container) -> bool:
    """Whether an API restart waits for this run's end (it holds a start lease while the process runs)."""
    return container.lease is not None and container.lease.operation == "start"


def exit_recorded(container: Container) -> bool:
    """Whether the end of the present run is known."""
    state = container.state
    if state.status in {"starting", "running", "paused"}:
        return False
    return nanoseconds(state.finished_at) >= nanoseconds(state.started_at) or state.started_at == ZERO_TIME


def _changed(container: Container, lease: Lease | None, **state: Any) -> Container:
    return container.model_copy(update={"lease": lease, "state": container.state.model_copy(update=state)})


def _accepted(container: Container, report: Accepted) -> Container:
    if container.state.run != report.run or container.execution == report.execution:
        return container
    return container.model_copy(update={"execution": report.execution})


def _started(container: Container, report: Started) -> Container:
    state = container.state
    if state.run != report.run:
        return container
    if state.status == "starting":
        return _changed(
            _begun(container),
            None,
            status="running",
            pid=report.pid,
            started_at=report.at,
            exit_code=0,
            error="",
            start_failed=False,
            oom_killed=False,
            health=Health() if _probed(container) else None,
        )
    late = state.status in {"exited", "removing", "restarting"} and state.started_at == state.finished_at
    if late and nanoseconds(report.at) < nanoseconds(state.finished_at):
        # The end overtook the beginning; until now it stood for both.
        return container.model_copy(update={"state": state.model_copy(update={"started_at": report.at})})
    return container


def _begun(container: Container) -> Container:
    """Nothing waits for attachments any more."""
    return container.model_copy(update={"expected": []}) if container.expected else container


def _probed(container: Container) -> bool:
    """Whether an agent runs the container's health check."""
    if container.execution is not None and container.execution.agentless:
        return False
    test = (container.config.get("Healthcheck") or {}).get("Test") or []
    return bool(test) and test[0] != "NONE"


def _failed(container: Container, report: Failed) -> Container:
    state = container.state
    if state.run != report.run or state.status != "starting":
        return container
    container = _begun(container)
    failure = {
        "exit_code": report.code or 128,
        "error": report.message,
        "start_failed": True,
        "pid": 0,
        "restart_delay": 0.0,
    }
    if container.host_config.get("AutoRemove"):
        return _changed(container, _removal_lease(report.now), status="removing", **failure)
    status = "created" if state.started_at == ZERO_TIME else "exited"
    return _changed(container, None, status=status, **failure)


def _removal_lease(now: float) -> Lease:
    return Lease(operation="remove", owner="auto-remove", expires_at=now + 15)


def _exited(container: Container, report: Exited) -> Container:
    state = container.state
    if state.run != report.run:
        return container
    at = report.at if nanoseconds(report.at) >= nanoseconds(state.started_at) else state.started_at
    ended: dict[str, Any] = {
        "exit_code": report.code,
        "oom_killed": report.oom,
        "finished_at": at,
        "pid": 0,
        "error": report.error,
        "start_failed": False,
    }
    if state.status == "removing":
        started = state.started_at != ZERO_TIME
        if started and not exit_recorded(container):
            return _changed(container, container.lease, **ended)
        return container
    if state.status not in {"starting", "running", "paused"}:
        return container
    container = _begun(container)
    if state.status == "starting":
        ended["started_at"] = ended["finished_at"] = report.at
    elif restart_under_way(container):
        return _changed(container, container.lease, status="exited", **ended)
    if should_restart(container, report.code):
        delay = next_delay(container, ran_for(container, report.at))
        due = Lease(operation="start", owner=POLICY, expires_at=report.now + delay)
        waiting = _changed(container, due, status="restarting", restart_delay=delay, **ended)
        return waiting.model_copy(update={"restart_count": container.restart_count + 1})
    if container.host_config.get("AutoRemove"):
        return _changed(container, _removal_lease(report.now), status="removing", **ended)
    return _changed(container, None, status="exited", **ended)


def _health(container: Container, report: HealthReported) -> Container:
    state = container.state
    if state.run != report.run or state.status not in {"running", "paused"}:
        return container
    known = state.health or Health()
    log = known.log
    if report.log and report.log not in log:
        log = [*log, dict(report.log)][-_HEALTH_LOG:]
    health = Health(status=report.status, failing_streak=report.failing_streak, log=log)
    return container if health == state.health else _changed(container, container.lease, health=health)


def _link_gone(container: Container, report: LinkGone) -> Container:
    agent = container.agent
    if agent is None or agent.boot != report.boot or not agent.connected:
        return container
    if report.instance and agent.instance not in ("", report.instance):
        return container
    return container.model_copy(update={"agent": agent.model_copy(update={"connected": False})})


_REPORTS: dict[type, Callable[[Container, Any], Container]] = {
    Accepted: _accepted,
    Started: _started,
    Failed: _failed,
    Exited: _exited,
    HealthReported: _health,
    LinkGone: _link_gone,
}
