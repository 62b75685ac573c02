"""How a hosted control plane logs in at its own registry: with the identity the platform gives it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from control_plane.registry.base import Credentials, RegistryError
from control_plane.registry.push import RegistrySettings

if TYPE_CHECKING:
    from control_plane.entrypoints.hosted_settings import HostedSettings

_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_AZURE_SCOPE = "https://containerregistry.azure.net/.default"
_AZURE_USER = "00000000-0000-0000-0000-000000000000"
"""The user name at Azure's registry whose password is a refresh token (its documentation, "Authentication options")."""
_EARLY = 300.0
"""Seconds before its end at which a token is not used any more."""
_AZURE_SECONDS = 3 * 3600.0


def registry_settings(settings: HostedSettings) -> RegistrySettings:
    """The registry, with the login that its host asks for."""
    url, prefix = settings.registry_url, settings.registry_prefix
    host = urlsplit(url).netloc
    if settings.registry_username:
        password = settings.registry_password.get_secret_value()
        return RegistrySettings(url, prefix, username=settings.registry_username, password=password)
    if host.endswith((".pkg.dev", ".gcr.io")) or host == "gcr.io":
        return RegistrySettings(url, prefix, access_token=GoogleTokens().current)
    if host.endswith((".azurecr.io", ".azurecr.us", ".azurecr.cn")):
        return RegistrySettings(url, prefix, login=AzureLogin(host).current)
    return RegistrySettings(url, prefix)


class _Kept:
    """A value that is got anew shortly before it ends."""

    def __init__(self) -> None:
        self._getting = asyncio.Lock()
        self._value: Any = None
        self._until = 0.0

    async def get(self, renew: Callable[[], Awaitable[tuple[Any, float]]]) -> Any:
        """The value; `renew` gives it with the time it ends, in Unix seconds."""
        if time.time() < self._until:
            return self._value
        async with self._getting:
            if time.time() >= self._until:
                self._value, ends = await renew()
                self._until = ends - _EARLY
            return self._value


class GoogleTokens:
    """Access tokens of the application default credentials."""

    def __init__(self) -> None:
        self._kept = _Kept()
        self._credentials: Any = None

    async def current(self) -> str:
        """Raises RegistryError."""
        token: str = await self._kept.get(lambda: asyncio.to_thread(self._renew))
        return token

    def _renew(self) -> tuple[str, float]:
        import google.auth
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request

        try:
            if self._credentials is None:
                self._credentials = google.auth.default(scopes=[_GOOGLE_SCOPE])[0]
            self._credentials.refresh(Request())
        except GoogleAuthError as error:
            raise RegistryError(f"no Google access token for the endpoint's registry: {error}") from None
        expiry = self._credentials.expiry  # naive, UTC
        seconds = (expiry - type(expiry).utcnow()).total_seconds() if expiry is not None else 2 * _EARLY
        return str(self._credentials.token), time.time() + seconds


class AzureLogin:
    """A refresh token of Azure's registry, exchanged for the managed identity's token."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._kept = _Kept()

    async def current(self) -> Credentials:
        """Raises RegistryError."""
        found: Credentials = await self._kept.get(self._renew)
        return found

    async def _renew(self) -> tuple[Credentials, float]:
        import httpx
        from azure.core.exceptions import AzureError
        from azure.identity.aio import DefaultAzureCredential

        try:
            async with DefaultAzureCredential() as credential:
                token = (await credential.get_token(_AZURE_SCOPE)).token
            form = {"grant_type": "access_token", "service": self._host, "access_token": token}
            async with httpx.AsyncClient(timeout=20) as client:
                answer = await client.post(f"https://{self._host}/oauth2/exchange", data=form)
                answer.raise_for_status()
                refresh = str(answer.json()["refresh_token"])
        except (AzureError, httpx.HTTPError, ValueError, KeyError) as error:
            raise RegistryError(f"no login at {self._host}: {type(error).__name__}") from None
        return Credentials(_AZURE_USER, refresh), time.time() + _AZURE_SECONDS
