"""`/volumes`."""

from __future__ import annotations

from starlette.responses import Response

from control_plane.api.http import DockerRequest, empty, json_response
from control_plane.api.schemas.volumes import VolumeCreate
from control_plane.errors import Unavailable

_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)


async def create(request: DockerRequest) -> Response:
    """`docker volume create`."""
    body = await request.parse(VolumeCreate)
    if body.ClusterVolumeSpec is not None and request.api_version >= (1, 42):
        raise Unavailable(_NO_SWARM)
    volumes = request.services.volumes
    volume = await volumes.create(request.tenant, body.Name, body.Driver, body.DriverOpts, body.Labels)
    return json_response(volumes.view(volume), 201)


async def list_volumes(request: DockerRequest) -> Response:
    """`docker volume ls`."""
    volumes = request.services.volumes
    found = await volumes.list(request.tenant, request.filters())
    return json_response({"Volumes": [volumes.view(volume) for volume in found], "Warnings": None})


async def inspect(request: DockerRequest) -> Response:
    """`docker volume inspect`."""
    volumes = request.services.volumes
    return json_response(volumes.view(await volumes.get(request.tenant, request.path["name"])))


async def remove(request: DockerRequest) -> Response:
    """`docker volume rm`."""
    await request.services.volumes.remove(request.tenant, request.path["name"], force=request.flag("force"))
    return empty()


async def prune(request: DockerRequest) -> Response:
    """`docker volume prune`: anonymous volumes only, from API 1.42 on."""
    everything = request.api_version < (1, 42)
    report = await request.services.volumes.prune(request.tenant, request.filters(), all_volumes=everything)
    return json_response(report)
