"""Container verbs: start, stop, restart, kill, pause, unpause, resize, top, remove, prune."""

from __future__ import annotations

from starlette.responses import Response

from control_plane.api.http import DockerRequest, empty, json_response
from control_plane.api.publishers import ports_offer, says_ports
from control_plane.errors import InvalidParameter, NotServed
from control_plane.services.prune_filters import PruneFilters
from control_plane.services.published_ports import PortsWanted

_STOP_SIGNAL_SINCE = (1, 42)
_UINT32 = 1 << 32


async def start(request: DockerRequest) -> Response:
    """`POST /containers/{id}/start`: 204, 304 when it runs, 400 when its command cannot be started."""
    offer = await ports_offer(request)
    length = request.headers.get("content-length")
    brings_body = "transfer-encoding" in request.headers or (
        length is not None and length.isdigit() and int(length) > 7
    )
    if brings_body and not says_ports(request):
        raise InvalidParameter(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    if request.query.get("checkpoint") or request.query.get("checkpoint-dir"):
        raise NotServed("checkpoints need CRIU on the container's machine, which no cloud platform offers")
    try:
        await request.services.runs.start(request.tenant, request.path["id"], offer)
    except PortsWanted as wanted:
        return json_response(wanted.body, wanted.status)
    return empty()


def _stop_options(request: DockerRequest) -> tuple[str, int | None]:
    signal = request.query.get("signal", "") if request.api_version >= _STOP_SIGNAL_SINCE else ""
    return signal, request.integer("t")


async def stop(request: DockerRequest) -> Response:
    """`POST /containers/{id}/stop`: 204, 304 when it does not run."""
    signal, grace = _stop_options(request)
    await request.services.runs.stop(request.tenant, request.path["id"], signal, grace)
    return empty()


async def restart(request: DockerRequest) -> Response:
    """`POST /containers/{id}/restart`."""
    signal, grace = _stop_options(request)
    offer = await ports_offer(request)
    try:
        await request.services.runs.restart(request.tenant, request.path["id"], signal, grace, offer)
    except PortsWanted as wanted:
        return json_response(wanted.body, wanted.status)
    return empty()


async def kill(request: DockerRequest) -> Response:
    """`POST /containers/{id}/kill`."""
    await request.services.runs.kill(request.tenant, request.path["id"], request.query.get("signal", ""))
    return empty()


async def pause(request: DockerRequest) -> Response:
    """`POST /containers/{id}/pause`."""
    await request.services.runs.pause(request.tenant, request.path["id"])
    return empty()


async def unpause(request: DockerRequest) -> Response:
    """`POST /containers/{id}/unpause`."""
    await request.services.runs.unpause(request.tenant, request.path["id"])
    return empty()


def terminal_size(request: DockerRequest) -> tuple[int, int]:
    """`h` and `w` as rows and columns. Raises InvalidParameter with moby's texts."""
    return _size(request, "h", "height"), _size(request, "w", "width")


def _size(request: DockerRequest, name: str, what: str) -> int:
    text = request.query.get(name, "")
    digits = text.removeprefix("-")
    fault = ""
    if not digits.isascii() or not digits.isdigit():
        fault = "invalid syntax"
    elif text.startswith("-") or len(digits) > 10 or int(digits) >= _UINT32:
        fault = "value out of range"
    if fault:
        raise InvalidParameter(f'invalid resize {what} "{text[:64]}": {fault}')
    return min(int(digits), 0xFFFF)  # a terminal has no more


async def resize(request: DockerRequest) -> Response:
    """`POST /containers/{id}/resize?h=…&w=…`."""
    rows, columns = terminal_size(request)
    await request.services.runs.resize(request.tenant, request.path["id"], rows, columns)
    return empty(200)


async def top(request: DockerRequest) -> Response:
    """`GET /containers/{id}/top`."""
    arguments = request.query.get("ps_args", "")
    return json_response(await request.services.runs.top(request.tenant, request.path["id"], arguments))


async def remove(request: DockerRequest) -> Response:
    """`DELETE /containers/{id}`."""
    await request.services.removal.remove(
        request.tenant,
        request.path["id"],
        force=request.flag("force"),
        volumes=request.flag("v"),
        link=request.flag("link"),
    )
    return empty()


async def prune(request: DockerRequest) -> Response:
    """`POST /containers/prune`."""
    filters = PruneFilters(request.filters())
    return json_response(await request.services.removal.prune(request.tenant, filters))
