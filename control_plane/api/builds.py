"""`/build/prune`: nothing is built here, so there is no cache (`docker system prune` asks for it)."""

from __future__ import annotations

from starlette.responses import Response

from control_plane.api.http import DockerRequest, json_response


async def prune(request: DockerRequest) -> Response:
    """`docker builder prune`."""
    return json_response({"CachesDeleted": None, "SpaceReclaimed": 0})
