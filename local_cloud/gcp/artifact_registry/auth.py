"""Who may use the registry, when it has users: basic, or bearer tokens got with basic."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import time
from collections.abc import Mapping

_LIFETIME = 300.0


class RegistryAuth:
    """Checks `Authorization` headers. Without users everybody may do everything."""

    def __init__(self, users: Mapping[str, str], scheme: str) -> None:
        if scheme not in ("basic", "bearer"):
            raise ValueError(f"registry_auth is basic or bearer, not {scheme!r}")
        self._users = dict(users)
        self._scheme = scheme
        self._tokens: dict[str, float] = {}

    def admits(self, header: str) -> bool:
        """Whether a request with this `Authorization` header may go on."""
        if not self._users:
            return True
        if self._scheme == "basic":
            return self.knows(header)
        kind, _, token = header.partition(" ")
        return kind.lower() == "bearer" and self._tokens.get(token.strip(), 0.0) > time.monotonic()

    def knows(self, header: str) -> bool:
        """Whether a basic `Authorization` header has a user's password."""
        kind, _, value = header.partition(" ")
        if kind.lower() != "basic":
            return False
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return False
        wanted = self._users.get(user)
        return wanted is not None and hmac.compare_digest(wanted.encode(), password.encode())

    def issue(self) -> tuple[str, int]:
        """A new bearer token and its lifetime in seconds."""
        now = time.monotonic()
        self._tokens = {token: end for token, end in self._tokens.items() if end > now}
        token = secrets.token_urlsafe(32)
        self._tokens[token] = now + _LIFETIME
        return token, int(_LIFETIME)

    def challenge(self, base_url: str, scope: str) -> str:
        """The `WWW-Authenticate` header of a 401."""
        if self._scheme == "basic":
            return 'Basic realm="local cloud registry"'
        return f'Bearer realm="{base_url}/v2/token",service="local-cloud",scope="{scope}"'
