"""The control plane as an ASGI application: Docker's API by the table in `routes`, without a framework's router."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from control_plane.api.http import DockerRequest, error_response
from control_plane.errors import DockerError, InvalidParameter, NotFound, NotServed, ServerError, Unavailable
from control_plane.route import Bound, Matcher, Route
from control_plane.routes import ROUTES
from control_plane.store.base import RevisionConflict, StoreFull
from control_plane.version import API_VERSION, MIN_API_VERSION, VERSION

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from control_plane.services.bundle import Services

_log = logging.getLogger(__name__)

Authenticate = Callable[[Mapping[str, Any]], Awaitable[str]]
"""From the ASGI scope to the tenant. Raises Unauthorized or Forbidden."""

_VERSIONED = re.compile(r"/v([0-9.]+)(?=/)")
_HEADERS = [
    (b"api-version", API_VERSION.encode()),
    (b"docker-experimental", b"false"),
    (b"ostype", b"linux"),
    (b"server", f"Sockerless/{VERSION} (linux)".encode()),
]
_NOT_FOUND = NotFound("page not found")

_Version = tuple[int, ...]


def _numbers(version: str) -> _Version:
    return tuple(int(part) if part else 0 for part in version.split("."))


_NEWEST: _Version = _numbers(API_VERSION)
_OLDEST: _Version = _numbers(MIN_API_VERSION)
_DEFAULT = (_NEWEST[0], _NEWEST[1])


async def single_tenant(_: Mapping[str, Any]) -> str:
    """The embedded endpoint knows one tenant and asks for no token."""
    return "default"


class App:
    """ASGI application. Every answer, refusals and faults included, is in Docker's form."""

    def __init__(self, services: Services, authenticate: Authenticate, routes: Iterable[Route]) -> None:
        self._services = services
        self._authenticate = authenticate
        self._matcher = Matcher(tuple(routes))
        self._versions: dict[str, _Version] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Other kinds of connections are not for the control plane."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        response = await self._respond(scope, receive, send)
        response.raw_headers.extend(_HEADERS)
        try:
            await response(scope, receive, send)
        except (ClientDisconnect, ConnectionError):
            return
        except DockerError as error:
            # The status is out: all that can be told is that the body is not whole. The server cuts the connection.
            _log.info("%s %s: the answer was cut off: %s", scope["method"], scope["path"], error.message)
            raise ConnectionAbortedError(error.message) from None

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> Response:
        version_text = ""
        try:
            path: str = scope["path"]
            if path.startswith("/v") and (found := _VERSIONED.match(path)):
                version_text, path = found[1], path[found.end() :]
            if "//" in path:
                path = re.sub("/{2,}", "/", path)
            matched = self._matcher.match(scope["method"], path)
            if matched is None:
                return Response() if scope["method"] == "OPTIONS" else error_response(_NOT_FOUND)
            bound, value = matched
            version = self._negotiate(version_text) if version_text else _DEFAULT
            if bound.handler is None:
                raise _refusal(bound)
            tenant = "" if bound.internal else await self._authenticate(scope)
            variables = {bound.variable: value} if bound.variable else {}
            request = DockerRequest(Request(scope, receive, send), self._services, tenant, version, variables)
            return await bound.handler(request)
        except DockerError as error:
            return _docker_error(error, scope, version_text)
        except StoreFull as error:
            return error_response(ServerError(str(error)))
        except RevisionConflict as error:
            return _docker_error(
                Unavailable("too many changes to the same object at once; try again", internal=str(error)), scope
            )
        except ClientDisconnect:
            return error_response(InvalidParameter("the client closed the connection before its request was complete"))
        except Exception:
            return _fault(scope)

    def _negotiate(self, text: str) -> tuple[int, int]:
        """The API version asked for. Raises InvalidParameter with moby's texts."""
        version = self._versions.get(text)
        if version is None:
            if len(text) > 32:
                raise InvalidParameter(f"invalid API version: {text[:32]}…")
            version = _numbers(text)
            if len(self._versions) < 100:
                self._versions[text] = version
        if version < _OLDEST:
            raise InvalidParameter(
                f"client version {text} is too old. Minimum supported API version is {MIN_API_VERSION}, "
                "please upgrade your client to a newer version"
            )
        if version > _NEWEST:
            raise InvalidParameter(f"client version {text} is too new. Maximum supported API version is {API_VERSION}")
        return version[0], version[1]


def build_app(
    services: Services,
    *,
    authenticate: Authenticate = single_tenant,
    internal_routes: Iterable[Route] = (),
    routes: Iterable[Route] = ROUTES,
) -> App:
    """The application of one control plane. Handlers are imported here, so a missing one fails at the start."""
    return App(services, authenticate, (*routes, *internal_routes))


def _refusal(bound: Bound) -> DockerError:
    refusal = NotServed(bound.route.reason)
    refusal.status = bound.route.status
    return refusal


def _docker_error(error: DockerError, scope: Scope, version: str = "") -> Response:
    if error.internal is not None or error.status >= 500:
        _log.log(
            logging.ERROR if error.status == 500 else logging.INFO,
            "%s %s: %d %s (%s)",
            scope["method"],
            scope["path"],
            error.status,
            error.message,
            error.internal,
        )
    if version and version[:1].isdigit() and _numbers(version[:32]) < _OLDEST:
        # Clients this old read errors as plain text.
        return PlainTextResponse(error.message + "\n", error.status)
    return error_response(error)


def _fault(scope: Scope) -> Response:
    """A bug of ours: everything to the log, to the user only what finds it there."""
    request_id = secrets.token_hex(6)
    _log.exception("request %s failed: %s %s", request_id, scope["method"], scope["path"])
    return error_response(ServerError(f"internal error; the log has it as request {request_id}"))


async def _lifespan(receive: Receive, send: Send) -> None:
    """Whoever composes the services starts and stops them; there is nothing to do here."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
