"""`POST /auth`: `docker login`."""

from __future__ import annotations

from starlette.responses import Response

from control_plane.api.http import DockerRequest, json_response
from control_plane.api.schemas.images import AuthConfig
from control_plane.registry import credentials


async def check(request: DockerRequest) -> Response:
    """Asks the registry whether it knows the login."""
    login = credentials.from_document((await request.parse(AuthConfig)).model_dump())
    token = await request.services.images.check_login(login)
    return json_response({"Status": "Login Succeeded", "IdentityToken": token})
