"""Settings that every backend on Google Cloud has, from the same variables."""

from __future__ import annotations

from typing import Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from control_plane.backends.binds import BindRule, parse_rules
from control_plane.backends.location import Location
from control_plane.backends.settings_error import SettingsError
from control_plane.backends.sizes import Resources, parse_size

_GCSFUSE = ("implicit-dirs", "dir-mode=777", "file-mode=777", "rename-dir-limit=200000", "metadata-cache-ttl-secs=0")


def variable(name: str, default: Any, description: str, **limits: Any) -> Any:
    """A field that is read from the environment variable `name`."""
    return Field(default, validation_alias=name, description=description, **limits)


class GoogleSettings(BaseSettings):
    """Where the project's services are, and what containers' volumes and output are there."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, frozen=True, env_ignore_empty=True)

    project: str
    region: str
    service_account: str
    vpc_connector: str
    cpu: float
    memory: str
    callback_url: str = variable(
        "SOCKERLESS_CALLBACK_URL",
        "",
        "Where agents dial at their start, and nowhere else: a URL, or several with spaces between them. Empty: the "
        "gateway that the container was given, then up to four others.",
    )
    endpoint_url: str = variable(
        "SOCKERLESS_ENDPOINT_URL",
        "",
        "Where the cloud's APIs are in place of Google's, `http://host:port` (a local cloud; plain gRPC and HTTP, no "
        "credentials).",
    )
    gcp_endpoint: str = variable(
        "SOCKERLESS_GCP_ENDPOINT",
        "",
        "`host:port` of the local cloud's gRPC listener, where it differs from the above.",
    )
    storage_endpoint: str = variable(
        "SOCKERLESS_GCP_STORAGE_ENDPOINT",
        "",
        "URL of the local cloud's object storage, where it differs from the above.",
    )
    endpoint_name: str = variable(
        "SOCKERLESS_ENDPOINT_NAME",
        "sockerless",
        "Name of this endpoint in the labels of its cloud resources. Endpoints that share a project need different "
        "ones: the sweeper removes what carries its own name and belongs to no container it knows.",
        pattern=r"^[a-z][a-z0-9_-]{0,62}$",
    )
    registry_writable: bool = variable(
        "SOCKERLESS_GCR_REGISTRY_WRITABLE",
        True,
        "Whether images with the agent's layer may be pushed to the registry: `image_layer`, which `gcf` needs.",
    )
    architecture: Literal["amd64", "arm64"] = variable(
        "SOCKERLESS_GCR_ARCHITECTURE", "amd64", "Architecture of the platform's machines; Google's have amd64 only."
    )
    bind_rules: str = variable(
        "SOCKERLESS_BIND_RULES",
        "",
        "Where bind mounts are taken from: `prefix=nfs://server/export;prefix=gs://bucket/prefix`. The longest prefix "
        "of the path counts; `{tenant}` in a target is the tenant's name.",
    )
    volume_storage: Literal["gcs", "nfs"] = variable(
        "SOCKERLESS_VOLUME_STORAGE", "gcs", "What Docker volumes are: prefixes of the bucket, or NFS directories."
    )
    bucket: str = variable(
        "SOCKERLESS_GCP_BUCKET",
        "",
        "Bucket for volumes (`gcs`), for files copied into containers before their start, and for the functions' stub; "
        "empty: `<project>-sockerless`.",
    )
    gcs_mount_options: str = variable(
        "SOCKERLESS_GCR_GCS_MOUNT_OPTIONS",
        "",
        f"Options of bucket mounts, comma-separated, as gcsfuse names them; empty: `{','.join(_GCSFUSE)}`, which lets "
        "every user write, renames directories and shows other containers' changes at once (a local cloud's buckets "
        "are directories and need none).",
    )
    volume_nfs: str = variable("SOCKERLESS_VOLUME_NFS", "", "`nfs://server/export` that holds the volumes (`nfs`).")
    volume_nfs_path: str = variable(
        "SOCKERLESS_VOLUME_NFS_PATH", "", "Where the control plane itself has that export mounted (`nfs`)."
    )
    log_id: str = variable(
        "SOCKERLESS_GCR_LOG_ID",
        "",
        "A log id read besides `run.googleapis.com/stdout` and `…/stderr`, where the project routes output to a log of "
        "its own. Its entries of severity ERROR and above count as stderr.",
    )
    log_reads_per_minute: int = variable(
        "SOCKERLESS_GCR_LOG_READS_PER_MINUTE",
        60,
        "Cloud Logging list calls a minute that this process keeps to; 0: no bound.",
        ge=0,
    )
    log_drain: float = variable(
        "SOCKERLESS_GCR_LOG_DRAIN",
        20.0,
        "Seconds without a new line after which the log archive of a finished execution counts as complete.",
        ge=0,
    )
    sweep_grace: float = variable(
        "SOCKERLESS_SWEEP_GRACE",
        600.0,
        "Seconds a cloud resource is left alone after it was made before the sweeper may remove it: its container may "
        "be newer than the list of known ones.",
        ge=0,
    )

    @field_validator("memory", check_fields=False)
    @classmethod
    def _memory_is_a_size(cls, value: str) -> str:
        parse_size(value)
        return value

    @field_validator("bind_rules")
    @classmethod
    def _rules_can_be_read(cls, value: str) -> str:
        parse_rules(value)
        return value

    @model_validator(mode="after")
    def _volumes_have_a_place(self) -> Self:
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
    def parent(self) -> str:
        """`projects/…/locations/…`."""
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def default_resources(self) -> Resources:
        """For containers that ask for none."""
        return Resources(nano_cpus=int(self.cpu * 1_000_000_000), memory=parse_size(self.memory))

    @property
    def connector(self) -> str:
        """The VPC connector's full resource name; empty for none."""
        if not self.vpc_connector or "/" in self.vpc_connector:
            return self.vpc_connector
        return f"{self.parent}/connectors/{self.vpc_connector}"


T = TypeVar("T", bound=GoogleSettings)


def load(kind: type[T], what: str, **overrides: Any) -> T:
    """From the environment, with `overrides` by field name on top. Raises SettingsError with one line.

    `what` the project is for: the end of the sentence about one that is not named.
    """
    try:
        return kind(**overrides)
    except ValidationError as error:
        raise SettingsError("; ".join(_one_line(kind, what, problem) for problem in error.errors())) from None


def _one_line(kind: type[GoogleSettings], what: str, problem: Any) -> str:
    text = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return text
    name = str(problem["loc"][0])
    field = kind.model_fields.get(name)
    variable_name = str(field.validation_alias) if field is not None else name
    if problem["type"] == "missing":
        return f"{variable_name} is not set: it names the Google Cloud project {what}"
    return f"{variable_name}: {text}"
