"""Who is calling: the tenant, what the caller may do, and its name for the audit log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Scope = Literal["full", "run", "read"]

_RANK: Mapping[str, int] = {"read": 0, "run": 1, "full": 2}


@dataclass(frozen=True, slots=True)
class Caller:
    """`subject` is told in the audit log: `token:<id>`, `oidc:<issuer>:<sub>`, `certificate:<subject>`, `local`."""

    tenant: str
    scope: Scope
    subject: str

    def may(self, scope: Scope) -> bool:
        """Whether a route that needs `scope` is open to this caller."""
        return _RANK[self.scope] >= _RANK[scope]


LOCAL = Caller("default", "full", "local")
"""Whoever reaches the embedded endpoint: it knows one tenant and asks for no token."""

Authenticate = Callable[[Mapping[str, Any]], Awaitable[Caller]]
"""From an ASGI scope to the caller. Raises Unauthorized, Forbidden or Unavailable."""


async def single_tenant(_: Mapping[str, Any]) -> Caller:
    """The embedded endpoint's `Authenticate`."""
    return LOCAL
