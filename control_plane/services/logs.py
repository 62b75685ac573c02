"""`docker logs`: from the agent's spool while it is there, else from the platform's archive."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from control_plane.backends.base import Backend, LogLine
from control_plane.errors import Conflict, InvalidParameter, NotServed
from control_plane.model import Container
from control_plane.services.log_details import details
from control_plane.services.ports import Agents, AgentUnreachable
from control_plane.services.records import Records
from control_plane.services.run_settings import RunSettings
from control_plane.services.runs import Resolver
from control_plane.services.watching import reach
from control_plane.timestamps import padded, rfc3339

_STREAMS = {"stdout": 1, "stderr": 2}
_RETURN_SECONDS = 60.0
"""So long a follower waits for the agent of a running container to dial again."""
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class LogsRequest:
    """The parameters of `GET …/logs`. Times are Unix nanoseconds, `tail` None is all."""

    stdout: bool
    stderr: bool
    follow: bool = False
    timestamps: bool = False
    details: bool = False
    since: int | None = None
    until: int | None = None
    tail: int | None = None


_RUNS = frozenset({"running", "paused"})


def _agentless(container: Container) -> bool:
    return container.execution is not None and container.execution.agentless


class Logs:
    """Live output never asks a cloud API."""

    def __init__(
        self,
        containers: Resolver,
        records: Records[Container],
        agents: Agents,
        backends: Mapping[str, Backend],
        settings: RunSettings,
    ) -> None:
        self._resolve = containers.resolve
        self._records = records
        self._agents = agents
        self._backends = backends
        self._settings = settings

    async def logs(self, tenant: str, reference: str, request: LogsRequest) -> tuple[bool, AsyncIterator[bytes]]:
        """Whether the container has a TTY (the output is raw then, else stdcopy), and the output.

        Raises InvalidParameter when no stream was chosen, NotFound, Conflict, NotServed.
        """
        if not request.stdout and not request.stderr:
            raise InvalidParameter("Bad parameters: you must choose at least one stream")
        container = await self._resolve(tenant, reference)
        if container.state.status in {"removing", "dead"}:
            raise Conflict("can not get logs from container which is dead or marked for removal")
        driver = (container.host_config.get("LogConfig") or {}).get("Type") or ""
        if driver == "none":
            raise NotServed("configured logging driver does not support reading")
        prefix = details(container) if request.details else ""
        return bool(container.config.get("Tty")), self._output(container, request, prefix)

    async def _output(self, container: Container, request: LogsRequest, prefix: str) -> AsyncIterator[bytes]:
        if container.state.status == "starting":
            container = await self._started(container)
        if container.state.run == 0:
            return  # no process, no output; moby does not follow it either
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (_RETURN_SECONDS if request.follow else 0.0)
        while container.agent is not None and (container.agent.connected or container.state.status == "running"):
            try:
                async for chunk in self._live(container, request, prefix):
                    yield chunk
                return
            except AgentUnreachable:
                pass  # before the first byte: the archive has it all
            if loop.time() >= deadline or _agentless(container):
                break
            # Of a run that goes on the archive has no end: its agent keeps the execution also after the process.
            await asyncio.sleep(_LOOK_SECONDS)
            current = await self._records.get(container.tenant, container.id)
            if current is None or (current.state.status not in _RUNS and current.agent == container.agent):
                container = current or container
                break
            container = current
        async for chunk in self._archived(container, request, prefix):
            yield chunk

    async def _started(self, container: Container) -> Container:
        try:
            found = await reach(
                self._records, container, lambda c: c.state.status != "starting", self._settings.start_timeout
            )
        except TimeoutError:
            return container
        return found or container

    async def _live(self, container: Container, request: LogsRequest, prefix: str) -> AsyncIterator[bytes]:
        params = {
            "stdout": request.stdout,
            "stderr": request.stderr,
            "follow": request.follow,
            "timestamps": request.timestamps,
            "details": prefix,
            "since": "" if request.since is None else rfc3339(request.since),
            "until": "" if request.until is None else rfc3339(request.until),
            "tail": -1 if request.tail is None else request.tail,
        }
        stream = await self._agents.open(container, "logs", params)
        begun = False
        try:
            async for chunk in stream.chunks():
                begun = True
                yield chunk
        except Conflict as error:
            # The agent left, or was lost, after the stream was opened.
            if not begun:
                raise AgentUnreachable(error.message) from error
            if not request.follow:
                raise
        finally:
            await stream.close()

    async def _archived(self, container: Container, request: LogsRequest, prefix: str) -> AsyncIterator[bytes]:
        tty = bool(container.config.get("Tty"))
        wanted = {name for name, on in (("stdout", request.stdout), ("stderr", request.stderr)) if on}
        lines = self._backends[container.backend].logs(
            container,
            since=request.since,
            until=request.until,
            tail=request.tail,
            follow=request.follow,
        )
        async for line in lines:
            if line.stream in wanted:
                yield formatted(line, tty=tty, timestamps=request.timestamps, prefix=prefix)


def formatted(line: LogLine, *, tty: bool, timestamps: bool, prefix: str = "") -> bytes:
    """One archived line as Docker's clients get it: raw with a TTY, else behind an 8-byte stdcopy header."""
    text = prefix.encode() + line.text
    if timestamps:
        text = f"{padded(line.at)} ".encode() + text
    if tty:
        return text
    return struct.pack(">BxxxL", _STREAMS.get(line.stream, 1), len(text)) + text
