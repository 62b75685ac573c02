"""The documents kept in the store, one class per entity.

Names follow Docker's words; times are RFC 3339 strings with nanoseconds in UTC (Docker's own form,
`0001-01-01T00:00:00Z` for "never"). The Docker-facing parts (`config`, `host_config`, …) are kept as
Docker's JSON, already validated and filled with moby's defaults at create, so that inspect gives them back unchanged.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

ZERO_TIME = "0001-01-01T00:00:00Z"

ContainerStatus = Literal["created", "starting", "running", "paused", "restarting", "removing", "exited", "dead"]
"""`starting` is ours: the run was asked for and has not reported; Docker clients are shown `created` or `exited`."""


class Entity(BaseModel):
    """A stored document. Instances are values: change by `model_copy(update=…)` and compare-and-set."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Health(Entity):
    """Docker's `State.Health`."""

    status: Literal["starting", "healthy", "unhealthy"] = "starting"
    failing_streak: int = 0
    log: list[dict[str, Any]] = Field(default_factory=list)
    """The last five probe results, Docker's shape: Start, End, ExitCode, Output."""


class RunState(Entity):
    """What we know of the container's process."""

    status: ContainerStatus = "created"
    run: int = 0
    """Number of the last run asked for; 0 before the first start."""
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    start_failed: bool = False
    """The run's process never ran: then alone `wait` answers with the error."""
    oom_killed: bool = False
    started_at: str = ZERO_TIME
    finished_at: str = ZERO_TIME
    health: Health | None = None
    stop_requested: bool = False
    """A stop or kill came from the API: restart policies do not apply to this exit."""
    restart_delay: float = 0.0
    """Seconds of backoff before the last restart by policy; doubles while runs are short."""


class Execution(Entity):
    """The cloud run that holds the container's agent (or, agentless, its command)."""

    name: str
    """The cloud's full resource name."""
    job: str
    first_run: int
    """The container's run number that this execution was made for; a lingering agent serves later runs in it."""
    agentless: bool = False
    created_at: str


class AgentLink(Entity):
    """Last known link of the container's agent."""

    boot: str
    """Random id of the agent process; another boot means another file system."""
    gateway: str
    connected: bool
    instance: str = ""
    """Random id of the gateway's process: only that one knows when the link is gone."""
    link: int = 0
    """Number of the link, counted by the agent: an older hello that comes late changes nothing."""


class ExpectedStream(Entity):
    """An attachment whose ticket was handed out before the container's start: it may be at a gateway that dies."""

    stream: str
    at: float
    """Unix seconds."""


class Published(Entity):
    """Where the ports of a container's last start appear: on loopback of the machine whose front door listens."""

    publication: str
    """Random; tells these sockets from those of other machines and times."""
    ports: dict[str, list[dict[str, str]]]
    """Docker's form: `{"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}`."""


class Lease(Entity):
    """An operation under way. A crash leaves it behind; the reconciler finishes or reverts it after `expires_at`."""

    operation: Literal["start", "remove"]
    owner: str
    expires_at: float
    """Unix seconds."""
    trace: str = ""
    """W3C traceparent of the request that began it, where traces are on: the agent's reports belong to it too."""


class Mount(Entity):
    """One entry of Docker's `Mounts`, resolved at create."""

    type: Literal["bind", "volume", "tmpfs"]
    name: str = ""
    """Volume name."""
    source: str = ""
    """The client's path for binds; our mountpoint text for volumes."""
    destination: str
    read_only: bool = False
    copy_up: bool = False
    propagation: str = ""
    mode: str = ""
    tmpfs_options: str = ""
    subpath: str = ""
    create_source: bool = True
    """Binds by -v create a missing source directory, `--mount type=bind` refuses it."""


class Container(Entity):
    """A Docker container."""

    id: str
    tenant: str
    name: str
    created_at: str
    image: str
    """The reference as the user gave it."""
    image_id: str
    """`sha256:…` of the image's config."""
    config: dict[str, Any]
    host_config: dict[str, Any]
    networking: dict[str, Any] = Field(default_factory=dict)
    """Docker's `NetworkSettings.Networks`: endpoint settings by network name."""
    labels: dict[str, str] = Field(default_factory=dict)
    mounts: list[Mount] = Field(default_factory=list)
    backend: str
    gateway: str
    """The relay's URL this container's agent and streams meet at."""
    state: RunState = RunState()
    execution: Execution | None = None
    agent: AgentLink | None = None
    expected: list[ExpectedStream] = Field(default_factory=list)
    """Attachments that the next start waits for; recorded where several gateways are registered."""
    lease: Lease | None = None
    staged: list[StagedArchive] = Field(default_factory=list)
    """Files copied in while no agent was there, applied in order before the next start."""
    restart_count: int = 0
    published: Published | None = None
    run_limit: int = 0
    """Seconds after which the platform ends a run; 0: not recorded."""


