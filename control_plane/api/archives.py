"""`docker cp`: HEAD, GET, PUT of `/containers/{id}/archive`."""

from __future__ import annotations

import base64
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse

from control_plane.api.http import DockerRequest, empty
from control_plane.errors import InvalidParameter

_STAT_HEADER = "X-Docker-Container-Path-Stat"


def _path(request: DockerRequest) -> str:
    path = request.query.get("path", "")
    if not path:
        raise InvalidParameter("bad parameter: pathcannot be empty")  # moby's text, missing blank and all
    if "\0" in path:
        raise InvalidParameter("bad parameter: path")
    return path


def _stat_header(found: dict[str, Any]) -> dict[str, str]:
    return {_STAT_HEADER: base64.b64encode(orjson.dumps(found)).decode()}


async def head(request: DockerRequest) -> Response:
    """What is at `path`, in the header."""
    found = await request.services.archives.stat(request.tenant, request.path["id"], _path(request))
    return Response(status_code=200, headers=_stat_header(found))


async def get(request: DockerRequest) -> Response:
    """`path` as a tar."""
    found, tar = await request.services.archives.get(request.tenant, request.path["id"], _path(request))
    return StreamingResponse(tar, headers=_stat_header(found), media_type="application/x-tar")


async def put(request: DockerRequest) -> Response:
    """Unpacks the body in the directory `path`."""
    params = {
        "no_overwrite_dir_non_dir": request.flag("noOverwriteDirNonDir"),
        "copy_uid_gid": request.flag("copyUIDGID"),
    }
    await request.services.archives.put(request.tenant, request.path["id"], _path(request), params, request.body())
    return empty(200)
