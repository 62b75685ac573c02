"""What can be set about the local cloud."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from local_cloud.quotas import Quotas

PROJECT_NUMBER = "100000000001"
"""The local project's number; the real services use it in service accounts and quota texts."""


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of one local cloud. Times are seconds."""

    create_delay: float = 0.0
    """How long CreateJob's and UpdateJob's operations take beyond the import of the image."""
    start_delay: float = 0.0
    """How long an execution stays pending before its containers start."""
    ingestion_delay: float = 0.0
    """How long a log entry stays invisible to ListLogEntries and TailLogEntries."""
    stop_grace: float = 10.0
    """Between SIGTERM and SIGKILL when a task is cancelled or times out."""
    quotas: Quotas = field(default_factory=Quotas)
    """None enforced by default: an embedded endpoint is nobody's neighbour."""
    registry_hosts: tuple[str, ...] = ()
    """Further host names of images that the registry stand-in serves (`us-central1-docker.pkg.dev`)."""
    registry_users: Mapping[str, str] = field(default_factory=dict)
    """User → password. Empty: the registry asks nobody."""
    registry_auth: str = "basic"
    """`basic` or `bearer`: how the registry asks when it has users."""
    nfs_servers: tuple[str, ...] = ("localhost", "127.0.0.1")
    """NFS server names that stand for this machine's own file system."""
    network: str = "bridge"
    """`bridge` or `host`: the network of the containers."""
    log_retention_days: float = 30.0
    """Log entries and files older than this are dropped at start (Cloud Logging's `_Default` bucket keeps 30 days)."""
    idle_instance_seconds: float = 900.0
    """How long an instance of a service stays without a request (Cloud Run keeps idle instances up to 15 minutes)."""
    startup_probe_seconds: float = 240.0
    """How long a container may take until it listens (Cloud Run's default startup probe: 240 s)."""
    azure_front_end_seconds: float = 230.0
    """When App Service's front end gives up a request."""
    azure_resource_groups: tuple[str, ...] = ("local",)
    """The resource groups of the subscription. A site's name is taken in all of them once one has it."""
    azure_operation_delay: float = 0.0
    """How long creating or changing a plan or a site takes: 200 at once when 0, else 202 and a status to poll."""
    azure_restart_backoff: tuple[float, float] = (1.0, 60.0)
    """Seconds before a site's container is started again: after its first end, and at most."""
    azure_ingestion_delay: float = 0.0
    """How long a row stays invisible to Log Analytics queries (some minutes on the real service)."""
    azure_log_retention_days: float = 30.0
    """Rows older than this are dropped at start (a workspace keeps 30 days unless told otherwise)."""
    build_delay: float = 0.0
    """How long Cloud Build takes for a function's source."""
