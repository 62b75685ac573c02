"""Which identities of which issuers are whom here: `[{"issuer", "audience", "claims", "tenant", "scope"}, …]`.

A pattern in `claims` is a text in which `*` stands for anything but `/` and `:`, and `**` for anything. A claim that is
a list fits when one of its elements does. Every condition has to hold; the first rule that fits decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from control_plane.auth.caller import Scope
from control_plane.auth.exposure import is_loopback

_ANYTHING = re.compile(r"\*+\Z")

Value = str | bool | int


class OidcRule(BaseModel):
    """One line of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: str
    """Exactly as in the tokens' `iss`."""
    audience: str = Field(min_length=1)
    """Exactly as in the tokens' `aud`: this endpoint's URL, so that a token for others is of no use here."""
    claims: dict[str, Value | list[Value]] = Field(min_length=1)
    """At least one condition: issuers such as GitHub's sign tokens for everybody in the world."""
    tenant: str = Field(min_length=1)
    scope: Scope = "run"

    @field_validator("issuer")
    @classmethod
    def _check_issuer(cls, issuer: str) -> str:
        if not safe_url(issuer):
            raise ValueError(f"issuer {issuer!r}: an https URL is wanted")
        return issuer

    @field_validator("claims")
    @classmethod
    def _check_claims(cls, claims: dict[str, Any]) -> dict[str, Any]:
        for name, wanted in claims.items():
            values = wanted if isinstance(wanted, list) else [wanted]
            if not values or any(isinstance(value, str) and _ANYTHING.match(value) for value in values):
                raise ValueError(f"claim {name}: a condition that everything meets is none")
            if any(value == "" for value in values):
                raise ValueError(f"claim {name}: the condition is empty")
        if set(claims) <= {"iss", "aud", "email_verified"}:
            raise ValueError("the claims name nobody: add one such as sub, repository, project_path, hd, tid or email")
        return claims

    @cached_property
    def _conditions(self) -> Mapping[str, Sequence[re.Pattern[str] | bool | int]]:
        return {
            name: [_pattern(value) if isinstance(value, str) else value for value in _listed(wanted)]
            for name, wanted in self.claims.items()
        }

    def fits(self, claims: Mapping[str, Any]) -> bool:
        """Whether verified claims meet every condition, the audience included."""
        audiences = claims.get("aud")
        if self.audience not in (audiences if isinstance(audiences, list) else [audiences]):
            return False
        return all(
            any(_meets(value, condition) for value in _listed(claims.get(name)) for condition in conditions)
            for name, conditions in self._conditions.items()
        )


def parse_rules(text: str) -> list[OidcRule]:
    """The configuration's JSON. Raises ValueError with one line that names the rule."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(document, list):
        raise ValueError("a list of rules is wanted")
    rules = []
    for number, entry in enumerate(document, 1):
        try:
            rules.append(OidcRule.model_validate(entry, strict=True))
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(str(part) for part in fault["loc"])
            raise ValueError(f"rule {number}: {place}: {fault['msg']}") from None
    return rules


def safe_url(url: str) -> bool:
    """https, or http to this machine itself; nothing but a host, a port and a path."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.query or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _pattern(text: str) -> re.Pattern[str]:
    parts = re.split(r"(\*+)", text)
    return re.compile(
        "".join("[^/:]*" if part == "*" else ".*" if part.startswith("*") else re.escape(part) for part in parts),
        re.DOTALL,
    )


def _meets(value: Any, condition: re.Pattern[str] | bool | int) -> bool:
    if isinstance(condition, re.Pattern):
        return isinstance(value, str) and len(value) <= 1024 and condition.fullmatch(value) is not None
    return type(value) is type(condition) and value == condition
