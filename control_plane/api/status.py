"""`GET /internal/v1/status`: for `sockerless status`."""

from __future__ import annotations

from starlette.responses import Response

from control_plane.api.http import DockerRequest, json_response
from control_plane.auth.caller import LOCAL
from control_plane.errors import Unauthorized
from control_plane.route import Route

ROUTES = (Route("GET", "/internal/v1/status", "status.status"),)


async def status(request: DockerRequest) -> Response:
    """To whoever has the endpoint's key (a gateway's token), and to the embedded endpoint's user, all of it; to a
    tenant's token what concerns the tenant."""
    tenant: str | None = None
    try:
        request.services.links.check_gateway(request.headers.get("authorization"))
    except Unauthorized:
        caller = await request.gate.authenticate(request.raw.scope)
        tenant = None if caller is LOCAL else caller.tenant
    return json_response(await request.services.system.status(tenant))
