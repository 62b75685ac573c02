"""The SDKs' asynchronous clients, built on first use in the running loop.

The async clients speak gRPC only. For the local cloud they get a plain channel: `client_options.api_endpoint`
would insist on TLS. Importing the SDKs costs half a second of CPU: never at import of this module, always in a thread.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import grpc.aio
    from google.cloud.functions_v2 import FunctionServiceAsyncClient
    from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2AsyncClient
    from google.cloud.run_v2 import ExecutionsAsyncClient, JobsAsyncClient, ServicesAsyncClient, TasksAsyncClient

_MODULES = (
    "grpc.aio",
    "google.auth",
    "google.api_core.exceptions",
    "google.cloud.run_v2",
    "google.cloud.run_v2.services.jobs.transports.grpc_asyncio",
    "google.cloud.logging_v2.services.logging_service_v2",
)
_FUNCTIONS_MODULE = "google.cloud.functions_v2"
"""Apart: an endpoint that runs no functions is spared its memory."""
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # An HTTP proxy in the environment is not the way to the local cloud.
    ("grpc.enable_http_proxy", 0),
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the cloud's APIs are. Empty fields mean Google's own."""

    grpc: str = ""
    """`host:port` of a plain gRPC listener (the local cloud)."""
    storage: str = ""
    """`http://host:port` of the object storage's JSON API, and of whatever else the local cloud serves over HTTP."""

    @classmethod
    def of(cls, url: str, grpc_address: str = "", storage_url: str = "") -> Endpoint:
        """One URL for all services, with exceptions for each protocol."""
        address = grpc_address
        if not address and url:
            parts = urlsplit(url if "//" in url else f"//{url}")
            address = parts.netloc
        return cls(grpc=address, storage=storage_url or (url.rstrip("/") if url else ""))


class Clients:
    """One set of clients per process and loop; cheap to construct, closed once."""

    def __init__(self, endpoint: Endpoint = Endpoint()) -> None:
        self._endpoint = endpoint
        self._built: dict[str, Any] = {}
        self._channel: grpc.aio.Channel | None = None
        self._credentials: Any = None
        self._ready: asyncio.Task[None] | None = None

    @property
    def endpoint(self) -> Endpoint:
        """Where the clients call."""
        return self._endpoint

    async def warm(self) -> None:
        """Imports the SDKs and opens the channel, so that the first `docker run` does not wait for it."""
        for client in (self.jobs, self.executions, self.tasks, self.logging):
            await cast(Callable[[], Awaitable[Any]], client)()
        from google.cloud import run_v2

        # proto-plus makes its marshalling tables on the first use of each message class.
        override = {"env": [{"name": "a", "value": "b"}]}
        run_v2.RunJobRequest({"name": "x", "overrides": {"container_overrides": [override]}})
        if self._channel is not None:
            try:
                async with asyncio.timeout(5):
                    await self._channel.channel_ready()
            except TimeoutError:
                return

    async def jobs(self) -> JobsAsyncClient:
        """Cloud Run Admin v2: jobs."""
        found = self._built.get("jobs")
        return cast("JobsAsyncClient", found if found is not None else await self._build("jobs"))

    async def executions(self) -> ExecutionsAsyncClient:
        """Cloud Run Admin v2: executions."""
        found = self._built.get("executions")
        return cast("ExecutionsAsyncClient", found if found is not None else await self._build("executions"))

    async def tasks(self) -> TasksAsyncClient:
        """Cloud Run Admin v2: tasks."""
        found = self._built.get("tasks")
        return cast("TasksAsyncClient", found if found is not None else await self._build("tasks"))

    async def services(self) -> ServicesAsyncClient:
        """Cloud Run Admin v2: services."""
        found = self._built.get("services")
        return cast("ServicesAsyncClient", found if found is not None else await self._build("services"))

    async def functions(self) -> FunctionServiceAsyncClient:
        """Cloud Functions v2."""
        found = self._built.get("functions")
        return cast("FunctionServiceAsyncClient", found if found is not None else await self._build("functions"))

    async def logging(self) -> LoggingServiceV2AsyncClient:
        """Cloud Logging v2."""
        found = self._built.get("logging")
        return cast("LoggingServiceV2AsyncClient", found if found is not None else await self._build("logging"))

    async def close(self) -> None:
        """Closes the channels; running calls are cancelled."""
        if self._ready is not None and not self._ready.done():
            self._ready.cancel()
        built, self._built = self._built, {}
        for client in built.values():
            await client.transport.close()
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    async def _build(self, name: str) -> Any:
        if self._ready is None or (self._ready.done() and self._ready.exception() is not None):
            self._ready = asyncio.create_task(self._prepare())
        await asyncio.shield(self._ready)
        if name == "functions":
            await asyncio.to_thread(importlib.import_module, _FUNCTIONS_MODULE)
        if name not in self._built:  # another caller may have been quicker
            client, transport = _client_classes(name)
            if self._channel is not None:
                self._built[name] = client(transport=transport(channel=self._channel))
            else:
                self._built[name] = client(credentials=self._credentials)
        return self._built[name]

    async def _prepare(self) -> None:
        await asyncio.to_thread(_import_all)
        if self._endpoint.grpc:
            import grpc.aio

            self._channel = grpc.aio.insecure_channel(self._endpoint.grpc, options=_CHANNEL_OPTIONS)
        else:
            self._credentials = await asyncio.to_thread(_default_credentials)


def _import_all() -> None:
    for module in _MODULES:
        importlib.import_module(module)


def _default_credentials() -> Any:
    import google.auth

    return google.auth.default(scopes=[_SCOPE])[0]


def _client_classes(name: str) -> tuple[Any, Any]:
    if name == "logging":
        from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2AsyncClient as Logging
        from google.cloud.logging_v2.services.logging_service_v2.transports import (
            LoggingServiceV2GrpcAsyncIOTransport as LoggingTransport,
        )

        return Logging, LoggingTransport
    if name == "functions":
        from google.cloud.functions_v2 import FunctionServiceAsyncClient as Functions
        from google.cloud.functions_v2.services.function_service.transports import (
            FunctionServiceGrpcAsyncIOTransport as FunctionsTransport,
        )

        return Functions, FunctionsTransport
    from google.cloud import run_v2
    from google.cloud.run_v2.services.executions.transports.grpc_asyncio import ExecutionsGrpcAsyncIOTransport
    from google.cloud.run_v2.services.jobs.transports.grpc_asyncio import JobsGrpcAsyncIOTransport
    from google.cloud.run_v2.services.services.transports.grpc_asyncio import ServicesGrpcAsyncIOTransport
    from google.cloud.run_v2.services.tasks.transports.grpc_asyncio import TasksGrpcAsyncIOTransport

    return {
        "jobs": (run_v2.JobsAsyncClient, JobsGrpcAsyncIOTransport),
        "executions": (run_v2.ExecutionsAsyncClient, ExecutionsGrpcAsyncIOTransport),
        "tasks": (run_v2.TasksAsyncClient, TasksGrpcAsyncIOTransport),
        "services": (run_v2.ServicesAsyncClient, ServicesGrpcAsyncIOTransport),
    }[name]
