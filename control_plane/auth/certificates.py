"""Client certificates that a TLS proxy in front of us has verified: it passes the subject on, and proves who it is.

The subject alone proves nothing, since anyone can write a header. It counts with the secret that the proxy shares with
us; or a gateway, told by its proxy, vouches for it in a token that holds the subject, is signed with the signing key,
and lasts a minute. A subject without either is a forgery, and refused.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent_gateway.tickets import ATTESTED, Attested
from control_plane.auth.bearer import header
from control_plane.auth.caller import Caller, Scope
from control_plane.errors import Forbidden, Unauthorized

SUBJECT = b"x-sockerless-client-certificate"
PROXY = b"x-sockerless-proxy"
_LONGEST = 512


class CertificateRule(BaseModel):
    """`subject` is compared whole, as the proxy writes it: `CN=ci,O=acme`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject: str = Field(min_length=1, max_length=_LONGEST)
    tenant: str = Field(min_length=1)
    scope: Scope = "run"


def parse_certificates(text: str) -> list[CertificateRule]:
    """`[{"subject", "tenant", "scope"}, …]`. Raises ValueError with one line."""
    try:
        document = orjson.loads(text)
        if not isinstance(document, list):
            raise ValueError("a list of subjects is wanted")
        return [CertificateRule.model_validate(entry, strict=True) for entry in document]
    except ValidationError as error:
        fault = error.errors()[0]
        raise ValueError(f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}") from None


class Certificates:
    """Who the holders of certificates are."""

    def __init__(
        self, rules: Sequence[CertificateRule], secret: str, check_attestation: Callable[[str], Attested]
    ) -> None:
        """`check_attestation` raises Unauthorized for what no gateway has signed."""
        self._rules = {rule.subject: rule for rule in rules}
        self._secret = secret.encode()
        self._check_attestation = check_attestation

    @property
    def configured(self) -> bool:
        """Whether certificates give access here at all."""
        return bool(self._rules)

    def attested(self, scope: Mapping[str, Any]) -> Attested | None:
        """What a gateway says about its client; None when it says nothing. Raises Unauthorized."""
        token = header(scope, ATTESTED)
        return None if token is None else self._check_attestation(token)

    def subject(self, scope: Mapping[str, Any]) -> str:
        """Of the client's certificate; empty without one. Raises Forbidden for what nobody whom we trust has said."""
        try:
            attested = self.attested(scope)
        except Unauthorized as error:
            raise _forged(ATTESTED, str(error)) from None
        named = header(scope, SUBJECT) or ""
        if named and not self._is_proxy(header(scope, PROXY) or ""):
            raise _forged(SUBJECT, "the proxy's secret is missing or wrong")
        return named if attested is None else attested.subject

    def of(self, subject: str) -> Caller:
        """The caller behind a subject that was verified. Raises Forbidden."""
        rule = self._rules.get(subject)
        if rule is None:
            raise Forbidden("the client certificate is not one that this endpoint gives access")
        return Caller(rule.tenant, rule.scope, f"certificate:{subject}"[:256])

    def _is_proxy(self, proof: str) -> bool:
        return bool(self._secret) and hmac.compare_digest(proof.encode("latin-1"), self._secret)


def _forged(name: bytes, internal: str) -> Forbidden:
    message = f"the header {name.decode()} is for the proxies and gateways of this endpoint, not for clients"
    return Forbidden(message, internal=internal)
