"""Functions: created, updated and deleted. Each is a Cloud Run service that Functions deploys and then leaves alone.

Facts: functions/docs/concepts/version-comparison and functions/docs/managing: a 2nd gen function can be managed with
the Cloud Run Admin API as well; what that changes stays until the function is deployed again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from google.protobuf import empty_pb2

from local_cloud.errors import ServiceError, not_found
from local_cloud.gcp.functions import build, checks, messages
from local_cloud.gcp.functions.messages import FunctionMessage
from local_cloud.gcp.functions.records import FunctionRecords, FunctionRow
from local_cloud.gcp.functions.uploads import SourceUploads
from local_cloud.gcp.operations import Operations
from local_cloud.gcp.run import names as run_names
from local_cloud.gcp.services import masks
from local_cloud.gcp.services.model import Services
from local_cloud.gcp.storage.model import Buckets
from local_cloud.options import PROJECT_NUMBER, Options
from local_cloud.quotas import Rate

_log = logging.getLogger(__name__)
_WAIT_LIMIT = 30.0
_WRITABLE = ("description", "build_config", "service_config", "event_trigger", "labels", "environment", "kms_key_name")
_Empty: Any = getattr(empty_pb2, "Empty")  # noqa: B009 - the class is made at run time


class Functions:
    """All functions of the local cloud."""

    def __init__(
        self,
        records: FunctionRecords,
        operations: Operations,
        services: Services,
        buckets: Buckets,
        uploads: SourceUploads,
        project: str,
        options: Options,
    ) -> None:
        self._records = records
        self._operations = operations
        self._services = services
        self._buckets = buckets
        self._uploads = uploads
        self._project = project
        self._options = options
        limit, metric = options.quotas.function_writes_per_minute, "API write requests"
        self._writes = Rate(limit, metric, "cloudfunctions.googleapis.com", PROJECT_NUMBER)
        self._working: set[asyncio.Task[None]] = set()

    # --- calls

    async def create(self, parent: str, function_id: str, wanted: Any) -> Any:
        """FunctionService.CreateFunction; returns the operation."""
        location = str(run_names.location(parent, self._project))
        self._writes.take()
        name = f"{location}/functions/{checks.function_id(function_id)}"
        checks.check(wanted)
        service = f"{location}/services/{function_id}"
        if self._records.function(name) is not None:
            raise ServiceError("ALREADY_EXISTS", f"Could not create Cloud Function '{name}': it already exists.")
        if self._services.exists(service):
            raise ServiceError(
                "ALREADY_EXISTS", f"Could not create Cloud Function '{name}': a Cloud Run service of its name exists."
            )
        self._services.check_quota(location)
        function = FunctionMessage()
        function.CopyFrom(wanted)
        function.name = name
        return await self._deploy(FunctionRow(name, service, "", "create", 0, b""), function)

    async def update(self, wanted: Any, mask: Any) -> Any:
        """FunctionService.UpdateFunction: built and deployed again, image and all; returns the operation."""
        row, present = self.get(wanted.name)
        self._writes.take()
        self._check_idle(row)
        function = masks.merged(present, wanted, mask if mask.paths else _everything(), _WRITABLE)
        checks.check(function)
        return await self._deploy(row, function)

    async def delete(self, name: str) -> Any:
        """FunctionService.DeleteFunction: its service goes with it; returns the operation."""
        row, function = self.get(name)
        self._writes.take()
        self._check_idle(row)
        function.state = messages.DELETING
        return await self._begin(row, function, "delete")

    def get(self, name: str) -> tuple[FunctionRow, Any]:
        """FunctionService.GetFunction."""
        checks.function_name(name, self._project)
        row = self._records.function(name)
        if row is None:
            not_found(f"Resource '{name}' was not found")
        return row, FunctionMessage.FromString(row.body)

    def page(self, parent: str, size: int, token: str) -> tuple[list[Any], str]:
        """FunctionService.ListFunctions."""
        location = str(run_names.location(parent, self._project))
        bodies, following = self._records.page(location, size, token)
        return [FunctionMessage.FromString(body) for body in bodies], following

    def upload_url(self, parent: str) -> tuple[str, str, str]:
        """FunctionService.GenerateUploadUrl: (URL, bucket, object)."""
        return self._uploads.create(run_names.location(parent, self._project).region)

    @staticmethod
    def _check_idle(row: FunctionRow) -> None:
        if row.operation:
            raise ServiceError("ABORTED", "unable to queue the operation")

    # --- work

    async def _deploy(self, row: FunctionRow, function: Any) -> Any:
        source = function.build_config.source.storage_source
        _, generation = build.find(self._buckets, source.bucket, source.object_, source.generation)
        messages.complete(function, generation)
        function.build_config.build = build.new_build(row.name.split("/")[3])
        row.version += 1
        return await self._begin(row, function, "create" if row.version == 1 else "update")

    async def _begin(self, row: FunctionRow, function: Any, verb: str) -> Any:
        about = messages.metadata(function, verb, function.build_config.build, done=False)
        with self._records.state.transaction():
            operation = self._operations.create(row.name.partition("/functions/")[0], about)
            row.operation, row.verb, row.body = operation.name, verb, function.SerializeToString()
            self._records.put(row)
        working = self._work(row, function)
        delayed = self._options.build_delay and verb != "delete"
        if not delayed and not self._operations.delayed(operation.name):
            await asyncio.wait({working}, timeout=_WAIT_LIMIT)
            return self._operations.get(operation.name)
        return operation

    def _work(self, row: FunctionRow, function: Any) -> asyncio.Task[None]:
        work = self._finish_delete(row, function) if row.verb == "delete" else self._finish_deploy(row, function)
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return task

    async def _finish_deploy(self, row: FunctionRow, function: Any) -> None:
        error: ServiceError | None = None
        try:
            if self._options.build_delay:
                await asyncio.sleep(self._options.build_delay)
            await self._operations.begin(row.operation)
            await self._build(function)
            generation = self._services.generation(row.service) + 1
            service = await self._services.deploy(messages.service_of(function, row.version, generation))
            function.service_config.revision = service.latest_ready_revision.rpartition("/")[2]
            function.state = messages.ACTIVE
        except ServiceError as refusal:
            error = refusal
        except Exception:
            _log.exception("function %s could not be deployed", row.name)
            error = ServiceError("INTERNAL", "An internal error has occurred.")
        if error is not None:
            messages.failed(function, error.message)
        self._end(row, function, error)

    async def _build(self, function: Any) -> None:
        config = function.build_config
        source = config.source.storage_source
        path, _ = build.find(self._buckets, source.bucket, source.object_, source.generation)
        await asyncio.to_thread(build.check, path, config.runtime, config.entry_point, config.build)

    async def _finish_delete(self, row: FunctionRow, function: Any) -> None:
        error: ServiceError | None = None
        try:
            await self._operations.begin(row.operation)
        except ServiceError as refusal:
            error = refusal
            function.state = messages.ACTIVE
        self._end(row, function, error)

    def _end(self, row: FunctionRow, function: Any, error: ServiceError | None) -> None:
        operation, row.operation = row.operation, ""
        about = messages.metadata(function, row.verb, function.build_config.build, done=True)
        with self._records.state.transaction():
            if row.verb == "delete" and error is None:
                self._services.remove(row.service)
                self._records.delete(row.name)
            else:
                row.body = function.SerializeToString()
                self._records.put(row)
            response = _Empty() if row.verb == "delete" else function
            self._operations.finish(operation, response, error, about)

    def resume(self) -> None:
        """Takes up operations that a restart interrupted."""
        for row in self._records.unfinished():
            self._work(row, FunctionMessage.FromString(row.body))

    async def detach(self) -> None:
        """Stops working; `resume` takes it up."""
        tasks = list(self._working)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _everything() -> Any:
    mask = masks.Mask()
    mask.paths.append("*")
    return mask
