"""Client certificates that a TLS proxy in front of us has verified: it passes the subject on, and proves who it is.

The subject alone proves nothing, since anyone can write a header. It counts only with the secret that the proxy shares
with us, or with a gateway's own token.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

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
        self, rules: Sequence[CertificateRule], secret: str, check_gateway: Callable[[str | None], str]
    ) -> None:
        self._rules = {rule.subject: rule for rule in rules}
        self._secret = secret.encode()
        self._check_gateway = check_gateway

    def caller(self, scope: Mapping[str, Any]) -> Caller | None:
        """None when no proxy that we trust passes a subject on. Raises Forbidden for one without a rule."""
        subject = header(scope, SUBJECT)
        if not subject or not self._trusted(header(scope, PROXY) or ""):
            return None
        return self.of(subject)

    def of(self, subject: str) -> Caller:
        """The caller behind a subject that was verified. Raises Forbidden."""
        rule = self._rules.get(subject)
        if rule is None:
            raise Forbidden("the client certificate is not one that this endpoint gives access")
        return Caller(rule.tenant, rule.scope, f"certificate:{subject}"[:256])

    def _trusted(self, proof: str) -> bool:
        if self._secret and hmac.compare_digest(proof.encode("latin-1"), self._secret):
            return True
        try:
            self._check_gateway(f"Bearer {proof}")
        except Unauthorized:
            return False
        return True
