"""`/networks`."""

from __future__ import annotations

from starlette.responses import Response

from control_plane.api.http import DockerRequest, empty, json_response
from control_plane.api.schemas.networks import NetworkConnect, NetworkCreate, NetworkDisconnect


async def create(request: DockerRequest) -> Response:
    """`docker network create`."""
    body = (await request.parse(NetworkCreate)).model_dump()
    if request.api_version < (1, 48):
        body["EnableIPv4"] = None
    network = await request.services.networks.create(request.tenant, body)
    return json_response({"Id": network.id, "Warning": ""}, 201)


async def list_networks(request: DockerRequest) -> Response:
    """`docker network ls`."""
    return json_response(await request.services.networks.list(request.tenant, request.filters()))


async def inspect(request: DockerRequest) -> Response:
    """`docker network inspect`."""
    found = await request.services.networks.inspect(
        request.tenant,
        request.path["id"],
        scope=request.query.get("scope", ""),
        verbose=request.flag("verbose"),
    )
    return json_response(found)


async def connect(request: DockerRequest) -> Response:
    """`docker network connect`."""
    body = await request.parse(NetworkConnect)
    settings = body.EndpointConfig.model_dump() if body.EndpointConfig is not None else {}
    await request.services.networks.connect(request.tenant, request.path["id"], body.Container, settings)
    return empty(200)


async def disconnect(request: DockerRequest) -> Response:
    """`docker network disconnect`."""
    body = await request.parse(NetworkDisconnect)
    await request.services.networks.disconnect(request.tenant, request.path["id"], body.Container, force=body.Force)
    return empty(200)


async def remove(request: DockerRequest) -> Response:
    """`docker network rm`."""
    await request.services.networks.remove(request.tenant, request.path["id"])
    return empty()


async def prune(request: DockerRequest) -> Response:
    """`docker network prune`."""
    return json_response(await request.services.networks.prune(request.tenant, request.filters()))
