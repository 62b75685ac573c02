"""`GET /containers/{id}/logs`."""

from __future__ import annotations

from starlette.responses import Response, StreamingResponse

from control_plane.api.http import DockerRequest
from control_plane.services.attachments import stream_type
from control_plane.services.logs import LogsRequest
from control_plane.timestamps import unix_timestamp


async def logs(request: DockerRequest) -> Response:
    """The container's output: stdcopy frames, raw with a TTY. `tail` that is no number means all, as in moby."""
    tail = request.query.get("tail", "")
    wanted = LogsRequest(
        stdout=request.flag("stdout"),
        stderr=request.flag("stderr"),
        follow=request.flag("follow"),
        timestamps=request.flag("timestamps"),
        details=request.flag("details"),
        since=unix_timestamp(request.query.get("since")) or None,
        until=unix_timestamp(request.query.get("until")) or None,
        tail=int(tail) if tail.isascii() and tail.isdigit() and len(tail) < 10 else None,
    )
    tty, output = await request.services.logs.logs(request.tenant, request.path["id"], wanted)
    return StreamingResponse(output, media_type=stream_type(tty=tty, version=request.api_version))
