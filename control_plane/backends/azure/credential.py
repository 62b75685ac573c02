"""Who we are to Azure: the platform's own identity, or a local cloud's word for it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from control_plane.backends.calls import CloudError

if TYPE_CHECKING:
    import httpx

_RENEW = 300.0
"""Seconds before its end that a token is asked for anew."""


class LocalCredential:
    """Tokens of a local cloud, asked for as App Service's managed identities are: an `AsyncTokenCredential`.

    azure-identity would do the same; it takes a third of a second to load.
    """

    def __init__(self, url: str, header: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._header = header
        self._http = http
        self._tokens: dict[str, Any] = {}
        self._lock = asyncio.Lock()

    async def get_token(self, *scopes: str, **_: Any) -> Any:
        """An `AccessToken` for the resource that the scope names. Raises CloudError."""
        from azure.core.credentials import AccessToken

        resource = scopes[0].removesuffix("/.default")
        async with self._lock:
            known = self._tokens.get(resource)
            if known is None or known.expires_on - _RENEW < time.time():
                known = self._tokens[resource] = AccessToken(*await self._ask(resource))
            return known

    async def _ask(self, resource: str) -> tuple[str, int]:
        doing = "asking for the endpoint's own token"
        answer = await self._http.get(
            self._url,
            params={"api-version": "2019-08-01", "resource": resource},
            headers={"X-IDENTITY-HEADER": self._header},
        )
        if answer.status_code != 200:
            again = answer.status_code == 429 or answer.status_code >= 500
            raise CloudError("UNAVAILABLE" if again else "UNAUTHENTICATED", f"HTTP {answer.status_code}", doing)
        body = answer.json()
        return str(body["access_token"]), int(body.get("expires_on") or time.time() + 3600)

    async def close(self) -> None:
        """The connection is its owner's."""

    async def __aenter__(self) -> LocalCredential:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def platform_credential(client_id: str = "") -> Any:
    """The managed identity where the platform offers one, else whatever azure-identity finds. Imports: in a thread."""
    if os.environ.get("IDENTITY_ENDPOINT"):
        from azure.identity.aio import ManagedIdentityCredential

        return ManagedIdentityCredential(client_id=client_id or os.environ.get("AZURE_CLIENT_ID") or None)
    from azure.identity.aio import DefaultAzureCredential

    return DefaultAzureCredential()


def bearer_over_plain_http(credential: Any, *scopes: str) -> Any:
    """azure-core sends tokens over TLS only unless each request says otherwise; a local cloud has none."""
    from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy

    class PlainBearer(AsyncBearerTokenCredentialPolicy):  # type: ignore[type-arg]
        async def on_request(self, request: Any) -> None:
            request.context.options["enforce_https"] = False
            await super().on_request(request)

    policy: Callable[..., Any] = PlainBearer
    return policy(credential, *scopes)
