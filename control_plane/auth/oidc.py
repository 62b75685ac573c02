"""Keyless access: an OpenID Connect token of a configured issuer stands for a tenant and a scope."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from control_plane.auth.caller import Caller
from control_plane.auth.oidc_keys import ALGORITHMS, IssuerKeys, monotonic
from control_plane.auth.oidc_rules import OidcRule
from control_plane.auth.refusal import bad_proof
from control_plane.errors import Forbidden

if TYPE_CHECKING:
    import httpx

_SKEW = 60
"""Seconds by which an issuer's clock and ours may differ."""
_LONGEST_LIFE = 24 * 3600 + _SKEW
"""Of a token from its issue to its expiry: one that is good for years is a password."""
_SUBJECT_LENGTH = 256


class Oidc:
    """Verifies tokens against the issuers of its rules, and no others."""

    def __init__(
        self,
        rules: Sequence[OidcRule],
        *,
        client: Callable[[], httpx.AsyncClient] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._rules: dict[str, list[OidcRule]] = {}
        for rule in rules:
            self._rules.setdefault(rule.issuer, []).append(rule)
        self._own: httpx.AsyncClient | None = None
        self._keys = {issuer: IssuerKeys(issuer, client or self._client, clock) for issuer in self._rules}

    @staticmethod
    def is_one(token: str) -> bool:
        """Whether it has the form of a JWT."""
        return token.startswith("ey") and token.count(".") == 2

    async def caller(self, token: str) -> Caller:
        """Raises NotAuthenticated, Forbidden when no rule fits a genuine token, Unavailable without the keys."""
        header, issuer = _unverified(token)
        rules = self._rules.get(issuer)
        if rules is None:
            _refuse("of an issuer that is not configured")
        key = await self._keys[issuer].key(header["kid"], header["alg"])
        if key is None:
            _refuse("signed with a key that its issuer does not have")
        claims = _verified(token, key, header["alg"], issuer, [rule.audience for rule in rules])
        subject = f"oidc:{urlsplit(issuer).netloc}:{claims['sub']}"[:_SUBJECT_LENGTH]
        for rule in rules:
            if rule.fits(claims):
                return Caller(rule.tenant, rule.scope, subject)
        raise Forbidden(
            "the token is genuine, but no rule of this endpoint gives its bearer access: ask whoever runs it",
            internal=f"no rule for {subject}",
        )

    def _client(self) -> httpx.AsyncClient:
        import httpx

        if self._own is None:
            self._own = httpx.AsyncClient(follow_redirects=False, timeout=5.0, limits=httpx.Limits(max_connections=8))
        return self._own

    async def close(self) -> None:
        """Closes the connections to the issuers."""
        if self._own is not None:
            await self._own.aclose()
            self._own = None


def _unverified(token: str) -> tuple[Mapping[str, str], str]:
    """What has to be known to find the key: `kid` and `alg` of the header, and the issuer."""
    import jwt

    try:
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        _refuse("malformed")
    if header.get("alg") not in ALGORITHMS:
        _refuse("signed with an algorithm that is not accepted")
    if "crit" in header:
        _refuse("of a kind that has to be understood and is not")
    key_id, issuer = header.get("kid"), claims.get("iss")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= 256 or not isinstance(issuer, str):
        _refuse("without a key id or an issuer")
    return {"kid": key_id, "alg": header["alg"]}, issuer


def _verified(token: str, key: Any, algorithm: str, issuer: str, audiences: list[str]) -> dict[str, Any]:
    import jwt

    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=audiences,
            issuer=issuer,
            leeway=_SKEW,
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
    except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError) as error:
        _refuse(f"refused: {type(error).__name__}")
    issued, expires, subject = claims["iat"], claims["exp"], claims["sub"]
    if not all(type(moment) in (int, float) for moment in (issued, expires)) or not isinstance(subject, str):
        _refuse("with claims of the wrong type")
    if not subject or expires - issued > _LONGEST_LIFE or time.time() - issued > _LONGEST_LIFE:
        _refuse("good for too long")
    return claims


def _refuse(why: str) -> NoReturn:
    raise bad_proof(f"an OIDC token {why}")
