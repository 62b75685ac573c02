"""The instances of services: started by requests, shared by as many as allowed, stopped when idle or replaced.

Facts: cloud.google.com/run/docs/about-instance-autoscaling (idle instances stay up to 15 minutes),
run/docs/container-contract (SIGTERM, 10 s, SIGKILL; the startup probe's 240 s).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass, field
from typing import Any

from local_cloud.errors import ServiceError
from local_cloud.gcp.run.volumes import VolumeMissingError
from local_cloud.gcp.services import template
from local_cloud.gcp.services.launch import Launch
from local_cloud.gcp.services.records import RevisionRecord, ServiceRecords
from local_cloud.instances import Instance, InstanceFailed, Instances
from local_cloud.options import Options

_log = logging.getLogger(__name__)


class Unavailable(Exception):
    """No instance can take the request; `status` is the HTTP status, the text the service's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(slots=True, eq=False)
class Slot:
    """One instance of a revision, from the decision to start it until it has ended."""

    id: str
    service: str
    revision: str
    concurrency: int
    active: int = 0
    leaving: bool = False
    """Gets no further requests."""
    instance: Instance | None = None
    started: asyncio.Task[Instance] | None = None
    idle: asyncio.TimerHandle | None = None
    stopping: asyncio.Task[None] | None = None
    watching: asyncio.Task[None] | None = field(default=None)


