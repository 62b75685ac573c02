"""What Cloud Run can do for a container, and the check at `docker create`."""

from __future__ import annotations

from control_plane.backends import sizes
from control_plane.backends.base import Capabilities
from control_plane.backends.binds import platform_volumes
from control_plane.backends.cloud_run import without_agent
from control_plane.backends.cloud_run.host_config import HOST_CONFIG, NAME, TITLE
from control_plane.backends.cloud_run.settings import LONGEST_RUN, CloudRunSettings
from control_plane.backends.gcp import resources
from control_plane.backends.options import check_host_config, refused_options
from control_plane.model import Container

_DIFFERENCES = {
    "run limit": "168 hours at most (SOCKERLESS_GCR_TIMEOUT), from the start of provisioning on: a job's task has no "
    "longer timeout",
    "docker create": "makes nothing in the cloud: containers of one image and shape share a job",
    "docker start": "one RunJob, and the seconds that provisioning takes; once the agent is gone a start begins with a "
    "fresh file system, because an execution's disk ends with it",
    "docker stop, docker kill": "where no agent answers the execution is cancelled: the platform sends TERM, then KILL",
    "docker rm": "the shared job stays for an hour: the next container of the image needs it",
    "-v, --mount": "prefixes of a bucket or NFS directories: there is no host to take them from",
    "VOLUME": "a volume of the endpoint's storage, and a job of the container's own, deleted with it: nobody else "
    "could use that job",
    "-m, --cpus": "rounded up to the sizes that are sold",
    "docker logs": "live from the agent; after it is gone from Cloud Logging, 5 to 20 seconds late, because that is "
    "when entries appear",
    "exit code": "from the agent; where it is lost from the task, which keeps it",
    "without agent": "the command is run once more as the image is, with less: a job runs any command",
}


def capabilities(settings: CloudRunSettings | None = None) -> Capabilities:
    """With the endpoint's own time limit where settings are given."""
    return Capabilities(
        name=NAME,
        title=TITLE,
        max_run_seconds=settings.timeout if settings is not None else LONGEST_RUN,
        refused_options=refused_options(HOST_CONFIG),
        differences=dict(_DIFFERENCES),
    )


def check(container: Container, settings: CloudRunSettings) -> list[str]:
    """Warnings for `docker create`. Raises NotServed or InvalidParameter naming the option, the reason, a way out."""
    warnings = check_host_config(container, HOST_CONFIG, TITLE)
    resources.limits(sizes.asked(container.host_config, settings.default_resources))
    platform_volumes(container, settings.rules, settings.volume_root)
    if settings.injection == "none":
        warnings += without_agent.warnings(container)
    return warnings
