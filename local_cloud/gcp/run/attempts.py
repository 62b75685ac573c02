"""One attempt of one task: a container in the local runtime, from its start to its exit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from local_cloud.errors import CODES
from local_cloud.gcp.run.resources import check_limits
from local_cloud.gcp.run.volumes import Bind, VolumeMissingError, Volumes
from local_cloud.images import ImageContent
from local_cloud.runtime.api import ExitStatus, MountSpec, RunSpec, RuntimeRefused

_log = logging.getLogger(__name__)
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CANCELLED_TEXT = "The execution was cancelled."
_NON_ZERO = "The container exited with an error."


class ContainerRuntime(Protocol):
    """What is used of the local runtime."""

    async def run(self, spec: RunSpec) -> int:
        """Starts a container."""
        ...

    async def wait(self, id: str) -> ExitStatus:
        """Waits for its end."""
        ...

    async def kill(self, id: str, signal: int) -> None:
        """Signals its first process."""
        ...

    async def ids(self) -> dict[str, bool]:
        """Known containers → whether they run."""
        ...

    async def remove(self, id: str) -> None:
        """Frees what a container left."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, in the terms of TaskAttemptResult."""

    exit_code: int = 0
    term_signal: int = 0
    code: int = 0
    """google.rpc.Code of the status; 0 is success."""
    message: str = ""
    finished_at: float = 0.0
    """Unix seconds; 0 when it is not known. It may be long ago: containers outlive the local cloud."""

    @property
    def succeeded(self) -> bool:
        """Whether the container exited with 0 by itself."""
        return self.code == 0


def failed(code: str, message: str) -> Outcome:
    """An attempt that ended without an exit code."""
    return Outcome(code=CODES[code][0], message=message)


@dataclass(slots=True)
class Attempt:
    """A running attempt; `stop` may be called while `Attempts.finish` waits."""

    id: str
    reason: str = ""
    """Why it is being stopped (`timeout`, `cancel`, `delete`), empty while nobody stops it."""
    stopper: asyncio.Task[None] | None = None


