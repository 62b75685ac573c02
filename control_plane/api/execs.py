"""Exec sessions: create, start (detached), resize, inspect. Attached starts are the front door's."""

from __future__ import annotations

from starlette.responses import Response

from control_plane.api.container_actions import terminal_size
from control_plane.api.http import DockerRequest, empty, json_response
from control_plane.api.schemas.execs import ExecCreate
from control_plane.errors import InvalidParameter, NotServed
from control_plane.services.attachments import check_detach_keys, start_options

_CONSOLE_SIZE_SINCE = (1, 42)


async def create(request: DockerRequest) -> Response:
    """`POST /containers/{id}/exec`: 201 `{"Id": …}`."""
    body = await request.parse(ExecCreate)
    if not body.Cmd:
        raise InvalidParameter("No exec command specified")
    check_detach_keys(body.DetachKeys or "")
    config = body.model_dump(mode="json", exclude_none=True)
    if request.api_version < _CONSOLE_SIZE_SINCE:
        config.pop("ConsoleSize", None)
    exec_id = await request.services.execs.create(request.tenant, request.path["id"], config)
    return json_response({"Id": exec_id}, 201)


async def start(request: DockerRequest) -> Response:
    """`POST /exec/{id}/start` with `Detach`: 200 once the process runs."""
    options = start_options(await request.json(), request.api_version)
    if not options.detach:
        await request.services.execs.get(request.tenant, request.path["id"])
        raise NotServed(
            "an attached exec takes over its connection, which only the gateway's front door can do: "
            "point DOCKER_HOST at the front door, or use `sockerless connect`"
        )
    await request.services.execs.start_detached(request.tenant, request.path["id"], options.console)
    return empty(200)


async def resize(request: DockerRequest) -> Response:
    """`POST /exec/{id}/resize?h=…&w=…`."""
    rows, columns = terminal_size(request)
    await request.services.execs.resize(request.tenant, request.path["id"], rows, columns)
    return empty(200)


async def inspect(request: DockerRequest) -> Response:
    """`GET /exec/{id}/json`."""
    return json_response(await request.services.execs.inspect(request.tenant, request.path["id"]))
