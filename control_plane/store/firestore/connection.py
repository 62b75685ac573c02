"""Firestore's asynchronous client, built on first use in the running loop.

It is the SDK's own gRPC client (`FirestoreAsyncClient`), the layer beneath `AsyncClient`: that one has no `listen`,
retries on its own account, and turns bodies into maps. Importing it costs 0.4 s of CPU: never at import of this
module, always in a thread.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc.aio
    from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient

_MODULES = (
    "grpc.aio",
    "google.auth",
    "google.api_core.exceptions",
    "google.cloud.firestore_v1.types",
    "google.cloud.firestore_v1.services.firestore.transports.grpc_asyncio",
)
_HOST = "firestore.googleapis.com"
_SCOPES = ("https://www.googleapis.com/auth/datastore", "https://www.googleapis.com/auth/cloud-platform")
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A listen stream may be silent for long: a path that died has to be noticed.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


class Connection:
    """One channel to one database."""

    def __init__(self, project: str, database: str, emulator: str, credentials: Any) -> None:
        self.database = f"projects/{project}/databases/{database}"
        self._emulator = emulator or os.environ.get("FIRESTORE_EMULATOR_HOST", "")
        self._credentials = credentials
        self._channel: grpc.aio.Channel | None = None
        self._client: FirestoreAsyncClient | None = None
        self._building: asyncio.Task[FirestoreAsyncClient] | None = None
        # The SDKs name the database in a header, for routing.
        self.metadata = [("google-cloud-resource-prefix", self.database)]
        if self._emulator:
            self.metadata.append(("authorization", "Bearer owner"))

    @property
    def emulated(self) -> bool:
        """Whether the other end is Google's emulator."""
        return bool(self._emulator)

    async def client(self) -> FirestoreAsyncClient:
        """The client. Raises what finding the credentials raises."""
        if self._client is not None:
            return self._client
        if self._building is None or (self._building.done() and self._building.exception() is not None):
            self._building = asyncio.create_task(self._build())
        return await asyncio.shield(self._building)

    async def _build(self) -> FirestoreAsyncClient:
        await asyncio.to_thread(_import_all)
        from google.cloud.firestore_v1.services.firestore import FirestoreAsyncClient
        from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcAsyncIOTransport

        if self._emulator:
            import grpc.aio

            options = [*_OPTIONS, ("grpc.enable_http_proxy", 0)]
            self._channel = grpc.aio.insecure_channel(self._emulator, options=options)
        else:
            credentials = self._credentials or await asyncio.to_thread(_default_credentials)
            self._channel = FirestoreGrpcAsyncIOTransport.create_channel(
                _HOST, credentials=credentials, scopes=_SCOPES, options=_OPTIONS
            )
        self._client = FirestoreAsyncClient(transport=FirestoreGrpcAsyncIOTransport(channel=self._channel))
        return self._client

    async def warm(self) -> None:
        """Imports the SDK and opens the channel."""
        await self.client()
        if self._channel is not None:
            try:
                async with asyncio.timeout(5):
                    await self._channel.channel_ready()
            except TimeoutError:
                return

    async def close(self) -> None:
        """Closes the channel; running calls are cancelled."""
        if self._building is not None and not self._building.done():
            self._building.cancel()
        if self._channel is not None:
            await self._channel.close(None)


def _import_all() -> None:
    for module in _MODULES:
        importlib.import_module(module)


def _default_credentials() -> Any:
    import google.auth

    return google.auth.default(scopes=_SCOPES)[0]
