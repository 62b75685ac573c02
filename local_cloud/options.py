"""What can be set about the local Google cloud."""

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
