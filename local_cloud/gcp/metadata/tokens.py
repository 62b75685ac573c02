"""Google-like tokens: identity tokens signed with a key of this data directory (RS256), and opaque access tokens.

Facts: cloud.google.com/docs/authentication/get-id-token and compute/docs/instances/verifying-instance-identity (the
claims), RFC 7515 and 7519.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import os
import secrets
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

ISSUER = "https://accounts.google.com"
_LIFETIME = 3600
_BITS = 2048
_LONGEST = 16 << 10
_SKEW = 10.0
_SUBJECT = "100000000000000000001"
_NOT_VERIFIED = "The access token could not be verified"


class TokenRefused(Exception):
    """A token that does not count here; the text is for the client."""


class Tokens:
    """Issues and checks tokens. The key is made at first use and kept in a file that only its owner reads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key: Any = None
        self._loading = asyncio.Lock()

    async def identity(self, audience: str, email: str, *, full: bool) -> str:
        """A new identity token for an audience; `full` adds the e-mail address."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "aud": audience,
            "azp": _SUBJECT,
            "exp": now + _LIFETIME,
            "iat": now,
            "iss": ISSUER,
            "sub": _SUBJECT,
        }
        if full:
            claims |= {"email": email, "email_verified": True}
        key = await self._loaded()
        head = {"alg": "RS256", "kid": _key_id(key), "typ": "JWT"}
        signed = f"{_encode(_json(head))}.{_encode(_json(claims))}"
        return f"{signed}.{_encode(_sign(key, signed.encode()))}"

    @staticmethod
    def access() -> tuple[str, int]:
        """A new access token and its lifetime in seconds. The APIs here ask nobody for one."""
        return f"ya29.local-{secrets.token_urlsafe(32)}", _LIFETIME - 1

    async def check(self, token: str, audiences: Collection[str]) -> None:
        """Raises TokenRefused unless the token is one of ours, for one of the audiences, and of this time."""
        parts = token.split(".")
        if len(token) > _LONGEST or len(parts) != 3:
            raise TokenRefused(_NOT_VERIFIED)
        head, claims = _object(parts[0]), _object(parts[1])
        key = await self._loaded()
        if head.get("alg") != "RS256" or head.get("kid") != _key_id(key):
            raise TokenRefused(_NOT_VERIFIED)
        if not _verified(key, f"{parts[0]}.{parts[1]}".encode(), _decode(parts[2])):
            raise TokenRefused(_NOT_VERIFIED)
        now, expires, issued = time.time(), claims.get("exp"), claims.get("iat")
        if not isinstance(expires, int) or not isinstance(issued, int) or issued > now + _SKEW:
            raise TokenRefused(_NOT_VERIFIED)
        if expires <= now:
            raise TokenRefused("The access token expired")
        if claims.get("iss") != ISSUER or claims.get("aud") not in audiences:
            raise TokenRefused(_NOT_VERIFIED)

    async def public_keys(self) -> dict[str, Any]:
        """The JSON Web Key Set (as Google publishes its own at `/oauth2/v3/certs`)."""
        key = await self._loaded()
        numbers = key.public_key().public_numbers()
        parts = {"n": numbers.n.to_bytes(_BITS // 8, "big"), "e": numbers.e.to_bytes(3, "big")}
        public = {name: _encode(value) for name, value in parts.items()}
        return {"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": _key_id(key), **public}]}

    async def _loaded(self) -> Any:
        async with self._loading:
            if self._key is None:  # in a thread: to import the library, or to make a key, takes a while
                self._key = await asyncio.to_thread(_load, self._path)
            return self._key


def _load(path: Path) -> Any:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    try:
        return serialization.load_pem_private_key(path.read_bytes(), None)
    except (FileNotFoundError, ValueError):
        key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
    os.replace(part, path)
    return key


def _key_id(key: Any) -> str:
    return hashlib.sha256(str(key.public_key().public_numbers().n).encode()).hexdigest()[:40]


def _sign(key: Any, data: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    signature: bytes = key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return signature


def _verified(key: Any, data: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    try:
        key.public_key().verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TokenRefused(_NOT_VERIFIED) from None


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(_decode(text))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise TokenRefused(_NOT_VERIFIED)
    return value
