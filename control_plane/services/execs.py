"""Exec sessions: create, claim, start detached, inspect, resize, and what agents report of them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from control_plane.errors import Conflict, DockerError, InvalidParameter, NotFound
from control_plane.model import Container, ExecSession
from control_plane.services.container_events import ContainerEvents
from control_plane.services.lifecycle import is_restarting, not_running
from control_plane.services.outcomes import clock
from control_plane.services.ports import Agents
from control_plane.services.records import Records
from control_plane.services.removal import EXEC_PREFIX
from control_plane.services.runs import Resolver
from control_plane.timestamps import nanoseconds, now

_LOST = 137
_NOT_STARTED = 126
_MOST = 100_000


class Execs:
    """Exec sessions outlive their process so that `inspect` can tell its exit code."""

    def __init__(
        self,
        containers: Resolver,
        records: Records[ExecSession],
        container_records: Records[Container],
        agents: Agents,
        events: ContainerEvents,
    ) -> None:
        self._resolve = containers.resolve
        self.records = records
        self._containers = container_records
        self._agents = agents
        self._events = events

    async def create(self, tenant: str, reference: str, config: Mapping[str, Any]) -> str:
        """`POST /containers/{name}/exec`: the new exec's id. Raises NotFound, Conflict with moby's texts."""
        if not config.get("Cmd"):
            raise InvalidParameter("No exec command specified")
        container = await self._resolve(tenant, reference)
        check_active(container, reference)
        exec_id = container.id[:EXEC_PREFIX] + secrets.token_hex(32 - EXEC_PREFIX // 2)
        session = ExecSession(id=exec_id, tenant=tenant, container=container.id, config=dict(config), created_at=now())
        await self.records.create(tenant, exec_id, session)
        await self._events.publish(container, f"exec_create: {_command(session)}", execID=exec_id)
        return exec_id

    async def get(self, tenant: str, exec_id: str) -> ExecSession:
        """Raises NotFound, also when its container is gone."""
        session = await self.records.get(tenant, exec_id)
        if session is None or await self._containers.get(tenant, session.container) is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return session

    async def inspect(self, tenant: str, exec_id: str) -> dict[str, Any]:
        """`GET /exec/{id}/json`, moby's shape."""
        session = await self.get(tenant, exec_id)
        config = session.config
        command: Sequence[str] = config.get("Cmd") or []
        process: dict[str, Any] = {
            "tty": bool(config.get("Tty")),
            "entrypoint": command[0] if command else "",
            "arguments": list(command[1:]),
            "privileged": bool(config.get("Privileged")),
        }
        if config.get("User"):
            process["user"] = config["User"]
        return {
            "ID": session.id,
            "Running": session.status == "running",
            "ExitCode": session.exit_code,
            "ProcessConfig": process,
            "OpenStdin": bool(config.get("AttachStdin")),
            "OpenStderr": bool(config.get("AttachStderr")),
            "OpenStdout": bool(config.get("AttachStdout")),
            "CanRemove": session.can_remove,
            "ContainerID": session.container,
            "DetachKeys": "",
            "Pid": session.pid,
        }

    async def claim(self, tenant: str, exec_id: str, attempt: str = "") -> tuple[Container, ExecSession]:
        """Takes the one start an exec has. Raises NotFound, Conflict with moby's texts.

        `attempt`: who asks again with the same one has not heard that the start is theirs.
        """
        session = await self.get(tenant, exec_id)
        container = await self._containers.get(tenant, session.container)
        if container is None:
            raise NotFound(f"No such container: {exec_id}")
        check_active(container, container.id)
        repeated = False

        def change(current: ExecSession) -> ExecSession | None:
            nonlocal repeated
            if current.exit_code is not None:
                raise Conflict(f"exec command {exec_id} has already run")
            repeated = current.status == "running" and bool(attempt) and current.attempt == attempt
            if repeated:
                return None
            if current.status == "running":
                raise Conflict(f"exec command {exec_id} is already running")
            return current.model_copy(update={"status": "running", "attempt": attempt})

        claimed = await self.records.update(tenant, exec_id, change)
        if claimed is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        if not repeated:
            await self._events.publish(container, f"exec_start: {_command(claimed)}", execID=exec_id)
        return container, claimed

    async def start_detached(self, tenant: str, exec_id: str, console: Sequence[int] | None = None) -> None:
        """`docker exec -d`: returns once the process runs. Raises the agent's refusal (400 with Docker's text)."""
        container, session = await self.claim(tenant, exec_id)
        params = exec_params(container, session, console) | {"stdin": False, "stdout": False, "stderr": False}
        try:
            started = await self._agents.call(container, "exec", params)
        except DockerError:
            await self.exited(tenant, container.id, exec_id, _NOT_STARTED)
            raise
        await self.started(tenant, container.id, exec_id, int(started.get("pid") or 0))

    async def resize(self, tenant: str, exec_id: str, rows: int, columns: int) -> None:
        """`POST /exec/{id}/resize`. Raises InvalidParameter before the exec has started."""
        session = await self.get(tenant, exec_id)
        container = await self._containers.get(tenant, session.container)
        if container is None:
            raise NotFound(f"No such container: {exec_id}")
        check_active(container, container.id)
        if session.status != "running":
            raise InvalidParameter("exec process is not started")
        await self._agents.call(container, "resize", {"exec": exec_id, "rows": rows, "cols": columns})

    async def started(self, tenant: str, container_id: str, exec_id: str, pid: int) -> None:
        """The agent started the exec's process."""

        def change(current: ExecSession) -> ExecSession | None:
            if current.container != container_id or current.status == "exited":
                return None
            return current.model_copy(update={"status": "running", "pid": pid})

        await self.records.update(tenant, exec_id, change)

    async def exited(self, tenant: str, container_id: str, exec_id: str, code: int) -> None:
        """The exec's process ended, or could not be started (126, 127)."""
        ended = False

        def change(current: ExecSession) -> ExecSession | None:
            nonlocal ended
            ended = current.container == container_id and current.exit_code is None
            return current.model_copy(update={"status": "exited", "exit_code": code}) if ended else None

        await self.records.update(tenant, exec_id, change)
        container = await self._containers.get(tenant, container_id) if ended else None
        if container is not None:
            await self._events.publish(container, "exec_die", execID=exec_id, exitCode=str(code))

    async def of_container(self, container: Container) -> list[ExecSession]:
        """The container's exec sessions, found by their ids' prefix."""
        found = await self.records.find(container.tenant, container.id[:EXEC_PREFIX], _MOST)
        return [session for session in found if session.container == container.id]

    async def end_all(self, container: Container) -> None:
        """The container's process ended, and every exec's with it."""
        for session in await self.of_container(container):
            if session.status == "running":
                await self.exited(container.tenant, container.id, session.id, _LOST)

    async def forget_old(self, keep: float) -> None:
        """Removes ended sessions in two passes: marked removable in one, deleted in a later one (moby's way)."""
        for session in await self.records.list():
            if session.status == "running" or clock() - nanoseconds(session.created_at) / 1e9 < keep:
                continue
            if session.status == "created" and await self._containers.get(session.tenant, session.container):
                continue
            if session.can_remove:
                await self.records.delete(session.tenant, session.id)
            else:
                await self.records.update(
                    session.tenant, session.id, lambda current: current.model_copy(update={"can_remove": True})
                )


