"""`docker system df`, from what the store knows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson

from control_plane.api.http import DockerRequest
from control_plane.api.render_container import ContainerViews
from control_plane.model import Container, Volume
from control_plane.services.listing import ListRequest

Json = dict[str, Any]


async def usage(request: DockerRequest, kinds: set[str]) -> Json:
    """`LayersSize`, `Images`, `Containers`, `Volumes`, `BuildCache`; what was not asked for is null."""
    services, tenant = request.services, request.tenant
    containers = await services.containers.list(tenant)
    shown: Json = {"LayersSize": 0, "Images": None, "Containers": None, "Volumes": None, "BuildCache": None}
    if "image" in kinds:
        images = await services.images.list(tenant, {}, request.api_version, shared_size=True)
        used = Counter(container.image_id for container in containers)
        shown["Images"] = [{**image, "Containers": used[image["Id"]]} for image in images]
        shown["LayersSize"] = sum(int(image["Size"]) for image in images)
    if "container" in kinds:
        found = await services.listing.list(tenant, ListRequest(all=True))
        sizes = {document.key: document.body["size"] for document in await _image_documents(request)}
        rows: list[Json] = orjson.loads(ContainerViews().list_body(found))
        shown["Containers"] = [{**row, "SizeRw": 0, "SizeRootFs": sizes.get(row["ImageID"], 0)} for row in rows]
    if "volume" in kinds:
        shown["Volumes"] = await _volumes(request, containers)
    if "build-cache" in kinds:
        shown["BuildCache"] = []
    return shown | {"BuilderSize": 0}


async def _image_documents(request: DockerRequest) -> list[Any]:
    return list(await request.services.containers.store.list("images", request.tenant))


async def _volumes(request: DockerRequest, containers: list[Container]) -> list[Json]:
    """Volumes with how many containers use them; their size is the cloud's to know (-1)."""
    used = Counter(name for container in containers for name in {mount.name for mount in container.mounts})
    rows = []
    for document in await request.services.containers.store.list("volumes", request.tenant):
        volume = Volume.model_validate(document.body)
        shown = request.services.volumes.view(volume)
        rows.append({**shown, "UsageData": {"Size": -1, "RefCount": used[volume.name]}})
    return rows
