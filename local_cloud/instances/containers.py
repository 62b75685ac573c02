"""The containers behind services and sites: started, found again after a restart, probed, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from local_cloud.images import ImageContent
from local_cloud.runtime.api import ExitStatus, MountSpec, RunSpec, RuntimeRefused

_FIRST_PAUSE, _LAST_PAUSE, _SLOWER = 0.001, 0.1, 1.25


class InstanceRuntime(Protocol):
    """What is used of the local runtime."""

    @property
    def network(self) -> str:
        """What `bridge` gives on this machine: `bridge`, or `host`."""
        ...

    async def run(self, spec: RunSpec) -> int:
        """Starts a container."""
        ...

    async def address(self, id: str) -> str:
        """Where a running container is reached."""
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


class InstanceFailed(Exception):
    """The container could not be started or was lost; the text is for the platform's message."""


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """One instance.

    `id` is the runtime's, of [a-z0-9-]{1,100}: it begins with `0-` for Cloud Run services and `1-` for App Service
    sites (executions of jobs begin with a letter). `env` is without PORT: that becomes `port`, or a free port where
    containers share this machine's network. `memory_bytes` and `cpus` of 0 mean no limit. The output is appended to
    `stdout` and `stderr`; their directories are made.
    """

    id: str
    image: ImageContent
    argv: tuple[str, ...]
    env: dict[str, str]
    workdir: str
    user: str
    mounts: tuple[MountSpec, ...]
    memory_bytes: int
    cpus: float
    stdout: Path
    stderr: Path
    port: int


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """A container that runs, or ran, and where it answers."""

    id: str
    address: str
    port: int
    ended: asyncio.Future[ExitStatus]
    """Done once the container has ended, or is not watched any more (Instances.detach)."""


class Instances:
    """All instances of one local cloud. `network`: `bridge` or `host`, as in Options."""

    def __init__(self, runtime: InstanceRuntime, network: str) -> None:
        self._runtime = runtime
        self._network = network
        self._known: dict[str, Instance] = {}

    @property
    def running(self) -> int:
        """How many instances run."""
        return sum(not instance.ended.done() for instance in self._known.values())

    def port_for(self, spec: InstanceSpec) -> int:
        """Where a container will answer, to be written down before `start`: who is killed after that adopts it."""
        return self._free_port() if "host" in (self._network, self._runtime.network) else spec.port

    async def start(self, spec: InstanceSpec, port: int = 0) -> Instance:
        """Starts a container; it is not probed, and may have ended already. Raises InstanceFailed.

        `port` is what `port_for` has given.
        """
        port = port or self.port_for(spec)
        try:
            for path in (spec.stdout, spec.stderr):
                path.parent.mkdir(parents=True, exist_ok=True)
            await self._runtime.run(self._launch(spec, port))
        except (RuntimeRefused, OSError) as error:
            raise InstanceFailed(str(error)) from error
        instance = await self._watched(spec.id, port)
        if not instance.address:
            await asyncio.wait({instance.ended})  # it has ended already: `ended` tells how
        return instance

    async def adopt(self, id: str, port: int) -> Instance | None:
        """The instance that an earlier process started with `port`; None when it does not run any more."""
        known = self._known.get(id)
        if known is not None:
            return None if known.ended.done() else known
        if not (await self.known(id)).get(id, False):
            return None
        instance = await self._watched(id, port)
        return instance if instance.address else None

    async def known(self, prefix: str) -> dict[str, bool]:
        """The runtime's containers whose ids begin so → whether they run."""
        return {id: running for id, running in (await self._runtime.ids()).items() if id.startswith(prefix)}

    async def probe(self, instance: Instance, timeout: float) -> bool:
        """Waits until it accepts TCP connections; False when it ended before, or `timeout` (seconds) is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                return await _listens(instance)
        return False

    async def wait(self, id: str) -> ExitStatus:
        """The end of an instance, also of one that has long ended. Raises InstanceFailed when it is not known."""
        known = self._known.get(id)
        try:
            return await (asyncio.shield(known.ended) if known is not None else self._runtime.wait(id))
        except RuntimeRefused as error:
            raise InstanceFailed(str(error)) from error

    async def stop(self, id: str, grace: float) -> None:
        """SIGTERM, SIGKILL after `grace` seconds; returns once it has ended. One that does not run is left alone."""
        ended = asyncio.ensure_future(self.wait(id))
        try:
            with contextlib.suppress(RuntimeRefused):
                await self._runtime.kill(id, signal.SIGTERM)
                if not (await asyncio.wait({ended}, timeout=grace))[0]:
                    await self._runtime.kill(id, signal.SIGKILL)
            with contextlib.suppress(InstanceFailed):
                await ended
        finally:
            ended.cancel()

    async def clear(self, id: str) -> None:
        """Kills it if it runs, and frees what it left. One that is not known is left alone."""
        with contextlib.suppress(RuntimeRefused):
            await self._runtime.remove(id)
        self._known.pop(id, None)

    async def detach(self) -> None:
        """Stops watching; the instances go on."""
        watching = [instance.ended for instance in self._known.values()]
        for ended in watching:
            ended.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        self._known.clear()

    async def _watched(self, id: str, port: int) -> Instance:
        """The instance, its end awaited; without an address when it does not run any more."""
        ended = asyncio.ensure_future(self._runtime.wait(id))
        ended.add_done_callback(_look_at)
        try:
            address = await self._runtime.address(id)
        except RuntimeRefused:
            address = ""
        except BaseException:
            ended.cancel()
            raise
        self._known[id] = instance = Instance(id, address, port, ended)
        return instance

    def _free_port(self) -> int:
        """A port of this machine that no instance has been given."""
        taken = {instance.port for instance in self._known.values()}
        while True:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
                trial.bind(("127.0.0.1", 0))
                port = int(trial.getsockname()[1])
            if port not in taken:
                return port

    def _launch(self, spec: InstanceSpec, port: int) -> RunSpec:
        return RunSpec(
            id=spec.id,
            layers=spec.image.layers,
            argv=spec.argv,
            env={**spec.env, "PORT": str(port)},
            workdir=spec.workdir,
            user=spec.user,
            hostname="localhost",
            mounts=spec.mounts,
            memory_bytes=spec.memory_bytes,
            cpus=spec.cpus,
            stdout=spec.stdout,
            stderr=spec.stderr,
            network=self._network,
        )


def _look_at(ended: asyncio.Future[ExitStatus]) -> None:
    """An instance that nobody asks about may be lost without a word."""
    if not ended.cancelled():
        ended.exception()


async def _listens(instance: Instance) -> bool:
    """Tries to connect: at once and every millisecond at first, because a small server listens after a few."""
    loop = asyncio.get_running_loop()
    for number in itertools.count():
        if instance.ended.done():
            return False
        trial = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with trial, contextlib.suppress(OSError):
            await loop.sock_connect(trial, (instance.address, instance.port))
            return True
        pause = min(_FIRST_PAUSE * _SLOWER**number, _LAST_PAUSE)
        await asyncio.wait({instance.ended}, timeout=pause)
    raise AssertionError("unreachable")