class InstancePool:
    """All instances of all services."""

    def __init__(self, records: ServiceRecords, instances: Instances, launch: Launch, options: Options) -> None:
        self._records = records
        self._instances = instances
        self._launch = launch
        self._options = options
        self._slots: dict[str, dict[str, Slot]] = {}

    def count(self) -> int:
        """Instances that run or are being started or stopped."""
        return sum(len(slots) for slots in self._slots.values())

    # --- requests

    async def acquire(self, service: str, record: RevisionRecord) -> tuple[Slot, Instance]:
        """An instance with room for one more request, started if need be; raises Unavailable.

        `release` ends the request's hold of it.
        """
        slot = self._free(service, record) or self._new(service, record)
        slot.active += 1
        if slot.idle is not None:
            slot.idle.cancel()
            slot.idle = None
        try:
            if slot.started is not None:
                return slot, await asyncio.shield(slot.started)
        except BaseException:
            self.release(slot)
            raise
        if slot.instance is None:  # it is one or the other
            raise Unavailable(503, "Service Unavailable")
        return slot, slot.instance

    def release(self, slot: Slot) -> None:
        """A request has ended."""
        slot.active -= 1
        if slot.active or slot.stopping is not None:
            return
        if slot.leaving:
            self._stop(slot)
        elif slot.instance is not None:
            self._await_idle(slot)

    def _free(self, service: str, record: RevisionRecord) -> Slot | None:
        for slot in self._slots.get(service, {}).values():
            usable = not slot.leaving and (slot.instance is None or not slot.instance.ended.done())
            if slot.revision == record.revision.name and usable and slot.active < slot.concurrency:
                return slot
        return None

    def _new(self, service: str, record: RevisionRecord) -> Slot:
        revision = record.revision
        slots = self._slots.setdefault(service, {})
        own = sum(slot.revision == revision.name and slot.stopping is None for slot in slots.values())
        if own >= revision.scaling.max_instance_count:
            raise Unavailable(429, "The request was aborted because there was no available instance.")
        id = f"0-{revision.name.rpartition('/')[2]}-{secrets.token_hex(6)}"
        slot = Slot(id, service, revision.name, revision.max_instance_request_concurrency)
        slots[id] = slot
        slot.started = asyncio.get_running_loop().create_task(self._start(slot, record))
        slot.started.add_done_callback(lambda task: self._started(slot, task))
        return slot

    # --- an instance's life

    async def _start(self, slot: Slot, record: RevisionRecord) -> Instance:
        container = record.revision.containers[0]
        instance = None
        try:
            self._records.put_instance(slot.id, slot.revision, 0)
            spec = await self._launch.spec(slot.id, record)
            port = self._instances.port_for(spec)
            self._records.put_instance(slot.id, slot.revision, port)
            instance = await self._instances.start(spec, port)
            if slot.stopping is not None:
                raise Unavailable(503, "Service Unavailable")
            slot.watching = asyncio.get_running_loop().create_task(self._watch(slot, instance))
            limit = min(template.startup_seconds(container), self._options.startup_probe_seconds)
            if await self._instances.probe(instance, limit):
                return instance
            text = (
                "The user-provided container failed to start and listen on the port defined provided by the "
                f"PORT={instance.port} environment variable within the allocated timeout. This can happen when the "
                "container port is misconfigured or if the timeout is too short. The health check timeout can be "
                "extended. Logs for this revision might contain more information."
            )
            raise Unavailable(503, text)
        except (InstanceFailed, VolumeMissingError) as error:
            raise Unavailable(503, f"The user-provided container failed to start: {error}") from error
        except ServiceError as error:
            raise Unavailable(503, error.message) from error

    def _started(self, slot: Slot, task: asyncio.Task[Instance]) -> None:
        if task.cancelled():
            return
        slot.started = None
        if task.exception() is None:
            slot.instance = task.result()
            if not slot.active and slot.stopping is None:
                self._stop(slot) if slot.leaving else self._await_idle(slot)
            return
        slot.leaving = True
        self._stop(slot)

    async def _watch(self, slot: Slot, instance: Instance) -> None:
        """Clears up after an instance that has ended, by itself or not."""
        await asyncio.wait({instance.ended})
        if slot.stopping is None and not instance.ended.cancelled():
            slot.leaving = True
            self._stop(slot)

    def _await_idle(self, slot: Slot) -> None:
        seconds = self._options.idle_instance_seconds
        slot.idle = asyncio.get_running_loop().call_later(seconds, self._stop, slot)

    def _stop(self, slot: Slot) -> None:
        if slot.stopping is None:
            slot.leaving = True
            if slot.idle is not None:
                slot.idle.cancel()
            slot.stopping = asyncio.get_running_loop().create_task(self._end(slot))

    async def _end(self, slot: Slot) -> None:
        try:
            while slot.started is not None:  # one that is just being started ends its start, too
                await self._instances.stop(slot.id, self._options.stop_grace)
                await asyncio.wait({slot.started}, timeout=0.1)
            await self._instances.stop(slot.id, self._options.stop_grace)
            await self._clear(slot.id)
        except Exception:
            _log.exception("instance %s could not be cleared", slot.id)
        slots = self._slots.get(slot.service, {})
        slots.pop(slot.id, None)
        if not slots:
            self._slots.pop(slot.service, None)

    async def _clear(self, id: str) -> None:
        await self._launch.clear(id)
        await self._instances.clear(id)
        self._records.forget_instance(id)

    # --- services change and go

    def drain(self, service: str, serving: set[str]) -> None:
        """Instances of other revisions get no more requests, and end with those they have."""
        for slot in list(self._slots.get(service, {}).values()):
            if slot.revision not in serving and not slot.leaving:
                slot.leaving = True
                if not slot.active and slot.started is None:
                    self._stop(slot)

    def services(self) -> list[str]:
        """The services that have instances."""
        return list(self._slots)

    def end(self, service: str) -> None:
        """Stops all instances of a service at once, whatever they are doing."""
        for slot in list(self._slots.get(service, {}).values()):
            self._stop(slot)

    # --- this process comes and goes

    async def resume(self) -> None:
        """Takes up instances that an earlier process left running; clears up after others."""
        known = await self._instances.known("0-")
        for id, revision, port in self._records.instances():
            running = known.pop(id, False)
            record = self._records.revision(revision)
            instance = await self._instances.adopt(id, port) if running and port and record is not None else None
            if instance is None or record is None:
                await self._clear(id)
                continue
            service = revision.partition("/revisions/")[0]
            concurrency = record.revision.max_instance_request_concurrency
            slot = Slot(id, service, revision, concurrency, instance=instance)
            slot.watching = asyncio.get_running_loop().create_task(self._watch(slot, instance))
            self._slots.setdefault(service, {})[id] = slot
            self._await_idle(slot)
        for id in known:
            await self._instances.clear(id)

    async def detach(self) -> None:
        """Stops watching; the instances go on."""
        tasks: list[asyncio.Task[Any]] = []
        for slots in self._slots.values():
            for slot in slots.values():
                if slot.idle is not None:
                    slot.idle.cancel()
                tasks += [task for task in (slot.watching, slot.started, slot.stopping) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._slots.clear()
