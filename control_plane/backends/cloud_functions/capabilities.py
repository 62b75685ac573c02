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
    "run limit": "SOCKERLESS_GCF_TIMEOUT (an hour at most) less 15 seconds, then TERM and, 10 seconds later, KILL: a "
    "function lives as long as one request, and a request lasts 60 minutes at most",
    "docker create": "returns at once; a function is deployed in the background, which takes a minute or two, unless "
    "one of the same tenant, image and shape is ready (SOCKERLESS_GCF_POOL)",
    "docker start": "waits for the function to be deployed, SOCKERLESS_GCF_START_TIMEOUT seconds at most: a function "
    "cannot be invoked before; once the agent is gone a start begins with a fresh file system, because the instance's "
    "disk ends with it",
    "docker stop, docker kill": "where no agent answers the function is deleted, and the next start deploys another: "
    "the platform has no call that stops an instance",
    "docker rm": "a function claimed from the pool goes back to it when its agent ended cleanly and fewer than "
    "SOCKERLESS_GCF_POOL are ready, because deploying is what takes long; any other is deleted: its environment names "
    "the container, or its end is not known",
    "-v, --mount": "prefixes of a bucket or NFS directories: there is no host to take them from",
    "VOLUME": "a volume of the endpoint's storage, and a function of the container's own, deleted with it: nobody else "
    "could use that function",
    "-m, --cpus": "rounded up to the sizes that are sold",
    "docker logs": "live from the agent; after it is gone from Cloud Logging, 5 to 20 seconds late, because that is "
    "when entries appear",
    "exit code": "from the agent alone: the platform keeps none, so a run whose agent is lost ends with 137",
    "without agent": "only the image with the agent's layer can be run (the registry must be writable): a function has "
    "to answer requests, and a user's own command does not",
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
    resources.limits(sizes.asked(container.host_config, settings.default_resources), TITLE)
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
