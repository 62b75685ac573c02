"""What Azure Functions can do for a container, and the checks at `docker create`."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from control_plane.backends import sizes
from control_plane.backends.agent_image import check_platform, shown
from control_plane.backends.azure.sizes import size
from control_plane.backends.azure_functions.host_config import HOST_CONFIG, NAME, NO_VOLUMES, TITLE
from control_plane.backends.azure_functions.settings import AzureFunctionsSettings
from control_plane.backends.base import Capabilities
from control_plane.backends.options import check_host_config, refused_options
from control_plane.backends.sizes import Resources
from control_plane.errors import NotServed
from control_plane.model import Container, Image

NOT_GIVEN = Resources(nano_cpus=0, memory=0)
_DEFAULT_TIMEOUT = 600
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")

DIFFERENCES = {
    "run limit": "SOCKERLESS_AZF_TIMEOUT seconds, then TERM and, 10 seconds later, KILL by the agent: an app has no "
    "end of its own",
    "docker create": "returns at once; the function app is made in the background, which takes App Service minutes "
    "with a plan of the container's own and seconds on a shared one",
    "docker start": "waits until the app is made, then for App Service to pull the image and start it; once the agent "
    "is gone a start begins with a fresh file system, because the instance's disk ends with it",
    "docker stop, docker kill": "where no agent answers the app is stopped (TERM, 10 seconds, KILL): the platform "
    "sends no other signals",
    "docker rm": "deletes the app and the plan made for it, in the background: a plan costs while it exists",
    "-v, --mount": NO_VOLUMES,
    "VOLUME": "a volume without a name (VOLUME of the image, `-v /path`) is a directory of the container's own file "
    "system: nothing outside of the container could hold it",
    "-m, --cpus": "choose the plan's size within the family of SOCKERLESS_AZF_PLAN_SKU (EP1 to EP3), because a machine "
    "is what is sold; without effect on a shared plan",
    "docker logs": "live from the agent; after it is gone from Log Analytics, which shows lines minutes late, and only "
    "with SOCKERLESS_AZF_LOG_ANALYTICS_WORKSPACE and a diagnostic setting for the apps",
    "exit code": "from the agent alone: App Service starts a container that ends again and keeps no exit code, so a "
    "run whose agent is lost ends with 137",
    "without agent": "there is no run without agent: App Service wants a container that answers HTTP",
}


def capabilities(settings: AzureFunctionsSettings | None = None) -> Capabilities:
    """With the endpoint's own time limit where settings are given."""
    return Capabilities(
        name=NAME,
        title=TITLE,
        max_run_seconds=settings.timeout if settings is not None else _DEFAULT_TIMEOUT,
        refused_options=refused_options(HOST_CONFIG),
        differences=dict(DIFFERENCES),
        agentless=False,
        restarts_in_place=True,
        enforces_limit=False,
    )


def check(container: Container, settings: AzureFunctionsSettings) -> list[str]:
    """Warnings for `docker create`. Raises NotServed or InvalidParameter naming the option, the reason, a way out."""
    warnings = check_host_config(container, HOST_CONFIG, TITLE)
    for mount in container.mounts:
        if mount.type == "bind" or (mount.type == "volume" and not _ANONYMOUS.fullmatch(mount.name)):
            raise NotServed(f"--volume is not served on {TITLE}: {mount.name or mount.source}: {NO_VOLUMES}")
        if mount.type == "volume":
            warnings.append(
                f"the volume at {mount.destination} is a directory of the container's own file system on {TITLE}: "
                "it ends with it, and no other container can have it"
            )
    asked = sizes.asked(container.host_config, NOT_GIVEN)
    if not settings.app_service_plan:
        size(asked, settings.sku)
    elif asked != NOT_GIVEN:
        warnings.append("-m and --cpus have no effect: the endpoint's containers share one App Service plan")
    return warnings


def check_image(image: Image, settings: AzureFunctionsSettings) -> None:
    """Refuses what App Service could not pull or run. Raises NotServed."""
    check_platform(image, settings.architecture, TITLE)
    host = registry_host(image)
    if settings.registry and host != settings.registry:
        raise NotServed(
            f"image {shown(image)} is kept in the registry {host}, and function apps pull from {settings.registry} "
            "alone (SOCKERLESS_AZF_REGISTRY): have the operator keep the images there, or use another --runtime"
        )


def registry_host(image: Image) -> str:
    """`host[:port]` of the registry that holds the image."""
    repository = image.repository
    return urlsplit(repository if "//" in repository else f"//{repository}").netloc
