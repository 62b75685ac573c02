"""Users' bearer tokens: `skls_<id>_<secret>`, of which the store has the id and the secret's digest.

Verifying one is one read of the store, so a revoked token is refused by every instance from the next request on. It
costs every request the read of one document, about 10 ms on Firestore and Cosmos; nothing is kept that could be stale.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass

from control_plane.auth.caller import Caller, Scope
from control_plane.errors import InvalidParameter, NotFound
from control_plane.model import AccessToken
from control_plane.services.records import Records
from control_plane.services.tenants import OPERATOR, Tenants
from control_plane.store.base import Store
from control_plane.timestamps import now

PREFIX = "skls_"
SCOPES: tuple[Scope, ...] = ("full", "run", "read")
_FORM = re.compile(r"skls_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_ABSENT = "0" * 64
_NOTE_LENGTH = 200


@dataclass(frozen=True, slots=True)
class NewToken:
    """`text` is shown once and kept nowhere."""

    token: AccessToken
    text: str


class Tokens:
    """Made, listed and revoked by the operator; verified for every request."""

    def __init__(self, store: Store, tenants: Tenants) -> None:
        self._records: Records[AccessToken] = Records(store, "tokens", AccessToken)
        self._tenants = tenants

    async def create(self, tenant: str, scope: Scope, seconds: float = 0, note: str = "") -> NewToken:
        """`seconds` 0: it does not expire. Raises NotFound for a tenant that is not there, or is revoked."""
        if scope not in SCOPES:
            raise InvalidParameter(f"scope {scope!r}: one of {', '.join(SCOPES)} is wanted")
        if seconds < 0:
            raise InvalidParameter("a token cannot have expired before it is made")
        if len(note) > _NOTE_LENGTH:
            raise InvalidParameter(f"the note has more than {_NOTE_LENGTH} characters")
        await self._check(tenant)
        secret = secrets.token_urlsafe(32)
        token = AccessToken(
            id=secrets.token_hex(8),
            tenant=tenant,
            scope=scope,
            secret_digest=_digest(secret),
            note=note,
            created_at=now(),
            expires_at=time.time() + seconds if seconds else 0.0,
        )
        kept = await self._records.create(OPERATOR, token.id, token)
        try:
            # The tenant may have been revoked meanwhile, and its tokens with it, but not this one.
            await self._check(tenant)
        except NotFound:
            await self.revoke(kept.id)
            raise
        return NewToken(kept, f"{PREFIX}{kept.id}_{secret}")

    async def list(self, tenant: str | None = None) -> list[AccessToken]:
        """Of one tenant, or all; revoked and expired ones too."""
        return [token for token in await self._records.list(OPERATOR) if tenant in (None, token.tenant)]

    async def revoke(self, token_id: str) -> AccessToken:
        """No request that begins from now on gets in with it. Repeatable. Raises NotFound."""
        revoked = await self._records.update(
            OPERATOR,
            token_id,
            lambda token: token if token.revoked_at else token.model_copy(update={"revoked_at": now()}),
        )
        if revoked is None:
            raise NotFound(f"no such token: {token_id}")
        return revoked

    async def revoke_all(self, tenant: str) -> int:
        """Every token of a tenant; how many there were."""
        tokens = [token for token in await self.list(tenant) if not token.revoked_at]
        for token in tokens:
            await self.revoke(token.id)
        return len(tokens)

    async def caller(self, text: str) -> Caller | None:
        """Whose token it is; None for one that is malformed, unknown, wrong, expired or revoked."""
        found = _FORM.fullmatch(text)
        if found is None:
            return None
        token = await self._records.get(OPERATOR, found[1])
        # Compared for an unknown id as well: the time taken tells nothing.
        same = hmac.compare_digest(_digest(found[2]), token.secret_digest if token is not None else _ABSENT)
        if token is None or not same or token.revoked_at or 0 < token.expires_at <= time.time():
            return None
        return Caller(token.tenant, token.scope, f"token:{token.id}")

    async def _check(self, tenant: str) -> None:
        if await self._tenants.active(tenant) is None:
            raise NotFound(f"no such tenant: {tenant}")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
