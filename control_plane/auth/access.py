"""`Authenticate` of a hosted endpoint: bearer token, OIDC token, client certificate, in this order; else 401."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from control_plane.auth.bearer import bearer, header
from control_plane.auth.caller import Caller
from control_plane.auth.certificates import Certificates
from control_plane.auth.oidc import Oidc
from control_plane.auth.refusal import bad_proof, no_proof
from control_plane.errors import Unauthorized

if TYPE_CHECKING:
    from agent_gateway.tickets import Attested
    from control_plane.services.tenants import Tenants
    from control_plane.services.tokens import Tokens

_OWN = "skls_"


class Access:
    """One read of the store for each request: the token's, or that of the tenant which a rule names."""

    def __init__(
        self, tokens: Tokens, tenants: Tenants, oidc: Oidc | None = None, certificates: Certificates | None = None
    ) -> None:
        self._tokens = tokens
        self._tenants = tenants
        self._oidc = oidc
        self._certificates = certificates

    async def __call__(self, scope: Mapping[str, Any]) -> Caller:
        """Raises NotAuthenticated; Forbidden for whoever is genuine and has no access; Unavailable."""
        subject = None if self._certificates is None else self._certificates.subject(scope)
        token = bearer(header(scope, b"authorization"))
        if token is not None:
            return await self._bearer(token)
        if subject:
            return await self.certified(subject)
        raise no_proof()

    def attested(self, scope: Mapping[str, Any]) -> Attested | None:
        """The client that a gateway vouches for in a request's headers; None without one, or with a forged one."""
        try:
            return None if self._certificates is None else self._certificates.attested(scope)
        except Unauthorized:
            return None

    async def certified(self, subject: str) -> Caller:
        """The caller whose certificate a gateway's proxy has verified. Raises NotAuthenticated, Forbidden."""
        if self._certificates is None or not self._certificates.configured:
            raise no_proof()
        return await self._in_tenant(self._certificates.of(subject))

    async def close(self) -> None:
        """Closes the connections to issuers."""
        if self._oidc is not None:
            await self._oidc.close()

    async def _bearer(self, token: str) -> Caller:
        if token.startswith(_OWN):
            caller = await self._tokens.caller(token)
            if caller is None:
                raise bad_proof("a token of ours that is unknown, expired or revoked")
            return caller
        if self._oidc is None or not self._oidc.is_one(token):
            raise bad_proof("a bearer token of no kind that is configured")
        return await self._in_tenant(await self._oidc.caller(token))

    async def _in_tenant(self, caller: Caller) -> Caller:
        """Rules outlive tenants: one that was revoked, or was never made, has no callers."""
        if await self._tenants.active(caller.tenant) is None:
            raise bad_proof(f"tenant {caller.tenant} of {caller.subject} does not exist")
        return caller
