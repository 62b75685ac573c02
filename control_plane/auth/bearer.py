"""`Authorization: Bearer …`, taken out of a request's headers strictly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from control_plane.auth.refusal import bad_proof

LONGEST = 16 * 1024
"""Of a token, in characters; Entra's with many groups have some thousands."""


def header(scope: Mapping[str, Any], name: bytes) -> str | None:
    """The one value of a header; None without it. A repeated one is refused: two readers could take two of them."""
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    values = [value for key, value in headers if key == name]
    if not values:
        return None
    if len(values) > 1:
        raise bad_proof(f"the header {name.decode()} is there {len(values)} times")
    return values[0].decode("latin-1")


def bearer(authorization: str | None) -> str | None:
    """The token; None when there is no header. Raises NotAuthenticated for another scheme or a malformed value."""
    if not authorization:
        return None
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer":
        raise bad_proof("another scheme than Bearer")
    if not token or len(token) > LONGEST or not token.isascii() or not token.isprintable() or " " in token:
        raise bad_proof("the bearer token is malformed")
    return token
