"""The Docker API as a function: what is answered at once is; what streams or lasts belongs to a gateway.

A function's front end takes neither hijacks nor long answers (Azure's buffers them whole and cuts them at 230 s).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import orjson

from control_plane.errors import DockerError
from control_plane.version import API_VERSION

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_VERSION = re.compile(r"^/v[0-9.]+(?=/)")
_STREAMS = (
    ("POST", re.compile(r"/containers/[^/]+/attach"), "attach"),
    ("GET", re.compile(r"/containers/[^/]+/attach/ws"), "attach"),
    ("POST", re.compile(r"/exec/[^/]+/start"), "exec"),
    ("POST", re.compile(r"/containers/[^/]+/wait"), "wait"),
    ("GET", re.compile(r"/containers/[^/]+/stats"), "stats"),
    ("GET", re.compile(r"/containers/[^/]+/export"), "export"),
    ("GET", re.compile(r"/containers/[^/]+/archive"), "cp"),
    ("PUT", re.compile(r"/containers/[^/]+/archive"), "cp"),
    ("GET", re.compile(r"/events"), "events"),
    ("POST", re.compile(r"/images/create"), "pull"),
    ("POST", re.compile(r"/images/load"), "load"),
    ("GET", re.compile(r"/images/(?:.+/)?get"), "save"),
    ("POST", re.compile(r"/images/.+/push"), "push"),
    ("POST", re.compile(r"/build"), "build"),
)
_LOGS = re.compile(r"/containers/[^/]+/logs")


def streams(method: str, path: str, query: str) -> str:
    """What a request streams, or waits for; empty for a short one."""
    bare = re.sub("/{2,}", "/", _VERSION.sub("", path))
    for wanted, pattern, what in _STREAMS:
        if method == wanted and pattern.fullmatch(bare):
            return what
    if method == "GET" and _LOGS.fullmatch(bare):
        follow = parse_qs(query).get("follow", [""])[0].strip().lower()
        return "" if follow in {"", "0", "no", "false", "none"} else "logs -f"
    return ""


class ShortCalls:
    """An app in front of the control plane's: 501 for what a function cannot serve, naming who can."""

    def __init__(self, app: ASGIApp, gateway: Callable[[], Awaitable[str]]) -> None:
        """`gateway` gives the URL of a gateway, or raises DockerError when there is none."""
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        what = ""
        if scope["type"] == "http":
            what = streams(scope["method"], scope["path"], scope["query_string"].decode("latin-1"))
        if not what:
            await self._app(scope, receive, send)
            return
        try:
            where = f"point DOCKER_HOST at the gateway, {await self._gateway()}"
        except DockerError:
            where = "point DOCKER_HOST at a gateway (none is registered now)"
        message = (
            f"{what} is not served by this function, whose answers are short: {where}, or use `sockerless connect`"
        )
        body = orjson.dumps({"message": message}, option=orjson.OPT_APPEND_NEWLINE)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"api-version", API_VERSION.encode()),
        ]
        await send({"type": "http.response.start", "status": 501, "headers": headers})
        await send({"type": "http.response.body", "body": body})
