"""`/containers`: create, list, inspect, rename, update, wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.responses import Response

from control_plane.api.chunked import ChunkedResponse
from control_plane.api.http import DockerRequest, empty, json_response
from control_plane.api.open_execs import OpenExecs
from control_plane.api.publishers import has_publisher
from control_plane.api.render_container import ContainerViews
from control_plane.api.schemas.container import CreateBody
from control_plane.api.schemas.host import HostConfigWire, UpdateBody
from control_plane.errors import InvalidParameter
from control_plane.model import Container
from control_plane.services.creation import CreateRequest
from control_plane.services.listing import ListRequest
from control_plane.services.waits import Wait

ATTEMPT = "sockerless-attempt"
"""Header of a request that is sent again when its answer was lost (docs/wire-protocol.md, section 7)."""

_views = ContainerViews()
_execs = OpenExecs()


async def create(request: DockerRequest) -> Response:
    """`POST /containers/create`. 201 `{"Id", "Warnings"}`."""
    _want_json(request)
    body = (await request.parse(CreateBody)).model_dump()
    host = body.pop("HostConfig") or HostConfigWire().model_dump()
    networking = body.pop("NetworkingConfig") or {}
    created = await request.services.creation.create(
        request.tenant,
        CreateRequest(
            name=request.query.get("name", ""),
            config=body,
            host_config=host,
            endpoints=networking.get("EndpointsConfig") or {},
            api_version=request.api_version,
            platform=request.query.get("platform", "") if request.api_version >= (1, 41) else "",
            publisher=has_publisher(request),
            attempt=request.headers.get(ATTEMPT, ""),
        ),
    )
    return json_response({"Id": created.container.id, "Warnings": created.warnings}, 201)


async def list_containers(request: DockerRequest) -> Response:
    """`GET /containers/json`."""
    filters = request.filters()
    # The query's own `before` and `since` are older than filters; moby's API still documents neither.
    wanted = ListRequest(all=request.flag("all"), limit=request.integer("limit") or 0, filters=filters)
    found = await request.services.listing.list(request.tenant, wanted)
    if request.flag("size"):
        return json_response([await _with_size(request, *entry) for entry in found])
    return _json_bytes(_views.list_body(found))


async def inspect(request: DockerRequest) -> Response:
    """`GET /containers/{id}/json`."""
    container = await request.services.containers.resolve(request.tenant, request.path["id"])
    execs = await _execs.of(request.services.containers.store, container)
    body = _views.inspect(container, execs)
    if request.flag("size"):
        return json_response(orjson.loads(body) | {"SizeRw": 0, "SizeRootFs": await _image_size(request, container)})
    return _json_bytes(body)


async def rename(request: DockerRequest) -> Response:
    """`POST /containers/{id}/rename?name=NEW`. 204."""
    services = request.services
    container = await services.containers.resolve(request.tenant, request.path["id"])
    renamed = await services.containers.rename(container, request.query.get("name", ""))
    await services.events.publish_container(renamed, "rename", {"oldName": f"/{container.name}"})
    return empty()


async def update(request: DockerRequest) -> Response:
    """`POST /containers/{id}/update`: resources and restart policy. 200 `{"Warnings"}`."""
    _want_json(request)
    body = (await request.parse(UpdateBody)).model_dump()
    if request.api_version < (1, 40):
        body["PidsLimit"] = None
    warnings = await request.services.updates.update(request.tenant, request.path["id"], body)
    return json_response({"Warnings": warnings or None})


async def wait(request: DockerRequest) -> Response:
    """`POST /containers/{id}/wait`: the headers at once, the exit code when there is one."""
    condition = request.query.get("condition") or "not-running" if request.api_version >= (1, 30) else "not-running"
    begun = await request.services.waits.begin(request.tenant, request.path["id"], condition)
    if request.api_version < (1, 30):
        return json_response(await _outcome(begun))
    return ChunkedResponse(_one_outcome(begun))


async def _outcome(begun: Wait) -> dict[str, Any]:
    ended = await begun.result()
    shown: dict[str, Any] = {"StatusCode": ended.code}
    if ended.error:
        shown["Error"] = {"Message": ended.error}
    return shown


async def _one_outcome(begun: Wait) -> AsyncIterator[bytes]:
    yield orjson.dumps(await _outcome(begun), option=orjson.OPT_APPEND_NEWLINE)


async def _with_size(request: DockerRequest, container: Container, image: str) -> dict[str, Any]:
    line: dict[str, Any] = orjson.loads(_views.list_body([(container, image)]))[0]
    return line | {"SizeRw": 0, "SizeRootFs": await _image_size(request, container)}


async def _image_size(request: DockerRequest, container: Container) -> int:
    document = await request.services.containers.store.get("images", request.tenant, container.image_id)
    return 0 if document is None else int(document.body.get("size", 0))


def _want_json(request: DockerRequest) -> None:
    """moby takes nothing but JSON here, so that no web page can make a browser send it."""
    given = request.headers.get("content-type", "")
    if not given and request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return
    kind = given.partition(";")[0].strip().lower()
    if kind != "application/json":
        if not kind:
            raise InvalidParameter(f"malformed Content-Type header ({given}): mime: no media type")
        raise InvalidParameter(f"unsupported Content-Type header ({given}): must be 'application/json'")


def _json_bytes(body: bytes) -> Response:
    response = Response()
    response.body = body
    response.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    return response
