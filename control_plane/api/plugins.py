"""`/plugins`: there are none. Clients look all the same: `docker inspect` of an unknown name ends here."""

from __future__ import annotations

from starlette.responses import Response

from control_plane.api.http import DockerRequest, json_response
from control_plane.errors import NotFound


async def list_plugins(request: DockerRequest) -> Response:
    """`docker plugin ls`."""
    return json_response([])


async def inspect(request: DockerRequest) -> Response:
    """`docker plugin inspect`. Raises NotFound with moby's text."""
    raise NotFound(f'plugin "{request.path["name"]}" not found')
