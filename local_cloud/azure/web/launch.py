"""From a site's configuration to a container."""

from __future__ import annotations

import hashlib
from pathlib import Path

from local_cloud.azure.web import resources, settings
from local_cloud.azure.web.records import Plan, Site
from local_cloud.azure.web.skus import sku
from local_cloud.errors import ServiceError
from local_cloud.images import ImageContent, Images
from local_cloud.instances import InstanceSpec

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class NotStarted(Exception):
    """The platform does not start the container; the text is for its log."""


async def launch(images: Images, site: Site, plan: Plan | None, id: str, logs: Path) -> InstanceSpec:
    """The container that a site wants; raises NotStarted."""
    fault = settings.host_fault(site.settings)
    if fault:
        raise NotStarted(f"The Functions host of site {site.name} is not healthy: {fault}")
    try:
        port, command = settings.port(site.settings), settings.command(site.config)
    except ValueError as error:
        raise NotStarted(f"Site {site.name} cannot be started: {error}.") from None
    image = await _pull(images, settings.image(site.config))
    size = sku(plan.body["sku"]) if plan is not None else None
    env = {"PATH": _DEFAULT_PATH}
    env |= {name: value for name, _, value in (entry.partition("=") for entry in image.env)}
    number = hashlib.sha256(id.encode()).hexdigest()
    return InstanceSpec(
        id=id,
        image=image,
        argv=(*image.entrypoint, *(command or image.command)),
        env=env | resources.environment(site, plan, number),
        workdir=image.workdir,
        user=image.user,
        mounts=(),
        memory_bytes=size.memory_bytes if size else 0,
        cpus=size.cpus if size else 0.0,
        stdout=logs / f"{id}.stdout",
        stderr=logs / f"{id}.stderr",
        port=port,
    )


async def _pull(images: Images, reference: str) -> ImageContent:
    """The image; raises NotStarted, in the words of App Service's log."""
    try:
        images.check(reference, "linuxFxVersion")
        repository, digest = images.resolve(reference)
        return await images.load(reference, repository, digest)
    except ServiceError as error:
        status = "NotFound" if error.code == "NOT_FOUND" else "InternalServerError"
        raise NotStarted(
            f"ImagePullFailure: Pulling image: {reference} failed. DockerApiException: Docker API responded with "
            f'status code={status}, response={{"message":"{error.message}"}}. Image pull failed: Verify docker image '
            "configuration and credentials (if using private repository)"
        ) from None
