"""Removing containers: rm, automatic removal, prune."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any, Protocol

from control_plane.backends.base import Backend
from control_plane.errors import Conflict, DockerError, NotFound
from control_plane.model import Container, ExecSession, Lease
from control_plane.services.background import Background
from control_plane.services.container_events import ContainerEvents
from control_plane.services.lifecycle import ACTIVE, RemoveRequested, advance
from control_plane.services.names import Names
from control_plane.services.outcomes import Outcomes, clock
from control_plane.services.ports import Agents, AgentUnreachable, Blobs
from control_plane.services.records import Records
from control_plane.services.reports import Exited, exit_recorded
from control_plane.services.run_settings import RunSettings
from control_plane.services.runs import Resolver
from control_plane.services.signals import KILL
from control_plane.services.watching import reach
from control_plane.timestamps import now

EXEC_PREFIX = 16
"""Hex digits of its container's id that every exec id begins with, so that a container's execs are found by prefix."""
_MOST_EXECS = 100_000


class AnonymousVolumes(Protocol):
    """`services.volumes.Volumes`, as far as it is needed here."""

    async def remove_anonymous(self, container: Container) -> None:
        """Removes the anonymous volumes that only this container used. Failures are logged there."""
        ...


class Removal:
    """The record goes first; what the cloud has of it goes in the background, and by the sweeper after a crash."""

    def __init__(
        self,
        containers: Resolver,
        names: Names,
        execs: Records[ExecSession],
        volumes: AnonymousVolumes,
        blobs: Blobs,
        outcomes: Outcomes,
        backends: Mapping[str, Backend],
        agents: Agents,
        background: Background,
        settings: RunSettings,
    ) -> None:
        self._resolve = containers.resolve
        self._names = names
        self._execs = execs
        self._volumes = volumes
        self._blobs = blobs
        self._outcomes = outcomes
        self._containers = outcomes.containers
        self._events: ContainerEvents = outcomes.events
        self._backends = backends
        self._agents = agents
        self._background = background
        self._settings = settings

    async def remove(
        self, tenant: str, reference: str, *, force: bool = False, volumes: bool = False, link: bool = False
    ) -> None:
        """`docker rm`. Raises Conflict with moby's texts."""
        container = await self._resolve(tenant, reference)
        if link:
            raise Conflict("Conflict, cannot remove the default link name of the container")
        await self._claim_and_remove(container, reference, force=force, volumes=volumes)

    async def _claim_and_remove(self, container: Container, reference: str, *, force: bool, volumes: bool) -> None:
        owner = f"{self._settings.instance}/{secrets.token_hex(6)}"
        lease = Lease(operation="remove", owner=owner, expires_at=clock() + self._settings.lease)
        event = RemoveRequested(lease, clock(), reference, force)
        before: Container | None = None

        def change(current: Container) -> Container:
            nonlocal before
            before = current
            return advance(current, event)

        claimed = await self._containers.update(container.tenant, container.id, change)
        if claimed is None or before is None:
            return  # removed by somebody else just now: moby is content too
        active = before.state.status in ACTIVE
        if active:
            await self._end(claimed, before)
        await self.finish(claimed, volumes=volumes, ended=active)

    async def _end(self, container: Container, before: Container) -> None:
        """Kills what runs and waits, shortly, for the agent's report; the cloud's cancel is the fallback."""
        reachable = container.agent is not None and container.agent.connected
        if before.state.status in {"running", "paused"}:
            await self._events.publish(container, "kill", signal=str(KILL))
        if reachable:
            reachable = await self._shut_down(container, kill=True)
        if before.state.status in {"running", "paused"}:
            if reachable:
                try:
                    await reach(self._containers, container, exit_recorded, self._settings.remove_wait)
                    return
                except TimeoutError:
                    pass
            report = Exited(container.state.run, 128 + KILL, now(), clock())
            await self._outcomes.apply(container.tenant, container.id, report)
        if container.execution is not None:
            cancel = self._backends[container.backend].cancel(container.execution)
            self._background.spawn(cancel, f"cancel execution of {container.id[:12]}")

    async def _shut_down(self, container: Container, *, kill: bool) -> bool:
        """Tells the agent to end; whether it heard."""
        try:
            async with asyncio.timeout(self._settings.shutdown_wait):
                await self._agents.call(container, "shutdown", {"kill": kill})
        except (AgentUnreachable, TimeoutError):
            return False
        except DockerError:
            return True
        return True

    def remove_itself(self, container: Container) -> None:
        """Automatic removal (`--rm`) of a container that is `removing` already.

        Whoever waits for a start that failed reads the reason in the record, maybe in another process: it stays until
        that one has seen it (`remove_unstarted`).
        """
        if not container.state.start_failed or self._settings.sole_instance:
            self.remove_unstarted(container)
            return
        wait = self._settings.refusal_seen
        self._background.later(wait, lambda: self.finish(container, volumes=True), f"remove {container.id[:12]}")

    def remove_unstarted(self, container: Container) -> None:
        """The same at once."""
        self._background.spawn(self.finish(container, volumes=True), f"remove {container.id[:12]}")

    async def finish(self, container: Container, *, volumes: bool, ended: bool = False) -> None:
        """Deletes the records of a container that is `removing`, then frees the rest in the background. Repeatable.

        `ended`: its agent, or else the cloud, has been told already.
        """
        tenant = container.tenant
        for session in await self._execs.find(tenant, container.id[:EXEC_PREFIX], _MOST_EXECS):
            if session.container == container.id:
                await self._execs.delete(tenant, session.id)
        last = await self._containers.get(tenant, container.id) or container
        if volumes:
            # Before the record: whoever waits for the removal finds them gone.
            await self._volumes.remove_anonymous(last)
        await self._names.release(tenant, last.name, container.id)
        if not await self._containers.delete(tenant, container.id):
            return
        await self._events.publish(last, "destroy")
        self._background.spawn(self._free(last, ended=ended), f"free what {container.id[:12]} used")

    async def _free(self, container: Container, *, ended: bool) -> None:
        if container.host_config.get("AutoRemove"):
            # Its agent ends by itself, once the last of the output is delivered: not under its feet.
            await asyncio.sleep(self._settings.release_delay)
        elif not ended and container.agent is not None and container.agent.connected:
            heard = await self._shut_down(container, kill=True)
            if not heard and container.execution is not None:
                # It keeps the file system and cannot be told: it would stay for the whole linger time.
                await self._backends[container.backend].cancel(container.execution)
        for archive in container.staged:
            await self._blobs.delete(archive.blob)
        await self._backends[container.backend].remove(container)

    async def prune(self, tenant: str, include: PruneFilter) -> dict[str, Any]:
        """`docker container prune`: `{"ContainersDeleted": […], "SpaceReclaimed": n}`."""
        deleted: list[str] = []
        for container in await self._containers.list(tenant):
            if container.state.status in ACTIVE or container.state.status == "removing" or not include(container):
                continue
            try:
                await self._claim_and_remove(container, container.id, force=False, volumes=False)
            except (Conflict, NotFound):
                continue  # started or removed meanwhile
            deleted.append(container.id)
        await self._events.pruned(tenant)
        # The file systems are the platform's and their sizes are not known here.
        return {"ContainersDeleted": deleted or None, "SpaceReclaimed": 0}


class PruneFilter(Protocol):
    """Whether a stopped container is to go."""

    def __call__(self, container: Container) -> bool:
        """The verdict."""
        ...
