"""Settings of a hosted control plane, from the environment. What belongs to one backend is in that backend's own."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from control_plane.backends.settings_error import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from control_plane.backends.azure_functions.settings import AzureFunctionsSettings
    from control_plane.backends.cloud_functions.settings import CloudFunctionsSettings
    from control_plane.backends.cloud_run.settings import CloudRunSettings

KEY_BYTES = 32
STORE = re.compile(r"(firestore|cosmos|cosmos\+http)://([^/]+)(?:/([^/]+))?/?|sqlite://(/.+)")
_BACKENDS = {
    "cloudrun": "SOCKERLESS_GCR_PROJECT",
    "gcf": "SOCKERLESS_GCF_PROJECT",
    "azf": "SOCKERLESS_AZF_SUBSCRIPTION_ID",
}
"""Backend → the variable that says there is one."""


def _variable(name: str, default: Any, description: str, **limits: Any) -> Any:
    return Field(default, validation_alias=name, description=description, **limits)


class HostedSettings(BaseSettings):
    """Field descriptions are the documentation (`docs/operations.md`)."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, frozen=True, env_ignore_empty=True)

    store: str = _variable(
        "SOCKERLESS_STORE",
        ...,
        "Where the state is: `firestore://project/database`, `cosmos://account.documents.azure.com/database`, or "
        "`sqlite:///path` (one machine). Required.",
    )
    cosmos_key: SecretStr = _variable(
        "SOCKERLESS_COSMOS_KEY", SecretStr(""), "Key of the Cosmos account; empty: the managed identity."
    )
    sealing_key: SecretStr = _variable(
        "SOCKERLESS_SEALING_KEY",
        SecretStr(""),
        "What containers' environments are sealed with in the store: `kms:projects/…/cryptoKeys/…`, "
        "`vault:https://….vault.azure.net/keys/NAME`, or `id base64`. One a line; the first is for what is written "
        "from now on, the others open what is there; without this and the file they lie there as they are.",
    )
    sealing_key_file: str = _variable(
        "SOCKERLESS_SEALING_KEY_FILE", "", "File with such keys (`id base64`, one a line), after those."
    )
    key: SecretStr = _variable(
        "SOCKERLESS_KEY", SecretStr(""), "The endpoint's signing key, at least 32 bytes; the gateways have the same."
    )
    key_file: str = _variable(
        "SOCKERLESS_KEY_FILE", "", "File that holds the signing key. This or SOCKERLESS_KEY is required."
    )
    registry_url: str = _variable(
        "SOCKERLESS_REGISTRY_URL",
        ...,
        "Registry where tenants' images are kept: `https://europe-docker.pkg.dev`, `https://example.azurecr.io`. "
        "Required.",
        pattern=r"^https?://[^/]+$",
    )
    registry_prefix: str = _variable(
        "SOCKERLESS_REGISTRY_PREFIX",
        ...,
        "Path under it (`project/repository` in Artifact Registry). Required.",
        pattern=r"^[a-z0-9][a-z0-9._/-]*$",
    )
    registry_username: str = _variable(
        "SOCKERLESS_REGISTRY_USERNAME",
        "",
        "User name at that registry; empty: the service's own identity at Artifact Registry and Azure's registry, "
        "anonymously elsewhere.",
    )
    registry_password: SecretStr = _variable("SOCKERLESS_REGISTRY_PASSWORD", SecretStr(""), "Its password.")
    registry_mirror: Annotated[tuple[str, ...], NoDecode] = _variable(
        "SOCKERLESS_REGISTRY_MIRROR", (), "Mirrors of docker.io, comma-separated URLs."
    )
    insecure_registry: Annotated[tuple[str, ...], NoDecode] = _variable(
        "SOCKERLESS_INSECURE_REGISTRY",
        (),
        "Registries (host or CIDR, comma-separated) that may be spoken to without TLS. Loopback is none of them.",
    )
    backend: Literal["", "cloudrun", "gcf", "azf"] = _variable(
        "SOCKERLESS_BACKEND", "", "Backend of containers that name none; empty: the first there is."
    )
    gateway_url: str = _variable(
        "SOCKERLESS_GATEWAY_URL",
        "",
        "The one gateway of new containers; empty: the least loaded of those that have registered.",
        pattern=r"^(https?://.+)?$",
    )
    endpoint_name: str = _variable("SOCKERLESS_ENDPOINT_NAME", "sockerless", "Name of this endpoint.")
    temporary: Path = _variable(
        "SOCKERLESS_TEMPORARY",
        Path(tempfile.gettempdir()),
        "Directory for archives on their way through. On Cloud Run it is memory: give the service the size of the "
        "largest `docker load`.",
    )
    port: int = _variable("PORT", 8080, "Port the service listens on.", ge=0, le=65535)
    host: str = _variable("SOCKERLESS_LISTEN_HOST", "0.0.0.0", "Address it listens on.")  # noqa: S104
    start_timeout: float = _variable("SOCKERLESS_START_TIMEOUT", 240, "Seconds `start` waits for the process.", gt=0)
    agent_connect_timeout: float = _variable(
        "SOCKERLESS_AGENT_CONNECT_TIMEOUT", 300, "Seconds until an agent that never dialled is given up.", gt=0
    )
    linger: int = _variable(
        "SOCKERLESS_LINGER",
        600,
        "Seconds an exited container's agent, and what it costs, stays for `cp`, `logs` and `start`; -1: until `rm`.",
        ge=-1,
    )
    reconcile_interval: float = _variable(
        "SOCKERLESS_RECONCILE_INTERVAL",
        30,
        "Seconds between two passes of the reconciler, by one instance at a time; 0: none, a schedule calls for them.",
        ge=0,
    )
    sweep_interval: float = _variable(
        "SOCKERLESS_SWEEP_INTERVAL", 900, "Seconds between two sweeps for cloud resources of nobody.", gt=0
    )
    graceful: float = _variable(
        "SOCKERLESS_GRACEFUL",
        7,
        "Seconds that requests under way have after SIGTERM before they are cut (Cloud Run kills after 10).",
        ge=0,
    )

    @field_validator("registry_mirror", "insecure_registry", mode="before")
    @classmethod
    def _comma_separated(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("store")
    @classmethod
    def _store_is_known(cls, value: str) -> str:
        if not STORE.fullmatch(value):
            raise ValueError(
                f"{value!r} is none of firestore://project/database, cosmos://account.documents.azure.com/database, "
                "sqlite:///path"
            )
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if bool(self.key.get_secret_value()) == bool(self.key_file):
            raise ValueError("one of SOCKERLESS_KEY and SOCKERLESS_KEY_FILE is wanted: the endpoint's signing key")
        if bool(self.registry_username) != bool(self.registry_password.get_secret_value()):
            raise ValueError("SOCKERLESS_REGISTRY_USERNAME and SOCKERLESS_REGISTRY_PASSWORD go together")
        return self

    def signing_key(self) -> bytes:
        """Without white space around it, as the gateways read it. Raises SettingsError."""
        if not self.key_file:
            name, key = "SOCKERLESS_KEY", self.key.get_secret_value().encode()
        else:
            name = "SOCKERLESS_KEY_FILE"
            try:
                key = Path(self.key_file).read_bytes()
            except OSError as error:
                raise SettingsError(f"{name}: {self.key_file} cannot be read: {error.strerror}") from None
        key = key.strip()
        if len(key) < KEY_BYTES:
            raise SettingsError(f"{name}: the key has {len(key)} bytes, {KEY_BYTES} are wanted")
        return key

    def server_id(self, key: bytes) -> str:
        """The same in every instance of the endpoint."""
        return hashlib.sha256(b"server-id:" + self.endpoint_name.encode() + key).hexdigest()[:32]

    @property
    def instance(self) -> str:
        """Names this process in leases: no two are alike."""
        revision = os.environ.get("K_REVISION") or os.environ.get("CONTAINER_APP_REVISION") or "control-plane"
        return f"{revision}-{secrets.token_hex(6)}"


@dataclass(frozen=True, slots=True)
class Backends:
    """The settings of the backends there are."""

    cloud_run: CloudRunSettings | None
    cloud_functions: CloudFunctionsSettings | None
    azure_functions: AzureFunctionsSettings | None
    default: str


def load_settings(**overrides: Any) -> HostedSettings:
    """From the environment, with `overrides` by field name on top. Raises SettingsError with one line."""
    try:
        return HostedSettings(**overrides)
    except ValidationError as error:
        raise SettingsError("; ".join(_one_line(problem) for problem in error.errors())) from None


def load_backends(settings: HostedSettings) -> Backends:
    """Those whose required variable is set. Raises SettingsError with one line."""
    from control_plane.backends.azure_functions import settings as azure
    from control_plane.backends.cloud_functions import settings as functions
    from control_plane.backends.cloud_run import settings as jobs

    found = Backends(
        _if_set("cloudrun", jobs.load_settings),
        _if_set("gcf", functions.load_settings),
        _if_set("azf", azure.load_settings),
        settings.backend,
    )
    there = [name for name, variable in _BACKENDS.items() if os.environ.get(variable)]
    if not there:
        raise SettingsError(f"there is no backend: one of {', '.join(_BACKENDS.values())} must be set")
    if settings.backend and settings.backend not in there:
        raise SettingsError(
            f"SOCKERLESS_BACKEND: {settings.backend} needs {_BACKENDS[settings.backend]}; there is: {', '.join(there)}"
        )
    return Backends(found.cloud_run, found.cloud_functions, found.azure_functions, settings.backend or there[0])


def _if_set(name: str, load: Callable[[], Any]) -> Any:
    return load() if os.environ.get(_BACKENDS[name]) else None


def _one_line(problem: Any) -> str:
    text = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return text
    name = str(problem["loc"][0])
    field = HostedSettings.model_fields.get(name)
    variable = str(field.validation_alias) if field is not None else name
    if problem["type"] == "missing":
        return f"{variable} is not set"
    return f"{variable}: {text}"
