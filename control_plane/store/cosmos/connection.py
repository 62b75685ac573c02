"""Cosmos' asynchronous client, built on first use in the running loop.

Importing the SDK costs 0.2 s of CPU: never at import of this module, always in a thread.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from azure.cosmos.aio import ContainerProxy, CosmosClient

_MODULES = ("azure.core.exceptions", "azure.cosmos.aio", "aiohttp")


class Connection:
    """One container (Cosmos' word) of one account."""

    def __init__(self, url: str, credential: Any, database: str, container: str, discovery: bool) -> None:
        self._url = url
        self._credential = credential
        self._own_credential: Any = None
        self._database = database
        self._container = container
        self._discovery = discovery
        self._client: CosmosClient | None = None
        self._proxy: ContainerProxy | None = None
        self._building: asyncio.Task[ContainerProxy] | None = None

    async def container(self) -> ContainerProxy:
        """The client of the container. Raises what the SDK raises when the account cannot be reached."""
        if self._proxy is not None:
            return self._proxy
        if self._building is None or (self._building.done() and self._building.exception() is not None):
            self._building = asyncio.create_task(self._build())
        return await asyncio.shield(self._building)

    async def _build(self) -> ContainerProxy:
        await asyncio.to_thread(_import_all)
        from azure.cosmos.aio import CosmosClient

        credential = self._credential
        if credential is None:
            from azure.identity.aio import DefaultAzureCredential

            credential = self._own_credential = DefaultAzureCredential()
        client = CosmosClient(self._url, credential=credential, enable_endpoint_discovery=self._discovery)
        try:
            await client.__aenter__()
            proxy = client.get_database_client(self._database).get_container_client(self._container)
            # Kept by the client: without it every client's first operations would ask at once.
            await proxy.read()
        except BaseException:
            await client.close()
            raise
        self._client, self._proxy = client, proxy
        return proxy

    async def close(self) -> None:
        """Closes the connections."""
        if self._building is not None and not self._building.done():
            self._building.cancel()
            await asyncio.gather(self._building, return_exceptions=True)
        self._proxy = None
        if self._client is not None:
            await self._client.close()
        if self._own_credential is not None:
            await self._own_credential.close()


def _import_all() -> None:
    for module in _MODULES:
        importlib.import_module(module)
