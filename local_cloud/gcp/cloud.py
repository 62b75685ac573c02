"""Puts the Google stand-ins together: state, models, faces.

Imported only when a local cloud starts, because of the SDKs below it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from starlette.applications import Starlette

from local_cloud import admin
from local_cloud.calls import Calls
from local_cloud.gcp import operations
from local_cloud.gcp.artifact_registry.auth import RegistryAuth
from local_cloud.gcp.artifact_registry.model import Registry
from local_cloud.gcp.artifact_registry.service import RegistryFace
from local_cloud.gcp.grpc_face import LazyService
from local_cloud.gcp.logging.model import Logs
from local_cloud.gcp.run.attempts import Attempts, ContainerRuntime
from local_cloud.gcp.run.executions import Executions
from local_cloud.gcp.run.model import Jobs
from local_cloud.gcp.run.records import Records
from local_cloud.gcp.run.service import RunFace
from local_cloud.gcp.run.volumes import Volumes
from local_cloud.gcp.storage.model import Buckets
from local_cloud.gcp.storage.service import StorageFace
from local_cloud.gcp.storage.uploads import Uploads
from local_cloud.images import Images, Unpacker
from local_cloud.options import Options
from local_cloud.own_clients import OwnClients
from local_cloud.state import State

_LOGGING = "google.logging.v2.LoggingServiceV2"


class GoogleCloud:
    """The simulated services of one project, in one data directory."""

    def __init__(
        self,
        data_dir: Path,
        project: str,
        options: Options,
        runtime: ContainerRuntime,
        layers: Unpacker,
        http_port: int,
        calls: Calls,
    ) -> None:
        self._project, self._options, self._calls, self._layers = project, options, calls, layers
        self._tidying: asyncio.Task[None] | None = None
        self._state = State(data_dir / "cloud.sqlite")
        self._operations = operations.Operations(self._state)
        self._registry = Registry(self._state, data_dir / "registry")
        self._buckets = Buckets(self._state, data_dir / "storage")
        self._uploads = Uploads(data_dir / "storage-uploads")
        self._logs = Logs(self._state, options.log_retention_days * 86400)
        hosts = frozenset({f"127.0.0.1:{http_port}", f"localhost:{http_port}", *options.registry_hosts})
        images = Images(self._registry, layers, hosts)
        volumes = Volumes(self._buckets, data_dir / "volumes")
        attempts = Attempts(runtime, volumes, data_dir / "logs", options.stop_grace, options.network)
        self._records = Records(self._state)
        self._executions = Executions(self._records, self._operations, images, attempts, self._logs, options)
        self._jobs = Jobs(self._records, self._operations, images, self._executions, project, options)

    def grpc_services(self) -> list[grpc.GenericRpcHandler[Any, Any]]:
        """The gRPC faces."""
        face = RunFace(self._jobs, self._executions, self._records, self._calls, self._project)
        loaded = {**face.services(), operations.SERVICE: operations.handlers(self._operations, self._calls)}
        found: list[grpc.GenericRpcHandler[Any, Any]] = [
            grpc.method_handlers_generic_handler(service, methods) for service, methods in loaded.items()
        ]
        return [*found, LazyService(_LOGGING, self._load_logging())]

    def _load_logging(self) -> Callable[[], dict[str, Any]]:
        def load() -> dict[str, Any]:
            from local_cloud.gcp.logging.service import LoggingFace  # some 0.4 s of CPU that a start should not pay

            return LoggingFace(self._logs, self._calls, self._project, self._options).methods()

        return load

    def http_app(self) -> OwnClients:
        """The HTTP faces: registry, storage, admin."""
        auth = RegistryAuth(self._options.registry_users, self._options.registry_auth)
        registry = RegistryFace(self._registry, auth, self._calls)
        storage = StorageFace(self._buckets, self._uploads, self._calls)
        app = Starlette(routes=[*registry.routes(), *storage.routes(), *admin.routes(self._calls)])
        return OwnClients(app, self._options.registry_hosts)

    async def resume(self) -> None:
        """Takes up what an earlier process left."""
        await self._executions.resume()
        self._jobs.resume()
        self._logs.start()
        linked = self._registry.collect()
        if not self._records.running_executions():
            self._tidying = asyncio.get_running_loop().create_task(self._layers.remove_unused(linked))

    async def detach(self) -> None:
        """Stops working; executions go on."""
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.gather(self._tidying, return_exceptions=True)
        await self._jobs.detach()
        await self._executions.detach()
        await self._logs.stop()

    def close(self) -> None:
        """Closes the state file."""
        self._state.close()
