"""The Cloud Run backend's settings, from the environment. The table in `docs/backends/cloud_run.md` is made from it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from control_plane.backends.binds import BindRule, parse_rules
from control_plane.backends.location import Location
from control_plane.backends.sizes import Resources, parse_size
from control_plane.errors import InvalidParameter
from control_plane.registry.reference import parse_named

LONGEST_RUN = 168 * 3600
"""Seconds: the longest task timeout of Cloud Run jobs."""

_GCSFUSE = ("implicit-dirs", "dir-mode=777", "file-mode=777", "rename-dir-limit=200000", "metadata-cache-ttl-secs=0")

InjectionSetting = Literal["auto", "startup_command", "image_layer", "volume", "none"]


class SettingsError(Exception):
    """The settings do not allow a start; the message is one line and names the variable."""


def _variable(name: str, default: Any, description: str, **limits: Any) -> Any:
    return Field(default, validation_alias=name, description=description, **limits)


class CloudRunSettings(BaseSettings):
    """Field descriptions are the documentation."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, frozen=True, env_ignore_empty=True)

    project: str = _variable(
        "SOCKERLESS_GCR_PROJECT", ..., "Google Cloud project the jobs are made in. Required.", min_length=1
    )
    region: str = _variable("SOCKERLESS_GCR_REGION", "us-central1", "Region of the jobs.")
    vpc_connector: str = _variable(
        "SOCKERLESS_GCR_VPC_CONNECTOR",
        "",
        "Serverless VPC Access connector of the jobs: its name in the region, or the full resource name. "
        "NFS volumes need one.",
    )
    log_id: str = _variable(
        "SOCKERLESS_GCR_LOG_ID",
        "",
        "A log id read besides `run.googleapis.com/stdout` and `…/stderr`, where the project routes output to a log of "
        "its own. Its entries of severity ERROR and above count as stderr.",
    )
    agent_image: str = _variable(
        "SOCKERLESS_GCR_AGENT_IMAGE",
        "",
        "An image whose file `/.sockerless/agent` is put into containers in place of this distribution's agent "
        "(`image_layer`, `volume`), so that a deployment can pin it; best named by digest. It is pulled anonymously, "
        "from the endpoint's own registry with its login. Empty: the built-in agent.",
    )
    agent_token: str = _variable(
        "SOCKERLESS_GCR_AGENT_TOKEN",
        "",
        "The key that agent tokens are signed with, in place of the endpoint's own (at least 32 characters; the same "
        "for every control plane and gateway of the endpoint). It is never given to a container.",
        repr=False,
    )
    callback_url: str = _variable(
        "SOCKERLESS_CALLBACK_URL",
        "",
        "Where agents dial the gateway; empty: the URL of the gateway the container was given at create.",
    )
    endpoint_url: str = _variable(
        "SOCKERLESS_ENDPOINT_URL",
        "",
        "Where the cloud's APIs are in place of Google's, `http://host:port` (a local cloud; plain gRPC and HTTP, no "
        "credentials).",
    )
    gcp_endpoint: str = _variable(
        "SOCKERLESS_GCP_ENDPOINT",
        "",
        "`host:port` of the local cloud's gRPC listener, where it differs from the above.",
    )
    storage_endpoint: str = _variable(
        "SOCKERLESS_GCP_STORAGE_ENDPOINT",
        "",
        "URL of the local cloud's object storage, where it differs from the above.",
    )
    endpoint_name: str = _variable(
        "SOCKERLESS_ENDPOINT_NAME",
        "sockerless",
        "Name of this endpoint in the labels of its cloud resources. Endpoints that share a project need different "
        "ones: the sweeper removes what carries its own name and belongs to no container it knows.",
        pattern=r"^[a-z][a-z0-9_-]{0,62}$",
    )
    service_account: str = _variable(
        "SOCKERLESS_GCR_SERVICE_ACCOUNT", "", "Service account the containers run as; empty: the project's default."
    )
    injection: InjectionSetting = _variable(
        "SOCKERLESS_GCR_INJECTION",
        "auto",
        "How the agent gets into the container: `image_layer`, `volume`, `startup_command`, `none`, or `auto`: the "
        "first of the first three, in this order, that works for the image.",
    )
    registry_writable: bool = _variable(
        "SOCKERLESS_GCR_REGISTRY_WRITABLE",
        True,
        "Whether derived images may be pushed to the registry (`image_layer`).",
    )
    agent_location: str = _variable(
        "SOCKERLESS_GCR_AGENT_VOLUME",
        "",
        "`gs://bucket/prefix` where the control plane puts the agent for injection `volume`, as "
        "`linux-<arch>/<digest>/agent`; empty with `SOCKERLESS_GCR_INJECTION=volume`: `agent/` in "
        "SOCKERLESS_GCP_BUCKET; empty with `auto`: `volume` is left out.",
    )
    architecture: Literal["amd64", "arm64"] = _variable(
        "SOCKERLESS_GCR_ARCHITECTURE", "amd64", "Architecture of the platform's machines; Cloud Run has amd64 only."
    )
    timeout: int = _variable(
        "SOCKERLESS_GCR_TIMEOUT",
        LONGEST_RUN,
        "Seconds a container may run; then the platform ends it. It counts from the start of provisioning.",
        ge=1,
        le=LONGEST_RUN,
    )
    cpu: float = _variable("SOCKERLESS_GCR_CPU", 1.0, "CPUs of a container without `--cpus`.", gt=0, le=8)
    memory: str = _variable("SOCKERLESS_GCR_MEMORY", "512Mi", "Memory of a container without `-m`.")
    bind_rules: str = _variable(
        "SOCKERLESS_BIND_RULES",
        "",
        "Where bind mounts are taken from: `prefix=nfs://server/export;prefix=gs://bucket/prefix`. The longest prefix "
        "of the path counts; `{tenant}` in a target is the tenant's name.",
    )
    volume_storage: Literal["gcs", "nfs"] = _variable(
        "SOCKERLESS_VOLUME_STORAGE", "gcs", "What Docker volumes are: prefixes of the bucket, or NFS directories."
    )
    bucket: str = _variable(
        "SOCKERLESS_GCP_BUCKET",
        "",
        "Bucket for volumes (`gcs`) and for files copied into containers before their start; empty: "
        "`<project>-sockerless`.",
    )
    gcs_mount_options: str = _variable(
        "SOCKERLESS_GCR_GCS_MOUNT_OPTIONS",
        "",
        f"Options of bucket mounts, comma-separated, as gcsfuse names them; empty: `{','.join(_GCSFUSE)}`, which lets "
        "every user write, renames directories and shows other containers' changes at once (a local cloud's buckets "
        "are directories and need none).",
    )
    volume_nfs: str = _variable("SOCKERLESS_VOLUME_NFS", "", "`nfs://server/export` that holds the volumes (`nfs`).")
    volume_nfs_path: str = _variable(
        "SOCKERLESS_VOLUME_NFS_PATH", "", "Where the control plane itself has that export mounted (`nfs`)."
    )
    writes_per_minute: int = _variable(
        "SOCKERLESS_GCR_WRITES_PER_MINUTE",
        180,
        "Cloud Run Admin writes a minute that this process keeps to; 0: no bound.",
        ge=0,
    )
    log_reads_per_minute: int = _variable(
        "SOCKERLESS_GCR_LOG_READS_PER_MINUTE",
        60,
        "Cloud Logging list calls a minute that this process keeps to; 0: no bound.",
        ge=0,
    )
    log_drain: float = _variable(
        "SOCKERLESS_GCR_LOG_DRAIN",
        20.0,
        "Seconds without a new line after which the log archive of a finished execution counts as complete.",
        ge=0,
    )

    @field_validator("memory")
    @classmethod
    def _memory_is_a_size(cls, value: str) -> str:
        parse_size(value)
        return value

    @field_validator("agent_image")
    @classmethod
    def _agent_image_is_a_reference(cls, value: str) -> str:
        try:
            return str(parse_named(value).tagged()) if value else ""
        except InvalidParameter as error:
            raise ValueError(f"{value!r} is not an image reference: {error.message}") from None

    @field_validator("bind_rules")
    @classmethod
    def _rules_can_be_read(cls, value: str) -> str:
        parse_rules(value)
        return value

    @field_validator("agent_token")
    @classmethod
    def _key_is_long_enough(cls, value: str) -> str:
        if value and len(value) < 32:
            raise ValueError("must have at least 32 characters")
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.injection == "startup_command" and self.agent_image:
            raise ValueError(
                "SOCKERLESS_GCR_AGENT_IMAGE has no effect with SOCKERLESS_GCR_INJECTION=startup_command: "
                "the gateway hands out its own agent"
            )
        if self.injection == "image_layer" and not self.registry_writable:
            raise ValueError("SOCKERLESS_GCR_INJECTION=image_layer needs SOCKERLESS_GCR_REGISTRY_WRITABLE")
        if self.agent_location and Location.parse(self.agent_location).scheme != "gs":
            raise ValueError("SOCKERLESS_GCR_AGENT_VOLUME must be gs://bucket/prefix")
        if self.volume_storage == "nfs":
            if not self.volume_nfs or not self.volume_nfs_path:
                raise ValueError(
                    "SOCKERLESS_VOLUME_STORAGE=nfs needs SOCKERLESS_VOLUME_NFS and SOCKERLESS_VOLUME_NFS_PATH"
                )
            if Location.parse(self.volume_nfs).scheme != "nfs":
                raise ValueError("SOCKERLESS_VOLUME_NFS must be nfs://server/export")
        return self

    @property
    def rules(self) -> tuple[BindRule, ...]:
        """The bind rules, longest prefix first."""
        return parse_rules(self.bind_rules)

    @property
    def volume_root(self) -> Location:
        """Where all volumes lie."""
        if self.volume_storage == "nfs":
            return Location.parse(self.volume_nfs)
        return Location("gs", self.bucket_name, "")

    @property
    def agent_place(self) -> Location | None:
        """Where the agent is put for injection `volume`; None where that is left out."""
        if self.agent_location:
            return Location.parse(self.agent_location)
        return Location("gs", self.bucket_name, "agent") if self.injection == "volume" else None

    @property
    def mount_options(self) -> tuple[str, ...]:
        """Options of bucket mounts."""
        if self.gcs_mount_options:
            return tuple(option.strip() for option in self.gcs_mount_options.split(",") if option.strip())
        return () if self.endpoint_url or self.gcp_endpoint else _GCSFUSE

    @property
    def bucket_name(self) -> str:
        """The bucket, by its setting or by the project's name."""
        return self.bucket or f"{self.project}-sockerless"

    @property
    def default_resources(self) -> Resources:
        """For containers that ask for none."""
        return Resources(nano_cpus=int(self.cpu * 1_000_000_000), memory=parse_size(self.memory))

    @property
    def parent(self) -> str:
        """`projects/…/locations/…`."""
        return f"projects/{self.project}/locations/{self.region}"


def load_settings(**overrides: Any) -> CloudRunSettings:
    """From the environment, with `overrides` by field name on top. Raises SettingsError with one line."""
    try:
        return CloudRunSettings(**overrides)
    except ValidationError as error:
        raise SettingsError("; ".join(_one_line(problem) for problem in error.errors())) from None


def _one_line(problem: Any) -> str:
    text = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return text
    name = str(problem["loc"][0])
    field = CloudRunSettings.model_fields.get(name)
    variable = str(field.validation_alias) if field is not None else name
    if problem["type"] == "missing":
        return f"{variable} is not set: it names the Google Cloud project the containers run in"
    return f"{variable}: {text}"
