"""Puts the Google stand-ins together: state, models, faces.

Imported only when a local cloud starts, because of the SDKs below it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from local_cloud.calls import Calls
from local_cloud.gcp import operations
from local_cloud.gcp.artifact_registry.auth import RegistryAuth
from local_cloud.gcp.artifact_registry.model import Registry
from local_cloud.gcp.artifact_registry.service import RegistryFace
from local_cloud.gcp.functions.records import FunctionRecords
from local_cloud.gcp.functions.uploads import SourceUploads
from local_cloud.gcp.grpc_face import LazyService
from local_cloud.gcp.logging.model import Logs
from local_cloud.gcp.metadata.server import MetadataServer
from local_cloud.gcp.metadata.tokens import Tokens
from local_cloud.gcp.run.attempts import Attempts, ContainerRuntime
from local_cloud.gcp.run.executions import Executions
from local_cloud.gcp.run.model import Jobs
from local_cloud.gcp.run.records import Records
from local_cloud.gcp.run.service import RunFace
from local_cloud.gcp.run.volumes import Volumes
from local_cloud.gcp.services.face import ServicesFace
from local_cloud.gcp.services.front_end import ServiceFrontEnd
from local_cloud.gcp.services.launch import Launch
from local_cloud.gcp.services.model import Services
from local_cloud.gcp.services.pool import InstancePool
from local_cloud.gcp.services.records import ServiceRecords
from local_cloud.gcp.storage.model import Buckets
from local_cloud.gcp.storage.service import StorageFace
from local_cloud.gcp.storage.uploads import Uploads
from local_cloud.images import Images, Unpacker
from local_cloud.instances import Instances
from local_cloud.options import Options
from local_cloud.state import State

if TYPE_CHECKING:
    from local_cloud.gcp.functions.model import Functions

_LOGGING = "google.logging.v2.LoggingServiceV2"
_FUNCTIONS = "google.cloud.functions.v2.FunctionService"


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
        instances: Instances,
        region: str = "us-central1",
    ) -> None:
        self._project, self._options, self._calls, self._layers = project, options, calls, layers
        self._instances = instances
        self._tidying: asyncio.Task[None] | None = None
        self._state = State(data_dir / "cloud.sqlite")
        self._operations = operations.Operations(self._state)
        self._registry = Registry(self._state, data_dir / "registry")
        self._buckets = Buckets(self._state, data_dir / "storage")
        self._uploads = Uploads(data_dir / "storage-uploads")
        self._logs = Logs(self._state, options.log_retention_days * 86400)
        hosts = frozenset({f"127.0.0.1:{http_port}", f"localhost:{http_port}", *options.registry_hosts})
        self.images = Images(self._registry, layers, hosts)
        volumes = Volumes(self._buckets, data_dir / "volumes")
        attempts = Attempts(runtime, volumes, data_dir / "logs", options.stop_grace, options.network)
        self._records = Records(self._state)
        self._executions = Executions(self._records, self._operations, self.images, attempts, self._logs, options)
        self._jobs = Jobs(self._records, self._operations, self.images, self._executions, project, options)
        self._serve(data_dir, region, http_port, volumes)

    def _serve(self, data_dir: Path, region: str, http_port: int, volumes: Volumes) -> None:
        """Sets up what answers requests: services, functions, and the tokens that callers show."""
        options, project = self._options, self._project
        self._service_records = ServiceRecords(self._state)
        launch = Launch(self.images, volumes, self._logs, data_dir / "logs")
        self._pool = InstancePool(self._service_records, self._instances, launch, options)
        self._services = Services(
            self._service_records,
            self._operations,
            self.images,
            self._pool,
            project,
            options,
            self._jobs.writes,
        )
        self._function_records = FunctionRecords(self._state)
        self._functions: Functions | None = None
        key, url = data_dir / "keys" / "uploads", f"http://127.0.0.1:{http_port}"
        self._sources = SourceUploads(self._buckets, self._uploads, self._calls, key, url)
        self._tokens = Tokens(data_dir / "keys" / "tokens.pem")
        self._metadata = MetadataServer(self._tokens, self._calls, project, region)

    def grpc_services(self) -> list[grpc.GenericRpcHandler[Any, Any]]:
        """The gRPC faces."""
        face = RunFace(self._jobs, self._executions, self._records, self._calls, self._project)
        services = ServicesFace(self._services, self._service_records, self._calls, self._project)
        loaded = {
            **face.services(),
            **services.services(),
            operations.SERVICE: operations.handlers(self._operations, self._calls),
        }
        found: list[grpc.GenericRpcHandler[Any, Any]] = [
            grpc.method_handlers_generic_handler(service, methods) for service, methods in loaded.items()
        ]
        lazy = [LazyService(_LOGGING, self._load_logging()), LazyService(_FUNCTIONS, self._load_functions())]
        return [*found, *lazy]

    def _load_logging(self) -> Callable[[], dict[str, Any]]:
        def load() -> dict[str, Any]:
            from local_cloud.gcp.logging.service import LoggingFace  # some 0.4 s of CPU that a start should not pay

            return LoggingFace(self._logs, self._calls, self._project, self._options).methods()

        return load

    def _load_functions(self) -> Callable[[], dict[str, Any]]:
        def load() -> dict[str, Any]:
            from local_cloud.gcp.functions.face import FunctionsFace

            return FunctionsFace(self._functions_model(), self._calls).methods()

        return load

    def _functions_model(self) -> Functions:
        if self._functions is None:
            from local_cloud.gcp.functions.model import Functions  # with its SDK: 0.4 s of CPU, too

            self._functions = Functions(
                self._function_records,
                self._operations,
                self._services,
                self._buckets,
                self._sources,
                self._project,
                self._options,
            )
        return self._functions

    def http_routes(self) -> list[BaseRoute]:
        """The HTTP faces at the local cloud's own address: registry, storage, metadata server."""
        auth = RegistryAuth(self._options.registry_users, self._options.registry_auth)
        registry = RegistryFace(self._registry, auth, self._calls)
        storage = StorageFace(self._buckets, self._uploads, self._calls)
        return [*registry.routes(), *storage.routes(), self._sources.route(), *self._metadata.routes()]

    def hosts(self) -> dict[str, ASGIApp]:
        """The apps that answer under host names of their own: suffix of the name → app."""
        has_service = self._function_records.has_service
        front_end = ServiceFrontEnd(
            self._service_records, self._pool, self._tokens, self._calls, has_service, self._project
        )
        return {".run.app": front_end, ".cloudfunctions.net": front_end}

    def resources(self) -> dict[str, int]:
        """How many there are of each kind."""
        return {
            "run.jobs": self._records.count_jobs("*"),
            "run.executions.running": self._records.count_running("*"),
            "run.services": self._service_records.count_services(),
            "run.instances": self._pool.count(),
            "functions": self._function_records.count(),
        }

    async def resume(self) -> None:
        """Takes up what an earlier process left."""
        await self._executions.resume()
        self._jobs.resume()
        await self._pool.resume()
        self._services.resume()
        if self._function_records.unfinished():
            self._functions_model().resume()
        self._logs.start()
        linked = self._registry.collect()
        running = any((await self._instances.known("")).values())
        if not running and not self._records.running_executions():
            self._tidying = asyncio.get_running_loop().create_task(self._layers.remove_unused(linked))

    async def detach(self) -> None:
        """Stops working; executions go on."""
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.gather(self._tidying, return_exceptions=True)
        if self._functions is not None:
            await self._functions.detach()
        await self._services.detach()
        await self._pool.detach()
        await self._jobs.detach()
        await self._executions.detach()
        await self._logs.stop()

    def close(self) -> None:
        """Closes the state file."""
        self._state.close()