def check_active(container: Container, reference: str) -> None:
    """moby's conditions for an exec. Raises Conflict."""
    match container.state.status:
        case "running":
            pass
        case "paused":
            raise Conflict(f"Container {reference} is paused, unpause the container before exec")
        case "restarting":
            raise is_restarting(container)
        case _:
            raise not_running(container)
    if container.execution is not None and container.execution.agentless:
        reason = "its agent never connected, so the command runs alone"
        raise Conflict(f"container {container.id} cannot be entered: {reason}")


def exec_params(container: Container, session: ExecSession, console: Sequence[int] | None = None) -> dict[str, Any]:
    """The `exec` parameters of docs/wire-protocol.md, section 6. `console` is Docker's [height, width]."""
    config = session.config
    rows, columns = (console or config.get("ConsoleSize") or [0, 0])[:2]
    return {
        "exec": session.id,
        "argv": list(config.get("Cmd") or []),
        "env": _merged(container.config.get("Env") or [], config.get("Env") or []),
        "workdir": config.get("WorkingDir") or container.config.get("WorkingDir") or "/",
        "user": config.get("User") or container.config.get("User") or "",
        "tty": bool(config.get("Tty")),
        "privileged": bool(config.get("Privileged")),
        "stdin": bool(config.get("AttachStdin")),
        "stdout": bool(config.get("AttachStdout")),
        "stderr": bool(config.get("AttachStderr")),
        "detach_keys": config.get("DetachKeys") or "",
        "rows": int(rows),
        "cols": int(columns),
    }


def _merged(inherited: Sequence[str], own: Sequence[str]) -> list[str]:
    """moby's rule: an own `K=V` replaces the inherited one, a bare `K` removes it."""
    values = {entry.partition("=")[0]: entry for entry in inherited}
    for entry in own:
        name, given, _ = entry.partition("=")
        if given:
            values[name] = entry
        else:
            values.pop(name, None)
    return list(values.values())


def _command(session: ExecSession) -> str:
    return " ".join(session.config.get("Cmd") or [])
