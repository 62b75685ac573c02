"""An RSA key of Azure Key Vault as key-encryption key: data keys are wrapped and unwrapped there; it never leaves.

A value names the version that it was wrapped with; new ones are wrapped with the newest.
(https://learn.microsoft.com/rest/api/keyvault/keys: get key, wrap key, unwrap key)
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from control_plane.store.key_service import KeyService, Refused, Token, decoded, encoded, missing
from control_plane.store.key_wrapper import UnknownKey

_NAME = re.compile(
    r"https://[0-9a-zA-Z-]{3,24}\.(vault\.azure\.net|vault\.azure\.cn|vault\.usgovcloudapi\.net)/keys/[0-9a-zA-Z-]{1,127}"
)
_API = "?api-version=7.4"
_ALGORITHM = "RSA-OAEP-256"
_GONE = ("KeyNotFound", "KeyDisabled")
_NOT_OURS = ("BadParameter",)


class VaultKey:
    """`KeyWrapper` of one RSA key. Needs the key's read, wrap and unwrap."""

    def __init__(self, url: str, token: Token | None = None, total: float = 30.0) -> None:
        """`token` is for tests: with one the URL may be any. Raises ValueError for what is not the URL of a key."""
        url = url.rstrip("/")
        suffix = _NAME.fullmatch(url)
        if token is None:
            if suffix is None:
                raise ValueError(f"vault:{url}: https://….vault.azure.net/keys/NAME is wanted, without a version")
            token = AzureToken(f"https://{suffix[1]}/.default")
        self._url = url
        self._version = re.compile(re.escape(url) + r"/[0-9a-f]{32}")
        self._service = KeyService(token, total=total)

    async def wrap(self, data_key: bytes) -> tuple[str, bytes]:
        """With the newest version. Raises CloudError."""
        found = await self._service.ask("GET", self._url + _API)
        key = found.get("key")
        version = str(key.get("kid")) if isinstance(key, dict) else ""
        if self._version.fullmatch(version) is None:
            raise missing()
        return version, await self._ask(version, "wrapkey", data_key)

    async def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """Raises UnknownKey, ValueError, CloudError."""
        if self._version.fullmatch(key_id) is None:  # else whoever writes to the store would choose who gets our token
            raise UnknownKey(key_id)
        try:
            return await self._ask(key_id, "unwrapkey", wrapped)
        except Refused as refused:
            if refused.reason in _GONE:
                raise UnknownKey(f"{key_id}: {refused.text}") from refused
            if refused.reason in _NOT_OURS:
                raise ValueError(f"the data key was not wrapped with {key_id}: {refused.text}") from refused
            raise

    async def close(self) -> None:
        """Closes the connections."""
        await self._service.close()

    async def _ask(self, version: str, operation: str, value: bytes) -> bytes:
        body = {"alg": _ALGORITHM, "value": encoded(value, url_safe=True)}
        answer = await self._service.ask("POST", f"{version}/{operation}{_API}", body)
        if "value" not in answer:
            raise missing()
        return decoded(answer["value"])


class AzureToken:
    """Access tokens of the identity that azure-identity finds."""

    def __init__(self, scope: str) -> None:
        self._scope = scope
        self._credential: Any = None
        self._lock = asyncio.Lock()

    async def __call__(self, fresh: bool) -> str:
        """A token that counts for now; azure-identity keeps it. Raises what azure-identity raises."""
        async with self._lock:
            if self._credential is None or fresh:
                self._credential = await asyncio.to_thread(_credential)
            return await asyncio.to_thread(self._token)

    def _token(self) -> str:
        return str(self._credential.get_token(self._scope).token)


def _credential() -> Any:
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()
