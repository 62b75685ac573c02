"""What gateways say of themselves, and where a stream that redials finds its agent."""

from __future__ import annotations

from starlette.responses import Response

from control_plane.api.http import DockerRequest, empty, json_response
from control_plane.api.schemas.internal import GatewayLease
from control_plane.errors import NotFound


async def register(request: DockerRequest) -> Response:
    """A gateway's lease, for half a minute more: 200 with the URLs of the others."""
    url = request.services.links.check_gateway(request.headers.get("authorization"))
    lease = await request.parse(GatewayLease)
    others = await request.services.gateways.register(url, lease.instance, lease.load, draining=lease.draining)
    return json_response({"gateways": others})


async def deregister(request: DockerRequest) -> Response:
    """A gateway goes."""
    url = request.services.links.check_gateway(request.headers.get("authorization"))
    await request.services.gateways.deregister(url, request.query.get("instance", ""))
    return empty()


async def relay(request: DockerRequest) -> Response:
    """The relay at which a stream's agent is, for whoever holds the stream's ticket."""
    moves = request.services.links.moves
    if moves is None:
        raise NotFound("page not found")
    url = await moves.where(request.headers.get("authorization"), request.path["stream_id"])
    return json_response({"relay_url": url})
