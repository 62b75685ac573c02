"""The life of a container as a pure function: `advance(container, event)` gives the new document or refuses.

Requests come from the API and are refused with moby's texts (moby 28). Reports come from agents and clouds, are
accepted in any order and any number of times, and are bound to a run by its number: what does not fit the present run
changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from control_plane.errors import Conflict, NotModified, ServerError
from control_plane.model import ZERO_TIME, Container, Lease, Published
from control_plane.services.reports import Report, apply_report
from control_plane.services.signals import asks_to_end

ACTIVE = frozenset({"starting", "running", "paused", "restarting"})
"""What moby calls running; `starting` is on its way there."""


@dataclass(frozen=True, slots=True)
class StartRequested:
    """`docker start`, or a policy's restart (`manual` False)."""

    lease: Lease
    manual: bool = True
    published: Published | None = None
    """Where its ports appear from this start by hand on; a policy's restart has those of the start before it."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """`docker stop`, and the first half of `restart`."""

    at: str


@dataclass(frozen=True, slots=True)
class KillRequested:
    """`docker kill -s signal`."""

    signal: int
    at: str


@dataclass(frozen=True, slots=True)
class RestartRequested:
    """`docker restart` of a running container: its exit neither removes it nor counts for a policy."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """`docker pause`. `done` once the agent has stopped the processes."""

    done: bool = False


@dataclass(frozen=True, slots=True)
class UnpauseRequested:
    """`docker unpause`. `done` once the agent has continued the processes."""

    done: bool = False


@dataclass(frozen=True, slots=True)
class RemoveRequested:
    """`docker rm`. `reference` is the user's word for the container, for the refusals."""

    lease: Lease
    now: float
    reference: str
    force: bool = False


Request = (
    StartRequested
    | StopRequested
    | KillRequested
    | RestartRequested
    | PauseRequested
    | UnpauseRequested
    | RemoveRequested
)
LifecycleEvent = Request | Report


def advance(container: Container, event: LifecycleEvent) -> Container:
    """The container after `event`; the same object when nothing changes. Raises DockerError to refuse a request."""
    request = _REQUESTS.get(type(event))
    if request is not None:
        return request(container, event)
    return apply_report(container, event)  # type: ignore[arg-type]  # what is no request is a report


def changed(container: Container, **state: Any) -> Container:
    """The container with some fields of its state replaced."""
    return container.model_copy(update={"state": container.state.model_copy(update=state)})


def not_running(container: Container) -> Conflict:
    """moby's refusal of what needs a running process."""
    return Conflict(f"container {container.id} is not running")


def _start(container: Container, event: StartRequested) -> Container:
    match container.state.status:
        case "paused":
            raise Conflict("cannot start a paused container, try unpause instead")
        case "running":
            raise NotModified("container is already running")
        case "restarting" if event.manual:
            raise NotModified("container is already running")
        case "removing" | "dead":
            raise Conflict("container is marked for removal and cannot be started")
        case "starting":
            return container  # another request is at it: its outcome is this one's too
    if not event.manual and container.state.status != "restarting":
        return container  # stopped or started by hand in the meantime
    update: dict[str, Any] = {"lease": event.lease}
    if event.manual:
        update |= {"restart_count": 0, "published": event.published}
    if container.agent is None or not container.agent.connected:
        # No agent holds the file system any more: a new execution will.
        update |= {"agent": None, "execution": None}
    state = container.state.model_copy(
        update={
            "status": "starting",
            "run": container.state.run + 1,
            "pid": 0,
            "error": "",
            "stop_requested": False,
            "restart_delay": 0.0 if event.manual else container.state.restart_delay,
        }
    )
    return container.model_copy(update=update | {"state": state})


def _end_restarting(container: Container) -> Container:
    """A container that waits for its policy's restart has no process: it is exited at once."""
    return changed(container.model_copy(update={"lease": None}), status="exited", stop_requested=True)


def _stop(container: Container, event: StopRequested) -> Container:
    if container.state.status not in ACTIVE:
        raise NotModified("container is already stopped")
    if container.state.status == "restarting":
        return _end_restarting(container)
    return changed(container, stop_requested=True)


def _kill(container: Container, event: KillRequested) -> Container:
    if container.state.status not in ACTIVE:
        raise not_running(container)
    if not asks_to_end(container, event.signal):
        return container
    if container.state.status == "restarting":
        return _end_restarting(container)
    return changed(container, stop_requested=True)


def _restart(container: Container, event: RestartRequested) -> Container:
    if container.state.status not in {"running", "paused"}:
        return container
    return changed(container.model_copy(update={"lease": event.lease}), stop_requested=True)


def _pause(container: Container, event: PauseRequested) -> Container:
    status = container.state.status
    if event.done:
        return changed(container, status="paused") if status == "running" else container
    if status == "paused":
        raise Conflict(f"Container {container.id} is already paused")
    if status == "restarting":
        raise is_restarting(container)
    if status != "running":
        raise not_running(container)
    return container


def is_restarting(container: Container) -> Conflict:
    """moby's refusal of what cannot be done between two runs."""
    return Conflict(f"Container {container.id} is restarting, wait until the container is running")


def _unpause(container: Container, event: UnpauseRequested) -> Container:
    paused = container.state.status == "paused"
    if event.done:
        return changed(container, status="running") if paused else container
    if not paused:
        raise ServerError(f"Container {container.id} is not paused")  # 500 in moby too
    return container


def _remove(container: Container, event: RemoveRequested) -> Container:
    status = container.state.status
    if status == "removing" and container.lease is not None and container.lease.expires_at > event.now:
        raise Conflict(f"removal of container {event.reference} is already in progress")
    if status in ACTIVE and not event.force:
        reason = "container is paused and must be unpaused first"
        if status != "paused":
            shown = "running" if status == "starting" else status
            reason = f"container is {shown}: stop the container before removing or force remove"
        raise Conflict(f'cannot remove container "{event.reference}": {reason}')
    return changed(
        container.model_copy(update={"lease": event.lease}),
        status="removing",
        stop_requested=container.state.stop_requested or status in ACTIVE,
    )


def never_started(container: Container) -> bool:
    """Whether no process of this container ever ran."""
    return container.state.started_at == ZERO_TIME


_REQUESTS: dict[type, Callable[[Container, Any], Container]] = {
    StartRequested: _start,
    StopRequested: _stop,
    KillRequested: _kill,
    RestartRequested: _restart,
    PauseRequested: _pause,
    UnpauseRequested: _unpause,
    RemoveRequested: _remove,
}
