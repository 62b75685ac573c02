"""Users' registry logins as Docker clients send them (`X-Registry-Auth`, the body of `POST /auth`)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import orjson

from control_plane.registry.base import ANONYMOUS, Credentials


def from_header(value: str | None) -> Credentials:
    """`X-Registry-Auth`: base64url of a JSON object. A malformed one counts as none, as in moby."""
    if not value:
        return ANONYMOUS
    text = value.strip().replace("+", "-").replace("/", "_").rstrip("=")
    try:
        document = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        return ANONYMOUS
    return from_document(document) if isinstance(document, dict) else ANONYMOUS


def from_document(document: Mapping[str, Any]) -> Credentials:
    """Docker's AuthConfig. `auth` (base64 of `user:password`) counts where user and password are missing."""

    def text(key: str) -> str:
        value = document.get(key)
        return value if isinstance(value, str) else ""

    username, password = text("username"), text("password")
    if not username and not password and text("auth"):
        try:
            decoded = base64.b64decode(text("auth"), validate=False).decode()
        except (binascii.Error, UnicodeDecodeError):
            decoded = ""
        username, _, password = decoded.partition(":")
    return Credentials(username, password, text("identitytoken"), text("registrytoken"), text("serveraddress"))
