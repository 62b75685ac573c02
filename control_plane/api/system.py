"""`/_ping`, `/version`, `/info`, `/system/df`."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from control_plane.api.disk_usage import usage
from control_plane.api.http import DockerRequest, json_response
from control_plane.errors import InvalidParameter

_PING_HEADERS = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"cache-control", b"no-cache, no-store, must-revalidate"),
    (b"pragma", b"no-cache"),
    (b"swarm", b"inactive"),
]
_KINDS = ("container", "image", "volume", "build-cache")


async def ping(request: DockerRequest) -> Response:
    """`GET` and `HEAD /_ping`: clients read the API version from its headers."""
    body = b"" if request.raw.method == "HEAD" else b"OK"
    response = Response(body)
    response.raw_headers = [*_PING_HEADERS, (b"content-length", str(len(body)).encode())]
    return response


async def version(request: DockerRequest) -> Response:
    """`GET /version`."""
    return json_response(request.services.system.version())


async def info(request: DockerRequest) -> Response:
    """`GET /info`, with what older API versions had besides."""
    shown: dict[str, Any] = await request.services.system.info(request.tenant)
    if request.api_version < (1, 49):
        for name in ("ContainerdCommit", "RuncCommit", "InitCommit"):
            shown[name] = {**shown[name], "Expected": shown[name]["ID"]}
    if request.api_version < (1, 50):
        shown |= {"BridgeNfIptables": False, "BridgeNfIp6tables": False}
    return json_response(shown)


async def disk_usage(request: DockerRequest) -> Response:
    """`GET /system/df`; `type` (repeatable) chooses what is counted."""
    kinds = request.query.getlist("type") if request.api_version >= (1, 42) else []
    for kind in kinds:
        if kind not in _KINDS:
            raise InvalidParameter(f"unknown object type: {kind}")
    return json_response(await usage(request, set(kinds or _KINDS)))
