"""Access tokens: issued for an audience, signed with a key of the data directory, checked by the other services."""

from __future__ import annotations

import os
import secrets
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local_cloud.azure.errors import ArmError
from local_cloud.azure.names import PRINCIPAL, TENANT

LIFETIME = 86400
"""Seconds; a managed identity's tokens last 24 hours."""
ISSUER = f"https://sts.windows.net/{TENANT}/"
ARM_AUDIENCES = (
    "https://management.core.windows.net/",
    "https://management.core.windows.net",
    "https://management.azure.com/",
    "https://management.azure.com",
)
LOGS_AUDIENCES = ("https://api.loganalytics.io", "https://api.loganalytics.io/", "https://api.loganalytics.azure.com")
_REALM = f'Bearer authorization_uri="https://login.windows.net/{TENANT}"'


class Tokens:
    """Issues and checks the local cloud's access tokens."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._private: Any = None
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.header = self._secret("identity-header")
        """What a request to the managed identity endpoint must show (`IDENTITY_HEADER`)."""

    def issue(self, audience: str, *, lifetime: int = LIFETIME) -> tuple[str, int]:
        """A token and when it ends (Unix seconds)."""
        import jwt

        now = int(time.time())
        claims = {
            "aud": audience,
            "iss": ISSUER,
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
            "oid": PRINCIPAL,
            "sub": PRINCIPAL,
            "tid": TENANT,
            "ver": "1.0",
            "uti": uuid.uuid4().hex,
        }
        return jwt.encode(claims, self._key(), algorithm="RS256", headers={"kid": "local"}), now + lifetime

    def check(self, header: str | None, audiences: tuple[str, ...], refused: int) -> None:
        """Checks an `Authorization` header; raises ArmError 401, or `refused` for a token that is no good."""
        import jwt

        if not header:
            text = "Authentication failed. The 'Authorization' header is missing."
            raise ArmError(401, "AuthenticationFailed", text, _challenge("the 'Authorization' header is missing"))
        kind, _, token = header.partition(" ")
        if kind.lower() != "bearer":
            text = "Authentication failed. The 'Authorization' header is provided in an invalid format."
            raise ArmError(401, "AuthenticationFailedInvalidHeader", text, _challenge("the header is malformed"))
        public = self._key().public_key()
        try:
            claims = jwt.decode(
                token.strip(), public, ["RS256"], issuer=ISSUER, options={"verify_aud": False, "verify_exp": False}
            )
        except jwt.InvalidTokenError:
            raise ArmError(
                refused, "InvalidAuthenticationToken", "The access token is invalid.", _challenge("it is invalid")
            ) from None
        if claims.get("aud") not in audiences:
            allowed = ",".join(f"'{name}'" for name in audiences)
            text = (
                f"The access token has been obtained for wrong audience or resource '{claims.get('aud')}'. "
                f"It should exactly match with one of the allowed audiences {allowed}."
            )
            raise ArmError(refused, "InvalidAuthenticationTokenAudience", text, _challenge("the audience is wrong"))
        if not isinstance(claims.get("exp"), int) or claims["exp"] <= time.time():
            ended, now = _clock(claims.get("exp") or 0), _clock(time.time())
            text = f"The access token expiry UTC time '{ended}' is earlier than current UTC time '{now}'."
            raise ArmError(401, "ExpiredAuthenticationToken", text, _challenge("the token is expired"))

    def _key(self) -> Any:
        if self._private is None:
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric import rsa

            path = self._directory / "token-key.pem"
            if not path.exists():
                fresh = rsa.generate_private_key(public_exponent=65537, key_size=2048)
                pem = serialization.PrivateFormat.PKCS8
                none = serialization.NoEncryption()
                _write(path, fresh.private_bytes(serialization.Encoding.PEM, pem, none))
            self._private = serialization.load_pem_private_key(path.read_bytes(), None)
        return self._private

    def _secret(self, name: str) -> str:
        path = self._directory / name
        if not path.exists():
            _write(path, secrets.token_hex(32).encode())
        return path.read_text()


def _write(path: Path, content: bytes) -> None:
    """Writes a secret so that nobody else can read it, and that a half-written one is never found."""
    part = path.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    part.replace(path)


def _challenge(why: str) -> dict[str, str]:
    return {"WWW-Authenticate": f'{_REALM}, error="invalid_token", error_description="{why}"'}


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%m/%d/%Y %I:%M:%S %p")
