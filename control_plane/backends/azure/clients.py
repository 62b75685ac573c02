"""The SDKs' asynchronous clients, built on first use in the running loop.

Importing the SDKs costs half a second of CPU: never at import of this module, always in a thread. Their own retries are
off: `backends/calls.py` decides what is sent twice.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any, cast

from control_plane.backends.azure import credential

if TYPE_CHECKING:
    import httpx
    from azure.mgmt.web.aio import WebSiteManagementClient
    from azure.monitor.query.aio import LogsQueryClient

_ARM = "https://management.azure.com"
_MODULES = ("httpx", "aiohttp", "azure.mgmt.web.aio", "azure.core.pipeline.policies", "azure.core.pipeline.transport")
_LOG_MODULES = ("azure.monitor.query.aio",)
_QUIET: dict[str, Any] = {"retry_total": 0, "connection_timeout": 10, "read_timeout": 120}
_POLL = 2.0
"""Seconds: longest pause between two polls of an operation; the SDK's own is 30."""


class Clients:
    """One set of clients per process and loop; cheap to construct, closed once."""

    def __init__(
        self, subscription: str, endpoint_url: str = "", *, identity_endpoint: str = "", identity_header: str = ""
    ) -> None:
        """The identity counts with an `endpoint_url` alone: else azure-identity finds one."""
        self._identity = identity_endpoint, identity_header
        self._subscription = subscription
        self._endpoint = endpoint_url.rstrip("/")
        self._ready: asyncio.Task[None] | None = None
        self._http: httpx.AsyncClient | None = None
        self._web: WebSiteManagementClient | None = None
        self._logs: LogsQueryClient | None = None
        self._credential: Any = None

    @property
    def base_url(self) -> str:
        """Of Azure Resource Manager."""
        return self._endpoint or _ARM

    @property
    def poll_pauses(self) -> tuple[float, float]:
        """First and longest pause in seconds between two polls of an operation."""
        return (0.05, 0.5) if self._endpoint else (1.0, _POLL)

    def site_url(self, host: str, path: str) -> tuple[str, dict[str, str]]:
        """Where a request to a site goes, and the headers that name the site where the address does not."""
        if self._endpoint:
            return f"{self._endpoint}{path}", {"Host": host}
        return f"https://{host}{path}", {}

    async def web(self) -> WebSiteManagementClient:
        """Azure Resource Manager: Microsoft.Web."""
        if self._web is None:
            await self._prepared()
        return cast("WebSiteManagementClient", self._web)

    async def http(self) -> httpx.AsyncClient:
        """For requests to sites."""
        if self._http is None:
            await self._prepared()
        return cast("httpx.AsyncClient", self._http)

    async def logs(self) -> LogsQueryClient:
        """Log Analytics."""
        if self._logs is None:
            await self._prepared()
            await asyncio.to_thread(_import_all, _LOG_MODULES)
            if self._logs is None:
                self._logs = self._logs_client()
        return self._logs

    async def close(self) -> None:
        """Closes the connections; running calls are cancelled."""
        if self._ready is not None and not self._ready.done():
            self._ready.cancel()
        self._ready = None
        closing = [one.close() for one in (self._web, self._logs, self._credential) if one is not None]
        if self._http is not None:
            closing.append(self._http.aclose())
        self._web = self._logs = self._http = self._credential = None
        await asyncio.gather(*closing, return_exceptions=True)

    async def _prepared(self) -> None:
        if self._ready is None or (self._ready.done() and self._ready.exception() is not None):
            self._ready = asyncio.create_task(self._prepare())
        await asyncio.shield(self._ready)

    async def _prepare(self) -> None:
        modules = _MODULES if self._endpoint else (*_MODULES, "azure.identity.aio")
        await asyncio.to_thread(_import_all, modules)
        import httpx
        from azure.mgmt.web.aio import WebSiteManagementClient

        # A proxy in the environment is not the way to the local cloud.
        limits = httpx.Limits(max_connections=256, max_keepalive_connections=32, keepalive_expiry=20)
        self._http = httpx.AsyncClient(trust_env=not self._endpoint, follow_redirects=False, limits=limits)
        if self._endpoint:
            self._credential = credential.LocalCredential(*self._identity_of_local_cloud(), self._http)
        else:
            self._credential = await asyncio.to_thread(credential.platform_credential)
        self._web = WebSiteManagementClient(
            self._credential,
            self._subscription,
            base_url=self.base_url,
            polling_interval=_POLL,
            **self._local_options(f"{_ARM}/.default"),
            **_QUIET,
        )

    def _identity_of_local_cloud(self) -> tuple[str, str]:
        url, header = self._identity
        return url or f"{self._endpoint}/msi/token", header

    def _logs_client(self) -> LogsQueryClient:
        from azure.monitor.query.aio import LogsQueryClient

        options = self._local_options("https://api.loganalytics.io/.default")
        if self._endpoint:
            options["endpoint"] = self._endpoint
        return LogsQueryClient(self._credential, **options, **_QUIET)

    def _local_options(self, scope: str) -> dict[str, Any]:
        if not self._endpoint:
            return {}
        policy = credential.bearer_over_plain_http(self._credential, scope)
        return {"authentication_policy": policy, "use_env_settings": False}


def _import_all(modules: tuple[str, ...]) -> None:
    for module in modules:
        importlib.import_module(module)
