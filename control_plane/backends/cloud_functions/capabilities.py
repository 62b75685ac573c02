"""What Cloud Functions can do for a container, and the checks at `docker create`."""

from __future__ import annotations

from control_plane.backends import sizes
from control_plane.backends.agent_image import check_platform, shown
from control_plane.backends.base import Capabilities
from control_plane.backends.binds import platform_volumes
from control_plane.backends.cloud_functions.host_config import HOST_CONFIG, NAME, TITLE
from control_plane.backends.cloud_functions.settings import LONGEST_RUN, CloudFunctionsSettings
from control_plane.backends.gcp import resources
from control_plane.backends.options import check_host_config, refused_options
from control_plane.errors import NotServed
from control_plane.model import Container, Image

_DIFFERENCES = {
    "run time": "a container runs for an hour at most (SOCKERLESS_GCF_TIMEOUT), then it gets TERM and KILL: a function "
    "lives as long as one request, and a request lasts 60 minutes at most",
    "docker create": "a function is deployed in the background: that takes Google a minute or two, unless one of the "
    "same image and shape is kept ready (SOCKERLESS_GCF_POOL)",
    "docker start": "waits for the function to be deployed, SOCKERLESS_GCF_START_TIMEOUT seconds at most: a function "
    "cannot be invoked before",
    "docker stop, docker kill": "when the agent cannot be reached the function is deleted, and the next start deploys "
    "another: the platform has no call that stops an instance",
    "docker rm": "the container's function is kept for the next container of the same tenant, image and shape, when "
    "fewer than SOCKERLESS_GCF_POOL are ready: deploying is what takes long",
    "agent": "only the image with the agent's layer can be run (the registry must be writable): a function has to "
    "answer requests, and a user's own command does not",
}


def capabilities(settings: CloudFunctionsSettings | None = None) -> Capabilities:
    """With the endpoint's own time limit where settings are given."""
    return Capabilities(
        name=NAME,
        title=TITLE,
        max_run_seconds=settings.timeout if settings is not None else LONGEST_RUN,
        refused_options=refused_options(HOST_CONFIG),
        differences=dict(_DIFFERENCES),
        agentless=False,
        enforces_limit=False,
    )


def check(container: Container, settings: CloudFunctionsSettings) -> list[str]:
    """Warnings for `docker create`. Raises NotServed or InvalidParameter naming the option, the reason, a way out."""
    warnings = check_host_config(container, HOST_CONFIG, TITLE)
    resources.limits(sizes.asked(container.host_config, settings.default_resources))
    platform_volumes(container, settings.rules, settings.volume_root)
    return warnings


def check_image(image: Image, settings: CloudFunctionsSettings) -> None:
    """Raises NotServed when a function cannot run the image."""
    check_platform(image, settings.architecture, TITLE)
    if not settings.registry_writable:
        raise NotServed(
            f"the agent cannot be put into image {shown(image)}: the registry is not writable "
            f"(SOCKERLESS_GCR_REGISTRY_WRITABLE), and {TITLE} has no other way to run a container"
        )
