"""A key of Google Cloud KMS as key-encryption key: data keys are encrypted and decrypted there; it never leaves.

A value names the version that it was wrapped with. KMS encrypts with the primary version and knows by itself which one
decrypts: the version says whether a value is sealed with the present one.
(https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys)
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from control_plane.store.key_service import KeyService, Refused, Token, decoded, encoded, missing
from control_plane.store.key_wrapper import UnknownKey

_NAME = re.compile(r"projects/[\w.:-]+/locations/[\w-]+/keyRings/[\w-]+/cryptoKeys/[\w-]+")
_SCOPE = "https://www.googleapis.com/auth/cloudkms"
_GONE = ("FAILED_PRECONDITION", "NOT_FOUND")
"""The version is disabled or destroyed; there is no such key."""


class KmsKey:
    """`KeyWrapper` of one symmetric key. Needs cloudkms.cryptoKeyVersions.useToEncrypt and useToDecrypt."""

    def __init__(
        self, name: str, token: Token | None = None, url: str = "https://cloudkms.googleapis.com", total: float = 30.0
    ) -> None:
        """Raises ValueError for what is not the name of a key."""
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"kms:{name}: projects/…/locations/…/keyRings/…/cryptoKeys/… is wanted")
        self._name = name
        self._url = f"{url}/v1/{name}"
        self._version = re.compile(re.escape(name) + r"/cryptoKeyVersions/[0-9]{1,10}")
        self._service = KeyService(token or GoogleToken(), total=total)

    async def wrap(self, data_key: bytes) -> tuple[str, bytes]:
        """With the primary version. Raises CloudError."""
        answer = await self._service.ask("POST", f"{self._url}:encrypt", {"plaintext": encoded(data_key)})
        version = str(answer.get("name"))
        if self._version.fullmatch(version) is None or "ciphertext" not in answer:
            raise missing()
        return version, decoded(answer["ciphertext"])

    async def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """Raises UnknownKey, ValueError, CloudError."""
        if self._version.fullmatch(key_id) is None:
            raise UnknownKey(key_id)
        try:
            answer = await self._service.ask("POST", f"{self._url}:decrypt", {"ciphertext": encoded(wrapped)})
        except Refused as refused:
            if refused.reason in _GONE:
                raise UnknownKey(f"{key_id}: {refused.text}") from refused
            if refused.reason == "INVALID_ARGUMENT":
                raise ValueError(f"the data key was not wrapped with {self._name}: {refused.text}") from refused
            raise
        if "plaintext" not in answer:
            raise missing()
        return decoded(answer["plaintext"])

    async def close(self) -> None:
        """Closes the connections."""
        await self._service.close()


class GoogleToken:
    """Access tokens of the identity that google-auth finds."""

    def __init__(self) -> None:
        self._credentials: Any = None
        self._lock = asyncio.Lock()

    async def __call__(self, fresh: bool) -> str:
        """A token that counts for now. Raises what google-auth raises."""
        async with self._lock:
            return await asyncio.to_thread(self._token, fresh)

    def _token(self, fresh: bool) -> str:
        import google.auth
        from google.auth.transport.requests import Request

        if self._credentials is None:
            self._credentials = google.auth.default(scopes=[_SCOPE])[0]
        if fresh or not self._credentials.valid:
            self._credentials.refresh(Request())
        return str(self._credentials.token)