class Attempts:
    """Starts, stops and awaits the containers of task attempts."""

    def __init__(self, runtime: ContainerRuntime, volumes: Volumes, logs: Path, grace: float, network: str) -> None:
        self._runtime = runtime
        self._volumes = volumes
        self._logs = logs
        self._grace = grace
        self._network = network

    @staticmethod
    def id_of(execution: Any, task: Any, attempt: int) -> str:
        """The runtime's id of an attempt: readable, and unique by the execution's uid."""
        name = execution.name.rpartition("/")[2]
        return f"{name[:63]}-{execution.uid[:8]}-{task.index}-{attempt}"

    def output(self, execution: Any, task: Any, attempt: int) -> tuple[Path, Path]:
        """The files that get an attempt's stdout and stderr."""
        stem = self._logs / execution.uid / f"{task.index}-{attempt}"
        return stem.with_suffix(".stdout"), stem.with_suffix(".stderr")

    async def start(
        self, attempt: Attempt, execution: Any, task: Any, number: int, image: ImageContent
    ) -> Outcome | None:
        """Starts the container; an Outcome when it could not be started."""
        try:
            binds = self._volumes.binds(task, attempt.id)
            await self._runtime.run(self._spec(attempt.id, execution, task, number, image, binds))
        except VolumeMissingError as error:
            return failed("FAILED_PRECONDITION", str(error))
        except RuntimeRefused as error:
            return failed("INTERNAL", f"Application failed to start: {error}")
        except OSError as error:
            return failed("INTERNAL", f"Application failed to start: {error}")
        return None

    async def finish(self, attempt: Attempt, started_at: float, timeout: float) -> Outcome:
        """Waits for the container's end, stopping it at its timeout (seconds after `started_at`, a Unix time)."""
        left = max(started_at + timeout - time.time(), 0.0)
        timer = asyncio.get_running_loop().call_later(left, self.stop, attempt, "timeout")
        try:
            status = await self._runtime.wait(attempt.id)
        except RuntimeRefused as error:
            return failed("UNAVAILABLE", f"The container was lost: {error}")
        finally:
            timer.cancel()
            if attempt.stopper is not None:
                attempt.stopper.cancel()
        return replace(_outcome(status, attempt.reason), finished_at=status.finished_at)

    def stop(self, attempt: Attempt, reason: str) -> None:
        """SIGTERM now, SIGKILL after the grace. Repeating it changes nothing."""
        if attempt.stopper is None:
            attempt.reason = reason
            attempt.stopper = asyncio.get_running_loop().create_task(self._stop(attempt.id))

    async def _stop(self, container: str) -> None:
        with contextlib.suppress(RuntimeRefused, OSError):
            await self._runtime.kill(container, signal.SIGTERM)
            await asyncio.sleep(self._grace)
            await self._runtime.kill(container, signal.SIGKILL)

    async def clear(self, attempt: str) -> None:
        """Frees an ended attempt's writable layer and volumes."""
        try:
            await self._runtime.remove(attempt)
        except (RuntimeRefused, OSError) as error:
            _log.warning("container %s could not be removed: %s", attempt, error)
        self._volumes.clear(attempt)

    async def known(self) -> dict[str, bool]:
        """The runtime's containers → whether they run."""
        return await self._runtime.ids()

    def _spec(
        self, container: str, execution: Any, task: Any, number: int, image: ImageContent, binds: tuple[Bind, ...]
    ) -> RunSpec:
        box = task.containers[0]
        cpus, memory = check_limits(box.resources.limits, "container")
        stdout, stderr = self.output(execution, task, number)
        stdout.parent.mkdir(parents=True, exist_ok=True)
        return RunSpec(
            id=container,
            layers=image.layers,
            argv=argv_of(box, image),
            env=_environment(box, image, execution, task, number),
            workdir=box.working_dir or image.workdir,
            user=image.user,
            hostname="localhost",
            mounts=tuple(MountSpec(source=bind.source, target=bind.target, read_only=bind.read_only) for bind in binds),
            memory_bytes=memory,
            cpus=cpus,
            stdout=stdout,
            stderr=stderr,
            network=self._network,
        )


def argv_of(box: Any, image: ImageContent) -> tuple[str, ...]:
    """The image's CMD counts only while neither command nor args replace it, as in Kubernetes."""
    if box.command:
        return (*box.command, *box.args)
    return (*image.entrypoint, *(box.args or image.command))


def _environment(box: Any, image: ImageContent, execution: Any, task: Any, number: int) -> dict[str, str]:
    env = {"PATH": DEFAULT_PATH}
    for entry in image.env:
        name, _, value = entry.partition("=")
        env[name] = value
    for variable in box.env:
        env[variable.name] = variable.value
    env["CLOUD_RUN_JOB"] = execution.job.rpartition("/")[2]
    env["CLOUD_RUN_EXECUTION"] = execution.name.rpartition("/")[2]
    env["CLOUD_RUN_TASK_INDEX"] = str(task.index)
    env["CLOUD_RUN_TASK_ATTEMPT"] = str(number)
    env["CLOUD_RUN_TASK_COUNT"] = str(execution.task_count)
    return env


def _outcome(status: ExitStatus, reason: str) -> Outcome:
    code, killed = (0, status.signal) if status.signal else (status.code, 0)
    if reason == "timeout":
        return Outcome(code, killed, CODES["DEADLINE_EXCEEDED"][0], "The configured timeout was reached.")
    if reason:
        return Outcome(code, killed, CODES["CANCELLED"][0], CANCELLED_TEXT)
    if status.error and (status.code or killed):
        return Outcome(code, killed, CODES["INTERNAL"][0], status.error)
    if status.oom:
        return Outcome(code, killed, CODES["RESOURCE_EXHAUSTED"][0], "Out-of-memory event detected in container.")
    if killed:
        return Outcome(0, killed, CODES["UNKNOWN"][0], f"Container terminated on signal {killed}.")
    if status.code:
        return Outcome(status.code, 0, CODES["UNKNOWN"][0], _NON_ZERO)
    return Outcome()
