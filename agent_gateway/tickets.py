"""The tokens of the gateway, all JWTs (HS256): agent tokens, tickets, gateway tokens, attestations.

docs/wire-protocol.md, section 1. `typ` keeps them apart: none is accepted in the place of another.
PyJWT is imported at first use: with `cryptography` it costs a tenth of a second of every cold start.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

_ALGORITHM = "HS256"
TICKET_SECONDS = 60
KIND_CALL = "call"
ATTESTED = b"x-sockerless-attested"
"""The header in which a gateway vouches for its client to the control plane."""
_ATTESTATION_SECONDS = 60


class TicketRefused(Exception):
    """A token that is forged, expired, of another type or for something else. The text is fit for the peer."""


@dataclass(frozen=True, slots=True)
class AgentToken:
    """Who an agent is."""

    tenant: str
    container: str
    run: int = 0
    """The container's run that the token was made for; 0: any."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What its bearer may do: open one stream, or (kind `call`) call one agent."""

    tenant: str
    container: str
    kind: str
    stream: str
    """Empty for calls."""
    params: dict[str, Any]
    expired: bool = False
    """Only a redial of a live stream may still use it."""
    id: str = ""
    """What makes it one ticket: the stream's id, or that of the call."""
    expires: float = 0.0
    """Unix seconds."""


def mint_agent_token(key: bytes, tenant: str, container: str, seconds: float, run: int = 0) -> str:
    """An agent's token; with a `run` a new agent may begin that run with it and no other."""
    claims: dict[str, Any] = {"typ": "agent", "ten": tenant, "cid": container}
    if run:
        claims["run"] = run
    return _mint(key, claims, seconds)


def verify_agent_token(key: bytes, token: str) -> AgentToken:
    """Raises TicketRefused."""
    claims = _claims(key, token, "agent")
    run = claims.get("run", 0)
    if type(run) is not int or run < 0:
        raise TicketRefused("the token is malformed")
    return AgentToken(_string(claims, "ten"), _string(claims, "cid"), run)


def mint_ticket(
    key: bytes,
    tenant: str,
    container: str,
    kind: str,
    stream: str = "",
    params: Mapping[str, Any] | None = None,
    seconds: float = TICKET_SECONDS,
) -> str:
    """A ticket for one stream, or for calls (`kind="call"`, no stream)."""
    claims: dict[str, Any] = {"typ": "ticket", "ten": tenant, "cid": container, "kind": kind}
    if stream:
        claims["sid"] = stream
        claims["params"] = dict(params or {})
    else:
        claims["jti"] = secrets.token_hex(16)
    return _mint(key, claims, seconds)


def verify_ticket(key: bytes, token: str, *, stream: str = "", allow_expired: bool = False) -> Ticket:
    """A ticket for `stream` (or, with no stream, for calls). Raises TicketRefused.

    With `allow_expired` an expired one is returned, marked: it may rejoin a live stream and nothing else.
    """
    claims = _claims(key, token, "ticket", allow_expired=allow_expired)
    kind = _string(claims, "kind")
    if claims.get("sid", "") != stream or (kind == KIND_CALL) != (stream == ""):
        raise TicketRefused("the ticket is for another stream")
    params = claims.get("params", {})
    if not isinstance(params, dict):
        raise TicketRefused("the ticket is malformed")
    expires = cast(float, claims["exp"])
    ticket_id = stream or _string(claims, "jti")
    return Ticket(
        _string(claims, "ten"), _string(claims, "cid"), kind, stream, params, expires <= time.time(), ticket_id, expires
    )


def mint_gateway_token(key: bytes, gateway: str, seconds: float) -> str:
    """What a gateway shows to the control plane's `/internal/v1`."""
    return _mint(key, {"typ": "gateway", "gw": gateway}, seconds)


def verify_gateway_token(key: bytes, token: str) -> str:
    """The gateway's URL. Raises TicketRefused."""
    return _string(_claims(key, token, "gateway"), "gw")


@dataclass(frozen=True, slots=True)
class Attested:
    """A client that a gateway vouches for, as the TLS proxy before it said."""

    gateway: str
    """URL."""
    address: str
    """IP address; empty where the proxy told none."""
    subject: str
    """Of the client's certificate, verified by the proxy; empty without one."""


def mint_attestation(key: bytes, gateway: str, address: str, subject: str) -> str:
    """A gateway's word for its client, with one request; it lasts a minute."""
    return _mint(key, {"typ": "client", "gw": gateway, "adr": address, "crt": subject}, _ATTESTATION_SECONDS)


def verify_attestation(key: bytes, token: str) -> Attested:
    """Raises TicketRefused."""
    claims = _claims(key, token, "client")
    address, subject = claims.get("adr"), claims.get("crt")
    if not isinstance(address, str) or not isinstance(subject, str):
        raise TicketRefused("the token is malformed")
    return Attested(_string(claims, "gw"), address, subject)


class GatewayTokens:
    """Gateway tokens, minted again well before they expire."""

    def __init__(self, key: bytes, gateway: str, seconds: float = 3600) -> None:
        self._key = key
        self._gateway = gateway
        self._seconds = seconds
        self._token = ""
        self._until = 0.0

    def current(self) -> str:
        """A token that is valid for at least half of its life."""
        now = time.time()
        if now >= self._until:
            self._token = mint_gateway_token(self._key, self._gateway, self._seconds)
            self._until = now + self._seconds / 2
        return self._token


def bearer(authorization: str) -> str:
    """The token of an `Authorization: Bearer …` header. Raises TicketRefused."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise TicketRefused("a bearer token is wanted")
    return token.strip()


def _mint(key: bytes, claims: dict[str, Any], seconds: float) -> str:
    import jwt

    return jwt.encode({**claims, "exp": int(time.time() + seconds)}, key, algorithm=_ALGORITHM)


def _claims(key: bytes, token: str, kind: str, *, allow_expired: bool = False) -> dict[str, Any]:
    import jwt

    options: Any = {"require": ["exp"], "verify_exp": not allow_expired}
    try:
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=[_ALGORITHM], options=options)
    except jwt.ExpiredSignatureError:
        raise TicketRefused("the token has expired") from None
    except jwt.InvalidTokenError:
        raise TicketRefused("the token is not valid") from None
    if claims.get("typ") != kind or type(claims["exp"]) not in (int, float):
        raise TicketRefused("the token is of another type")
    return claims


def _string(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise TicketRefused("the token is malformed")
    return value
