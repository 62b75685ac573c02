"""Services: created, updated and deleted; each change of the template becomes a revision."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any, NoReturn

from google.api import launch_stage_pb2
from google.cloud import run_v2

from local_cloud.errors import ServiceError, invalid, not_found, unserved
from local_cloud.gcp.functions.built import is_built
from local_cloud.gcp.operations import Operations
from local_cloud.gcp.run import conditions, labels, outcomes
from local_cloud.gcp.run import names as run_names
from local_cloud.gcp.run.template import CREATOR, new_etag
from local_cloud.gcp.services import masks, names, template, traffic
from local_cloud.gcp.services.pool import InstancePool
from local_cloud.gcp.services.records import RevisionRecord, ServiceMessage, ServiceRecord, ServiceRecords
from local_cloud.images import Images
from local_cloud.options import Options
from local_cloud.quotas import Rate

_IMPORT_LIMIT = 30.0
"""Seconds that a change waits for the image's import, with no delay set, to answer with its operation done."""
_INPUT = ("labels", "annotations", "template", "traffic", "custom_audiences", "scaling", "binary_authorization")
_PLAIN = ("description", "client", "client_version", "ingress", "invoker_iam_disabled", "default_uri_disabled")
_ALL = int(run_v2.IngressTraffic.INGRESS_TRAFFIC_ALL)
_KEPT_DAYS = 30


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
        self._working: set[asyncio.Task[None]] = set()

    # --- CreateService, UpdateService

    async def create(self, parent: str, service_id: str, wanted: Any, *, dry: bool) -> Any:
        """Services.CreateService; returns the operation."""
        location = str(run_names.location(parent, self._project))
        self._writes.take()
        names.check_service_id(service_id)
        service = self.fresh(f"{location}/services/{service_id}", wanted)
        return await self._accept(service, wanted, dry=dry)

    def fresh(self, name: str, wanted: Any) -> Any:
        """A new service's message, its contents checked but not yet in it; raises ServiceError."""
        location, _, service_id = name.partition("/services/")
        service = ServiceMessage(name=name, uid=str(uuid.uuid4()), creator=CREATOR)
        self._check(service, wanted)
        if self._records.service(name) is not None:
            raise ServiceError("ALREADY_EXISTS", f"Resource '{service_id}' already exists.")
        self.check_quota(location)
        service.uri = f"https://{names.host(name)}"
        service.urls.extend([f"https://{names.numbered_host(name)}", service.uri])
        service.create_time.FromNanoseconds(time.time_ns())
        return service

    def check_quota(self, location: str) -> None:
        """Raises ServiceError RESOURCE_EXHAUSTED when a region is full of services."""
        limit = self._options.quotas.services
        if limit is not None and self._records.count_services(location) >= limit:
            raise ServiceError(
                "RESOURCE_EXHAUSTED",
                f"Quota exceeded for services per region: the limit is {limit} services in a project and region.",
            )

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
            wanted = masks.merged(record.service, wanted, mask, (*_INPUT, *_PLAIN, "launch_stage"))
        self._check(record.service, wanted)
        return await self._accept(record.service, wanted, dry=dry)

    def _check(self, service: Any, wanted: Any) -> None:
        labels.check_labels(wanted.labels, "service.labels")
        labels.check_annotations(wanted.annotations, "service.annotations")
        if len(wanted.description) > 512:
            invalid("service.description: must be at most 512 characters long.")
        if wanted.iap_enabled or wanted.HasField("multi_region_settings") or wanted.HasField("build_config"):
            unserved("service.iap_enabled, multi_region_settings and build_config.")
        if wanted.scaling.min_instance_count or wanted.scaling.HasField("manual_instance_count"):
            unserved("service.scaling: instances are started by requests; set template.scaling.max_instance_count.")
        template.check(wanted.template, self._images, self._options.nfs_servers)
        if wanted.template.revision:
            names.check_revision_id(wanted.template.revision, service.name.rpartition("/")[2])
        named = ServiceMessage(name=service.name, template=wanted.template, traffic=wanted.traffic)
        traffic.check(named, self._records)

    async def _accept(self, service: Any, wanted: Any, *, dry: bool) -> Any:
        record, revision = self.prepare(service, wanted)
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

    def prepare(self, service: Any, wanted: Any) -> tuple[ServiceRecord, RevisionRecord | None]:
        """A service with what is wanted of it, and its new revision, if any. Raises ServiceError ALREADY_EXISTS."""
        before = type(service)()
        before.CopyFrom(service)
        for field in _INPUT:
            service.ClearField(field)
            if _present(wanted, field):
                getattr(service, field).MergeFrom(getattr(wanted, field))
        for field in _PLAIN:
            setattr(service, field, getattr(wanted, field))
        service.ingress = service.ingress or _ALL
        service.launch_stage = wanted.launch_stage or launch_stage_pb2.GA
        template.complete(service.template)
        service.generation += 1
        service.last_modifier, service.etag, service.reconciling = CREATOR, new_etag(), True
        service.update_time.FromNanoseconds(time.time_ns())
        del service.conditions[:]
        conditions.fill(service.terminal_condition, "Ready", conditions.RECONCILING)
        return ServiceRecord(service), self._revision(service, before)

    def _revision(self, service: Any, before: Any) -> RevisionRecord | None:
        wanted, unchanged = service.template.revision, template.same(service.template, before.template)
        known = self._records.revision(f"{service.name}/revisions/{wanted}") if wanted else None
        if unchanged and before.latest_created_revision and (not wanted or wanted == before.template.revision):
            return None
        if known is not None:
            raise ServiceError(
                "ALREADY_EXISTS", f"Revision named '{wanted}' with different configuration already exists."
            )
        revision_id = wanted or names.new_revision_id(service.name.rpartition("/")[2], service.generation)
        revision = template.new_revision(service, revision_id)
        service.latest_created_revision = revision.name
        return RevisionRecord(revision, "", "")

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
            service = self.fresh(wanted.name, wanted)
        else:
            service, wanted.invoker_iam_disabled = known.service, known.service.invoker_iam_disabled
            self._check(service, wanted)
        record, revision = self.prepare(service, wanted)
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


def _present(message: Any, field: str) -> bool:
    descriptor = message.DESCRIPTOR.fields_by_name[field]
    return bool(getattr(message, field)) if descriptor.is_repeated else bool(message.HasField(field))
