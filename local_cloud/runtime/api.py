"""The runtime: runs unpacked images in namespaces of this machine, for the stand-ins of container platforms.

Containers belong to a detached launcher process per data directory: they outlive whoever started them, and their exit
statuses are files until they are removed.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_cloud.runtime.connection import Connection, connect
from local_cloud.runtime.findings import Finding, RuntimeRefused
from local_cloud.runtime.layers import LayerStore
from local_cloud.runtime.probe import probe

__all__ = ["ExitStatus", "Finding", "LayerStore", "MountSpec", "RunSpec", "Runtime", "RuntimeRefused", "probe"]

_ID = re.compile(r"[a-z0-9-]{1,100}")


@dataclass(frozen=True, slots=True)
class MountSpec:
    """A host directory (or file) bound into the container with everything mounted below it."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One execution.

    `layers` are unpacked layers, lowest first (LayerStore makes them). `user` is an image's USER text. `memory_bytes`,
    `cpus` and `pids` of 0 mean no limit. `stdout` and `stderr` are files the output is appended to (they may be the
    same). `tmpfs_bytes` is the size of /dev/shm (0: Docker's 64 MiB). `network` is `bridge` (its own namespace; where
    this machine cannot have one, the host's) or `host`. PATH and HOME are added to `env` when absent.
    """

    id: str
    layers: tuple[Path, ...]
    argv: tuple[str, ...]
    env: dict[str, str]
    workdir: str
    user: str
    hostname: str
    mounts: tuple[MountSpec, ...]
    memory_bytes: int
    cpus: float
    stdout: Path
    stderr: Path
    pids: int = 0
    tmpfs_bytes: int = 0
    network: str = "bridge"


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How an execution ended. `code` is 128 + `signal` when a signal ended it; `oom`: the kernel killed for memory.

    `error` tells what the code does not: lost output, or a launcher that ended while the container ran. `finished_at`
    is Unix time in seconds.
    """

    code: int
    signal: int
    oom: bool
    error: str
    finished_at: float


class Runtime:
    """A connection to the launcher of one data directory. `idle_seconds`: how long an unused launcher stays."""

    def __init__(self, data_dir: Path, idle_seconds: float = 60.0) -> None:
        self._data_dir = data_dir.absolute()
        self._idle_seconds = idle_seconds
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._greeting: dict[str, Any] = {}
        self._addresses: dict[str, str] = {}
        self._closed = False

    async def start(self) -> None:
        """Connects to the running launcher, or spawns one; RuntimeRefused where this machine cannot run containers."""
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._closed = False
        await self._connected()

    @property
    def host_address(self) -> str:
        """The address at which containers reach this machine."""
        return str(self._greeting.get("host_address", "127.0.0.1"))

    @property
    def network(self) -> str:
        """What a `bridge` execution gets here: `bridge`, or `host`."""
        return str(self._greeting.get("network", "host"))

    @property
    def shortcomings(self) -> list[str]:
        """What the launcher could not set up on this machine, in words."""
        told = {
            "no_bridge": "containers share the host's network: ",
            "no_outbound": "containers reach this machine only: ",
            "no_limits": "limits of memory, processor and processes have no effect: ",
        }
        found = [words + str(self._greeting[key]) for key, words in told.items() if self._greeting.get(key)]
        if self._greeting.get("single_id"):
            found.append("containers have one user id only: newuidmap or a range in /etc/subuid is missing")
        return found

    async def run(self, spec: RunSpec) -> int:
        """Starts an execution; its host pid, once its program runs. Raises RuntimeRefused."""
        launch = _launch(spec)
        try:
            answer = await (await self._connected()).ask("run", launch=launch)
        except ConnectionResetError:
            raise RuntimeRefused(f"the launcher ended while {spec.id} was being started", "launcher") from None
        if "address" in answer:  # a launcher that an earlier version started does not tell
            self._addresses[spec.id] = answer["address"]
        return int(answer["pid"])

    async def address(self, id: str) -> str:
        """Where this machine reaches a running execution: its address on the bridge, or 127.0.0.1 where it shares the
        host's network. Raises RuntimeRefused."""
        known = self._addresses.get(id)
        if known is None:
            known = (await self._ask("address", id=id))["address"]
        return str(known or "127.0.0.1")

    async def wait(self, id: str) -> ExitStatus:
        """The end of an execution, also of one that an earlier process started or that has long ended."""
        answer = await self._ask("wait", id=id)
        self._addresses.pop(id, None)
        return ExitStatus(**answer["exit"])

    async def kill(self, id: str, signal: int) -> None:
        """A signal to PID 1 of the container (which ignores those it does not handle, but SIGKILL)."""
        await self._ask("kill", id=id, signal=signal)

    async def ids(self) -> dict[str, bool]:
        """All known executions, and whether each runs."""
        return dict((await self._ask("ids"))["ids"])

    async def remove(self, id: str) -> None:
        """Kills it if it runs, forgets it, frees its writable layer (in the background)."""
        await self._ask("remove", id=id)
        self._addresses.pop(id, None)

    async def close(self) -> None:
        """Disconnects; containers go on."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._addresses.clear()

    async def shutdown(self) -> None:
        """Ends all containers and the launcher; their exit statuses stay."""
        self._closed = True
        try:
            if self._connection is not None:
                await self._connection.ask("shutdown")
        except ConnectionResetError:
            pass  # the launcher's answer to a shutdown is to go
        await self.close()

    async def _ask(self, operation: str, **fields: Any) -> dict[str, Any]:
        """Asks again when the launcher has gone: the next one knows the same executions."""
        while True:
            connection = await self._connected()
            try:
                return await connection.ask(operation, **fields)
            except ConnectionResetError:
                if self._closed:
                    raise RuntimeRefused("the runtime has been closed", "launcher") from None

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._closed:
                raise RuntimeRefused("the runtime has been closed", "launcher")
            if self._connection is None or self._connection.closed:
                self._connection = await connect(self._data_dir, self._lost, self._idle_seconds)
                self._greeting = self._connection.greeting
            return self._connection

    def _lost(self, connection: Connection) -> None:
        if self._connection is connection:
            self._connection = None
            self._addresses.clear()  # their containers may have ended with the launcher


def _launch(spec: RunSpec) -> dict[str, Any]:
    """The launcher's form of a spec; raises RuntimeRefused for what no execution can be."""
    problems = {
        "the id is not of [a-z0-9-]{1,100}": not _ID.fullmatch(spec.id),
        "there is no command": not spec.argv or not spec.argv[0],
        "a working directory or mount target is not absolute": not all(
            path.startswith("/") for path in (spec.workdir or "/", *(mount.target for mount in spec.mounts))
        ),
        "a NUL byte is in the command or environment": any(
            "\0" in text for text in (*spec.argv, *spec.env, *spec.env.values(), spec.workdir, spec.user, spec.hostname)
        ),
        "an environment name is empty or contains '='": any(not name or "=" in name for name in spec.env),
        "the host name is longer than 64 bytes": len(spec.hostname.encode()) > 64,
        "the network is neither bridge nor host": spec.network not in ("bridge", "host"),
        "a limit is negative": min(spec.memory_bytes, spec.cpus, spec.pids, spec.tmpfs_bytes) < 0,
    }
    for text, found in problems.items():
        if found:
            raise RuntimeRefused(f"execution {spec.id}: {text}", "spec")
    return {
        "id": spec.id,
        "layers": [str(layer.absolute()) for layer in spec.layers],
        "argv": spec.argv,
        "env": spec.env,
        "workdir": spec.workdir,
        "user": spec.user,
        "hostname": spec.hostname,
        "mounts": [[str(mount.source.absolute()), mount.target, mount.read_only] for mount in spec.mounts],
        "memory_bytes": spec.memory_bytes,
        "cpus": spec.cpus,
        "pids": spec.pids,
        "stdout": str(spec.stdout.absolute()),
        "stderr": str(spec.stderr.absolute()),
        "tmpfs_bytes": spec.tmpfs_bytes,
        "network": spec.network,
    }
