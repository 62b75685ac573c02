"""An issuer's signing keys: OpenID Connect discovery, then its JWKS; kept, and bounded in every respect.

An unknown key id makes us look again, but not more often than once in half a minute for each issuer, whatever is sent.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from control_plane.auth.oidc_rules import safe_url
from control_plane.errors import Unavailable

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "ES256")
_FRESH = 3600.0
"""Seconds after which keys are fetched again, so that a withdrawn one is of no use for longer."""
_USABLE = 24 * 3600.0
"""How long keys are used when the issuer cannot be reached."""
_PAUSE = 30.0
"""Between two fetches."""
_TIMEOUT = 5.0
_LARGEST = 256 * 1024
_MOST_KEYS = 64
_RSA_BITS = 2048


_Keys = Mapping[tuple[str, str], Any]
"""By key id and algorithm."""


class FetchFailed(Exception):
    """The issuer's documents could not be had, or are not what they should be."""


class IssuerKeys:
    """The keys of one issuer, by key id."""

    def __init__(self, issuer: str, client: Callable[[], httpx.AsyncClient], clock: Callable[[], float]) -> None:
        self._issuer = issuer
        self._client = client
        self._clock = clock
        self._keys: _Keys = {}
        self._fetched = float("-inf")
        self._tried = float("-inf")
        self._lock = asyncio.Lock()

    async def key(self, key_id: str, algorithm: str) -> Any | None:
        """The public key; None when the issuer has none of that id for that algorithm. Raises Unavailable."""
        if self._clock() - self._fetched >= _FRESH or (key_id, algorithm) not in self._keys:
            await self._refresh((key_id, algorithm))
        if self._clock() - self._fetched >= _USABLE:
            raise Unavailable("the identity provider cannot be reached to check the token; try again")
        return self._keys.get((key_id, algorithm))

    async def _refresh(self, wanted: tuple[str, str]) -> None:
        async with self._lock:
            # Others may have waited for the same answer.
            if self._clock() - self._fetched < _FRESH and wanted in self._keys:
                return
            if self._clock() - self._tried < _PAUSE:
                return
            self._tried = self._clock()
            try:
                self._keys = await self._fetch()
            except FetchFailed as failure:
                _log.warning("the keys of %s could not be fetched: %s", self._issuer, failure)
            else:
                self._fetched = self._clock()

    async def _fetch(self) -> _Keys:
        document = await self._get(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        if document.get("issuer") != self._issuer:
            raise FetchFailed("its discovery document is another issuer's")
        place = document.get("jwks_uri")
        if not isinstance(place, str) or not safe_url(place):
            raise FetchFailed("its discovery document names no https address of keys")
        found = (await self._get(place)).get("keys")
        if not isinstance(found, list) or len(found) > _MOST_KEYS:
            raise FetchFailed("its keys are not a list of a sane length")
        keys = {name: key for entry in found if (usable := _usable(entry)) is not None for name, key in [usable]}
        if not keys:
            raise FetchFailed("none of its keys is of a kind that is accepted here")
        return keys

    async def _get(self, url: str) -> Mapping[str, Any]:
        import httpx

        body = bytearray()
        try:
            async with asyncio.timeout(_TIMEOUT), self._client().stream("GET", url) as answer:
                if answer.status_code != 200:
                    raise FetchFailed(f"{url} answered {answer.status_code}")
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > _LARGEST:
                        raise FetchFailed(f"{url} is too large")
            document = orjson.loads(bytes(body))
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, orjson.JSONDecodeError) as error:
            raise FetchFailed(f"{url}: {error or type(error).__name__}") from None
        if not isinstance(document, dict):
            raise FetchFailed(f"{url} is not a JSON object")
        return document


def _usable(entry: Any) -> tuple[tuple[str, str], Any] | None:
    """((key id, algorithm), key) of a JWK for signatures; None for any other, which is none of our business."""
    import jwt

    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    key_id, kind = entry.get("kid"), entry.get("kty")
    algorithm = {"RSA": "RS256", "EC": "ES256"}.get(kind) if isinstance(kind, str) else None
    if not isinstance(key_id, str) or not key_id or algorithm is None or entry.get("alg", algorithm) != algorithm:
        return None
    if kind == "EC" and entry.get("crv") != "P-256":
        return None
    try:
        key = jwt.PyJWK(entry, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if kind == "RSA" and (not hasattr(key, "key_size") or hasattr(key, "private_numbers") or key.key_size < _RSA_BITS):
        return None
    return (key_id, algorithm), key


def monotonic() -> float:
    """The clock of what is kept."""
    return time.monotonic()
