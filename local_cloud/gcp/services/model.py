"""Services: created, updated and deleted; each change of the template becomes a revision."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, NoReturn

from local_cloud.errors import ServiceError, not_found
from local_cloud.gcp.functions.built import is_built
from local_cloud.gcp.operations import Operations
from local_cloud.gcp.run import conditions, outcomes
from local_cloud.gcp.run import names as run_names
from local_cloud.gcp.services import masks, names, traffic
from local_cloud.gcp.services.changes import INPUT, PLAIN, Changes
from local_cloud.gcp.services.pool import InstancePool
from local_cloud.gcp.services.records import RevisionRecord, ServiceMessage, ServiceRecord, ServiceRecords
from local_cloud.images import Images
from local_cloud.options import Options
from local_cloud.quotas import Rate

_log = logging.getLogger(__name__)
_KEPT_DAYS = 30
_IMPORT_LIMIT = 30.0
"""Seconds that a change waits for the image's import, with no delay set, to answer with its operation done."""


class Services:
    """All Cloud Run services of the local cloud."""

    def __init__(
        self,
        records: ServiceRecords,
        operations: Operations,
        images: Images,
        pool: InstancePool,
        project: str,
        options: Options,
        writes: Rate,
    ) -> None:
        self._records = records
        self._operations = operations
        self._images = images
        self._pool = pool
        self._project = project
        self._options = options
        self._writes = writes
        self._changes = Changes(records, images, options)
        self._working: set[asyncio.Task[None]] = set()

    # --- CreateService, UpdateService

    async def create(self, parent: str, service_id: str, wanted: Any, *, dry: bool) -> Any:
        """Services.CreateService; returns the operation."""
        location = str(run_names.location(parent, self._project))
        self._writes.take()
        names.check_service_id(service_id)
        service = self._changes.fresh(f"{location}/services/{service_id}", wanted)
        return await self._accept(service, wanted, dry=dry)

    async def update(self, wanted: Any, mask: Any, *, allow_missing: bool, dry: bool) -> Any:
        """Services.UpdateService: the masked fields, or the whole service, are replaced; returns the operation."""
        location, service_id = names.service(wanted.name, self._project)
        record = self._records.service(wanted.name)
        if record is None and allow_missing:
            return await self.create(location, service_id, wanted, dry=dry)
        if record is None:
            self._missing(wanted.name)
        self._writes.take()
        outcomes.check_etag(record.service, wanted.etag)
        if record.deleting:
            raise ServiceError("FAILED_PRECONDITION", f"Service '{service_id}' is being deleted.")
        if mask.paths:
            wanted = masks.merged(record.service, wanted, mask, (*INPUT, *PLAIN, "launch_stage"))
        self._changes.check(record.service, wanted)
        return await self._accept(record.service, wanted, dry=dry)

    async def _accept(self, service: Any, wanted: Any, *, dry: bool) -> Any:
        record, revision = self._changes.prepare(service, wanted)
        location = service.name.partition("/services/")[0]
        if dry:
            return outcomes.done_operation(location, record.service)
        with self._records.state.transaction():
            operation = self._operations.create(location, record.service)
            record.operation = operation.name
            self.put(record, revision)
        working = self.work(self._reconcile(record))
        if not self._options.create_delay and not self._operations.delayed(operation.name):
            await asyncio.wait({working}, timeout=_IMPORT_LIMIT)
            return self._operations.get(operation.name)
        return operation

    def put(self, record: ServiceRecord, revision: RevisionRecord | None = None) -> None:
        """Writes a service and its new revision."""
        name = record.service.name
        self._records.put_service(record, names.host(name), names.numbered_host(name))
        if revision is not None:
            self._records.put_revision(name, revision)

    # --- reconciliation

    def work(self, work: Any) -> asyncio.Task[None]:
        """Does something beside the calls, until it ends or the local cloud does."""
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return task

    async def _reconcile(self, record: ServiceRecord) -> None:
        if self._options.create_delay:
            await asyncio.sleep(self._options.create_delay)
        error: ServiceError | None = None
        try:
            await self._operations.begin(record.operation)
            await self.ready(record)
        except ServiceError as refusal:
            error = refusal
        except Exception:
            _log.exception("service %s could not be reconciled", record.service.name)
            error = ServiceError("INTERNAL", "Internal error encountered.")
        operation, name = record.operation, record.service.name
        with self._records.state.transaction():
            current = self._records.service(name)
            if current is None or current.operation != operation:
                self._operations.finish(
                    operation, error=ServiceError("ABORTED", "Conflict: the service was changed meanwhile.")
                )
                return
            self.settle(record, error)
            record.operation = ""
            self.put(record)
            self._operations.finish(operation, record.service, error)
        self._pool.drain(name, traffic.serving(record.service))

    async def ready(self, record: ServiceRecord) -> None:
        """Imports the image of the service's newest revision; raises ServiceError."""
        name = record.service.latest_created_revision
        revision = self._records.revision(name)
        if revision is None:
            raise ServiceError("NOT_FOUND", f"Revision '{name.rpartition('/')[2]}' was deleted.")
        image = revision.revision.containers[0].image
        if not is_built(image):
            revision.repository, revision.digest = self._images.resolve(image)
            await self._images.load(image, revision.repository, revision.digest)
        message = revision.revision
        message.reconciling, message.observed_generation = False, message.generation
        for kind in ("Ready", "Active", "ContainerHealthy", "ContainerReady", "ResourcesAvailable"):
            conditions.put(message, kind, conditions.SUCCEEDED)
        self._records.put_revision(record.service.name, revision)

    def settle(self, record: ServiceRecord, error: ServiceError | None) -> None:
        """Writes how a change ended into the service and, when it failed, into its newest revision."""
        service = record.service
        service.reconciling = False
        if error is None:
            service.observed_generation = service.generation
            service.latest_ready_revision = service.latest_created_revision
            traffic.settle(service)
            conditions.fill(service.terminal_condition, "Ready", conditions.SUCCEEDED)
            for kind in ("RoutesReady", "ConfigurationsReady"):
                conditions.put(service, kind, conditions.SUCCEEDED)
            return
        revision_id = service.latest_created_revision.rpartition("/")[2]
        text = f"Revision '{revision_id}' is not ready and cannot serve traffic. {error.message}"
        reason = conditions.CONTAINER_MISSING if error.code == "NOT_FOUND" else conditions.INTERNAL
        conditions.fill(service.terminal_condition, "Ready", conditions.FAILED, text, reason=reason)
        conditions.put(service, "RoutesReady", conditions.SUCCEEDED)
        conditions.put(service, "ConfigurationsReady", conditions.FAILED, text, reason=reason)
        revision = self._records.revision(service.latest_created_revision)
        if revision is not None:
            revision.revision.reconciling = False
            conditions.put(revision.revision, "Ready", conditions.FAILED, error.message, reason=reason)
            self._records.put_revision(service.name, revision)

    # --- for Cloud Functions

    def check_quota(self, location: str) -> None:
        """Raises ServiceError RESOURCE_EXHAUSTED when a region is full of services."""
        self._changes.check_quota(location)

    def exists(self, name: str) -> bool:
        """Whether there is a service of a full name."""
        return self._records.service(name) is not None

    def generation(self, name: str) -> int:
        """A service's generation; 0 when there is none."""
        record = self._records.service(name)
        return int(record.service.generation) if record is not None else 0

    async def deploy(self, wanted: Any) -> Any:
        """Makes a service what a function was built into, whatever it is now; returns it. Raises ServiceError."""
        known = self._records.service(wanted.name)
        if known is None:
            service = self._changes.fresh(wanted.name, wanted)
        else:
            service, wanted.invoker_iam_disabled = known.service, known.service.invoker_iam_disabled
            self._changes.check(service, wanted)
        record, revision = self._changes.prepare(service, wanted)
        with self._records.state.transaction():
            self.put(record, revision)
        await self.ready(record)
        with self._records.state.transaction():
            self.settle(record, None)
            self.put(record)
        self._pool.drain(wanted.name, traffic.serving(record.service))
        return record.service

    def remove(self, name: str) -> None:
        """Deletes the service of a function that is deleted, if it is still there."""
        record = self._records.service(name)
        if record is not None:
            self.forget(record.service)

    # --- the rest

    def get(self, name: str) -> ServiceRecord:
        """Services.GetService."""
        names.service(name, self._project)
        record = self._records.service(name)
        if record is None:
            self._missing(name)
        return record

    def _missing(self, name: str) -> NoReturn:
        _, project, _, region, _, service_id = name.split("/")
        not_found(
            f"Resource '{service_id}' of kind 'SERVICE' in region '{region}' in project '{project}' does not exist."
        )

    def get_revision(self, name: str) -> RevisionRecord:
        """Revisions.GetRevision."""
        service, revision_id = names.revision(name, self._project)
        record = self._records.revision(name)
        if record is None:
            _, project, _, region, _, _ = service.split("/")
            not_found(
                f"Resource '{revision_id}' of kind 'REVISION' in region '{region}' in project '{project}' "
                "does not exist."
            )
        return record

    def delete_revision(self, name: str, etag: str, *, dry: bool) -> Any:
        """Revisions.DeleteRevision: refused while the revision may get requests; returns the operation."""
        self._writes.take()
        record = self.get_revision(name)
        outcomes.check_etag(record.revision, etag)
        owner = self.get(name.partition("/revisions/")[0]).service
        if name in traffic.serving(owner) or name in (owner.latest_created_revision, owner.latest_ready_revision):
            raise ServiceError(
                "FAILED_PRECONDITION",
                f"Revision '{name.rpartition('/')[2]}' cannot be deleted: it is the latest or gets traffic.",
            )
        revision = outcomes.deleted(record.revision)
        if not dry:
            self._records.delete_revision(name)
            self._pool.drain(owner.name, traffic.serving(owner))
        return outcomes.done_operation(name.partition("/services/")[0], revision)

    async def delete(self, name: str, etag: str, *, dry: bool) -> Any:
        """Services.DeleteService: its instances are stopped at once; returns the operation."""
        location, _ = names.service(name, self._project)
        self._writes.take()
        record = self.get(name)
        outcomes.check_etag(record.service, etag)
        if dry:
            return outcomes.done_operation(location, outcomes.deleted(record.service))
        with self._records.state.transaction():
            operation = self._operations.create(location, record.service)
            replaced, record.operation = record.operation, operation.name
            record.deleting = True
            self.put(record)
            if replaced:
                conflict = ServiceError("ABORTED", "Conflict: the service was deleted meanwhile.")
                self._operations.finish(replaced, error=conflict)
        working = self.work(self._delete(record))
        if not self._operations.delayed(operation.name):
            await asyncio.wait({working}, timeout=_IMPORT_LIMIT)
            return self._operations.get(operation.name)
        return operation

    async def _delete(self, record: ServiceRecord) -> None:
        operation, error = record.operation, None
        try:
            await self._operations.begin(operation)
        except ServiceError as refusal:
            error = refusal
        with self._records.state.transaction():
            current = self._records.service(record.service.name)
            if error is not None:
                if current is not None and current.operation == operation:
                    current.operation, current.deleting = "", False
                    self.put(current)
                self._operations.finish(operation, error=error)
                return
            message = self.forget(record.service)
            self._operations.finish(operation, message)

    def forget(self, service: Any) -> Any:
        """Deletes a service for good and stops its instances; returns its last message."""
        message = outcomes.deleted(service)
        message.expire_time.FromSeconds(int(time.time()) + _KEPT_DAYS * 86400)
        self._records.delete_service(service.name)
        self._records.state.after_commit(lambda: self._pool.end(service.name))
        return message

    def page(self, parent: str, size: int, token: str) -> tuple[list[Any], str]:
        """Services.ListServices."""
        location = str(run_names.location(parent, self._project))
        bodies, following = self._records.page("run_services", "parent", location, size, token)
        return [ServiceMessage.FromString(body) for body in bodies], following

    def resume(self) -> None:
        """Takes up changes that a restart interrupted."""
        for record in self._records.unfinished():
            self.work(self._delete(record) if record.deleting else self._reconcile(record))
        for name in self._pool.services():
            known = self._records.service(name)
            self._pool.drain(name, traffic.serving(known.service) if known is not None else set())

    async def detach(self) -> None:
        """Stops reconciling; `resume` takes it up."""
        tasks = list(self._working)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
