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


def capabilities(settings: CloudRunSettings | None = None) -> Capabilities:
    """With the endpoint's own time limit where settings are given."""
    return Capabilities(
        name=NAME,
        title=TITLE,
        max_run_seconds=settings.timeout if settings is not None else LONGEST_RUN,
        refused_options=refused_options(HOST_CONFIG),
    )


def check(container: Container, settings: CloudRunSettings) -> list[str]:
    """Warnings for `docker create`. Raises NotServed or InvalidParameter naming the option, the reason, a way out."""
    warnings = check_host_config(container, HOST_CONFIG, TITLE)
    resources.limits(sizes.asked(container.host_config, settings.default_resources))
    platform_volumes(container, settings.rules, settings.volume_root)
    if settings.injection == "none":
        warnings += without_agent.warnings(container)
    return warnings
