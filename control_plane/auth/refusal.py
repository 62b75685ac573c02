"""The one answer to whoever shows no valid proof of who they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from control_plane.errors import Unauthorized


class NotAuthenticated(Unauthorized):
    """401 with the challenge of RFC 6750. The message never tells which part of a proof was wrong."""

    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": 'Bearer realm="sockerless"'}


def no_proof() -> NotAuthenticated:
    """Nothing was shown."""
    return NotAuthenticated(
        "this endpoint wants a token: run `sockerless login URL`, or send the header `Authorization: Bearer TOKEN`"
    )


def bad_proof(internal: str) -> NotAuthenticated:
    """What was shown is not valid; `internal` is for our log."""
    return NotAuthenticated("the token is not valid, has expired or was revoked", internal=internal)
