"""Who may use a hosted endpoint besides the holders of its tokens: from the environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from control_plane.auth.access import Access
from control_plane.auth.certificates import CertificateRule, Certificates, parse_certificates
from control_plane.auth.oidc import Oidc
from control_plane.auth.oidc_rules import OidcRule, parse_rules
from control_plane.backends.settings_error import SettingsError
from control_plane.services.tenants import Tenants
from control_plane.services.tokens import Tokens

if TYPE_CHECKING:
    from agent_gateway.tickets import Attested
    from control_plane.store.base import Store

_SHORTEST_SECRET = 32


def _variable(name: str, description: str) -> Any:
    return Field("", validation_alias=name, description=description)


class AccessSettings(BaseSettings):
    """Field descriptions are the documentation (`docs/access.md`)."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, frozen=True)

    oidc: str = _variable(
        "SOCKERLESS_OIDC",
        'Rules for OIDC tokens, JSON: `[{"issuer", "audience", "claims": {…}, "tenant", "scope"}, …]`.',
    )
    oidc_file: str = _variable("SOCKERLESS_OIDC_FILE", "File with these rules.")
    certificates: str = _variable(
        "SOCKERLESS_CLIENT_CERTIFICATES",
        'Subjects of client certificates, JSON: `[{"subject", "tenant", "scope"}, …]`; verified by the TLS proxy.',
    )
    certificates_file: str = _variable("SOCKERLESS_CLIENT_CERTIFICATES_FILE", "File with these subjects.")
    proxy_secret: SecretStr = Field(
        SecretStr(""),
        validation_alias="SOCKERLESS_PROXY_SECRET",
        description="What the TLS proxy shows in `X-Sockerless-Proxy`, at least 32 characters; empty: only gateways "
        "may pass subjects on.",
    )
    proxy_secret_file: str = _variable("SOCKERLESS_PROXY_SECRET_FILE", "File with that secret.")

    def rules(self) -> list[OidcRule]:
        """Raises SettingsError with one line."""
        text = _text("SOCKERLESS_OIDC", self.oidc, self.oidc_file)
        return _parsed("SOCKERLESS_OIDC", parse_rules, text)

    def subjects(self) -> list[CertificateRule]:
        """Raises SettingsError with one line."""
        text = _text("SOCKERLESS_CLIENT_CERTIFICATES", self.certificates, self.certificates_file)
        return _parsed("SOCKERLESS_CLIENT_CERTIFICATES", parse_certificates, text)

    def secret(self) -> str:
        """Raises SettingsError with one line."""
        name = "SOCKERLESS_PROXY_SECRET"
        secret = _text(name, self.proxy_secret.get_secret_value(), self.proxy_secret_file).strip()
        if secret and (len(secret) < _SHORTEST_SECRET or not secret.isascii()):
            raise SettingsError(f"{name}: at least {_SHORTEST_SECRET} ASCII characters are wanted")
        return secret


def build_access(
    store: Store, check_attestation: Callable[[str], Attested], settings: AccessSettings | None = None
) -> Access:
    """`Authenticate` of a hosted endpoint, with `GatewayAuth.check_attestation`. Raises SettingsError."""
    settings = settings or AccessSettings()
    tenants = Tenants(store)
    rules, subjects = settings.rules(), settings.subjects()
    secret = settings.secret()
    return Access(
        Tokens(store, tenants),
        tenants,
        Oidc(rules) if rules else None,
        Certificates(subjects, secret, check_attestation),
    )


def _text(name: str, value: str, file: str) -> str:
    if value and file:
        raise SettingsError(f"{name} and {name}_FILE: one of them is wanted")
    if not file:
        return value
    try:
        return Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}_FILE: {file} cannot be read: {error}") from None


def _parsed(name: str, parse: Callable[[str], list[Any]], text: str) -> list[Any]:
    try:
        return parse(text) if text.strip() else []
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from None
