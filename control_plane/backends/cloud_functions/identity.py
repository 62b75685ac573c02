"""Identity tokens for functions' URLs: who invokes a function shows one that names it as audience."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Any

from control_plane.backends.calls import CloudError, call

_DOING = "getting an identity token for the container's function"
_EARLY = 300.0
"""Seconds before its end at which a token is not used any more."""
_REMEMBERED = 1000


class Identity:
    """Tokens by audience, each kept until shortly before it expires.

    `endpoint` is a local cloud's HTTP address, whose metadata server is asked; empty: Google's, or the service account
    file that GOOGLE_APPLICATION_CREDENTIALS names.
    """

    def __init__(self, endpoint: str = "") -> None:
        self._endpoint = endpoint.rstrip("/")
        self._tokens: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[str]] = {}

    async def token(self, audience: str) -> str:
        """The token for one function's URI. Raises CloudError."""
        found = self._tokens.get(audience)
        if found is not None and found[1] - _EARLY > time.time():
            return found[0]
        task = self._asking.get(audience)
        if task is None:
            task = self._asking[audience] = asyncio.create_task(self._fetch(audience))
            task.add_done_callback(lambda done: self._asked(audience, done))
        return await asyncio.shield(task)

    def forget(self, audience: str) -> None:
        """The function did not accept it."""
        self._tokens.pop(audience, None)

    def _asked(self, audience: str, done: asyncio.Task[str]) -> None:
        self._asking.pop(audience, None)
        if not done.cancelled():
            done.exception()  # whoever waits gets it; nobody may be left

    async def _fetch(self, audience: str) -> str:
        token = await call(_DOING, lambda timeout: self._attempt(audience, timeout))
        self._tokens[audience] = (token, _expires_at(token))
        self._tokens.move_to_end(audience)
        while len(self._tokens) > _REMEMBERED:
            self._tokens.popitem(last=False)
        return token

    async def _attempt(self, audience: str, timeout: float) -> str:
        if not self._endpoint:
            async with asyncio.timeout(timeout):
                return await asyncio.to_thread(_from_google, audience)
        import httpx

        path = "/computeMetadata/v1/instance/service-accounts/default/identity"
        async with httpx.AsyncClient(base_url=self._endpoint, trust_env=False, timeout=timeout) as client:
            answer = await client.get(
                path, params={"audience": audience, "format": "full"}, headers={"Metadata-Flavor": "Google"}
            )
        answer.raise_for_status()
        return answer.text.strip()


def _from_google(audience: str) -> str:
    """In a thread: the libraries for it are synchronous."""
    import google.auth.transport.requests
    from google.oauth2 import id_token

    token: str = id_token.fetch_id_token(google.auth.transport.requests.Request(), audience)
    return token


def _expires_at(token: str) -> float:
    """Unix seconds. Raises CloudError for what is no token."""
    import jwt

    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
        return float(claims["exp"])
    except (jwt.InvalidTokenError, KeyError, TypeError, ValueError) as error:
        raise CloudError("UNAUTHENTICATED", "the metadata server's answer is no identity token", _DOING) from error