class StagedArchive(Entity):
    """A tar put into a container that has no agent yet; its bytes are in the blob store."""

    blob: str
    path: str
    size: int
    params: dict[str, Any] = Field(default_factory=dict)


class Name(Entity):
    """Holds a container's name for a tenant: created if absent, so names are unique."""

    container: str


class ExecSession(Entity):
    """A Docker exec instance."""

    id: str
    tenant: str
    container: str
    config: dict[str, Any]
    """The exec create body: Cmd, Env, User, WorkingDir, Tty, AttachStdin, …"""
    status: Literal["created", "running", "exited"] = "created"
    pid: int = 0
    exit_code: int | None = None
    attempt: str = ""
    """Of the request that claimed its start, when that can be sent again."""
    can_remove: bool = False
    created_at: str


class Image(Entity):
    """An image a tenant has pulled or loaded; layers and config live in our registry."""

    id: str
    """`sha256:…` of the config blob."""
    tenant: str
    created_at: str
    """When it was built (from its config), not when it came here."""
    tags: list[str] = Field(default_factory=list)
    """Familiar references: `busybox:latest`, `ghcr.io/a/b:1`."""
    repo_digests: list[str] = Field(default_factory=list)
    """`busybox@sha256:…` (the manifest digest at its source)."""
    tagged_at: str = ZERO_TIME
    """When a tag was last given to it (Docker's `LastTagTime`)."""
    repository: str
    """Where it is kept in our registry: `host/project/repo/path`, without tag."""
    manifest_digest: str
    """Digest of its manifest in our registry."""
    agent_digest: str | None = None
    """Digest of the derived manifest with the agent layer, when one was made (injection `image_layer`)."""
    architecture: str = "amd64"
    os: str = "linux"
    config: dict[str, Any]
    """The OCI image config document, whole."""
    layers: list[dict[str, Any]] = Field(default_factory=list)
    """The manifest's layer descriptors."""
    size: int = 0
    """Unpacked size in bytes where known, else the sum of the layers."""


class Volume(Entity):
    """A Docker volume."""

    name: str
    tenant: str
    created_at: str
    driver: str = "local"
    labels: dict[str, str] = Field(default_factory=dict)
    options: dict[str, str] = Field(default_factory=dict)
    anonymous: bool = False


class Network(Entity):
    """A Docker network: a record in this release."""

    id: str
    name: str
    tenant: str
    created_at: str
    body: dict[str, Any]
    """Driver, IPAM, Labels, Options, Internal, … as Docker shows them."""


class Gateway(Entity):
    """A gateway that has registered. Its key stands for its URL."""

    url: str
    instance: str
    """Random id of its process."""
    load: int
    """Agents that are linked to it."""
    lease_until: float
    """Unix seconds."""
    draining: bool = False
    started_at: str


class CloudFunction(Entity):
    """A Cloud Run function of ours: made for a container, or kept ready for the next one of the same shape."""

    name: str
    """`skls-` and twelve digits."""
    tenant: str
    """A function never serves another tenant than the one it was made for."""
    shape: str
    """Stands for image, resources, volumes and everything else that is fixed when a function is deployed."""
    uri: str = ""
    """Where it is invoked; empty until it is deployed."""
    container: str = ""
    """Whose it is now; empty: ready to be claimed."""
    created_at: str
    changed_at: float
    """Unix seconds of the last claim or release."""


class TenantPolicy(Entity):
    """What a tenant's containers may be. Empty lists and zeros set no bound."""

    images: list[str] = Field(default_factory=list)
    """Patterns of repositories: `docker.io/library/*`, `ghcr.io/acme/**`, with or without `@sha256:…`."""
    backends: list[str] = Field(default_factory=list)
    max_nano_cpus: int = 0
    max_memory: int = 0
    """Bytes."""
    max_run_seconds: int = 0
    max_containers: int = 0
    """Containers that exist, whatever their state."""


class Tenant(Entity):
    """Who has containers of its own. Its key is its name."""

    name: str
    created_at: str
    policy: TenantPolicy = TenantPolicy()
    revoked_at: str = ""
    """When it was shut out; empty: it is not."""


class AccessToken(Entity):
    """A user's bearer token. Its key is its id; of its secret only the digest is kept."""

    id: str
    tenant: str
    scope: Literal["full", "run", "read"]
    secret_digest: str
    """SHA-256, hexadecimal. The secret has 256 random bits: nothing slower is needed."""
    note: str = ""
    created_at: str
    expires_at: float = 0.0
    """Unix seconds; 0: never."""
    revoked_at: str = ""


class Event(Entity):
    """One line of `docker events`."""

    tenant: str
    type: str
    action: str
    actor: str
    attributes: dict[str, str]
    time_nano: int


Container.model_rebuild()
