"""The control plane as an ASGI application: Docker's API by the table in `routes`, without a framework's router."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from control_plane.api.http import DockerRequest, error_response
from control_plane.auth.caller import Authenticate, Caller, single_tenant
from control_plane.auth.gate import Gate
from control_plane.errors import DockerError, InvalidParameter, NotFound, NotServed, ServerError, Unavailable
from control_plane.route import Bound, Matcher, Route
from control_plane.routes import ROUTES
from control_plane.services.audit import Audit, Entry, made_by
from control_plane.store.base import RevisionConflict, StoreFull
from control_plane.telemetry.context import note
from control_plane.version import API_VERSION, MIN_API_VERSION, VERSION

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from control_plane.services.bundle import Services

_log = logging.getLogger(__name__)

_VERSIONED = re.compile(r"/v([0-9.]+)(?=/)")
_HEADERS = [
    (b"api-version", API_VERSION.encode()),
    (b"docker-experimental", b"false"),
    (b"ostype", b"linux"),
    (b"server", f"Sockerless/{VERSION} (linux)".encode()),
]
_NOT_FOUND = NotFound("page not found")
_GATEWAY = Caller("", "read", "gateway")
"""Of a gateway's own calls, which say of which tenant they speak."""

_Version = tuple[int, ...]


def _numbers(version: str) -> _Version:
    return tuple(int(part) if part else 0 for part in version.split("."))


_NEWEST: _Version = _numbers(API_VERSION)
_OLDEST: _Version = _numbers(MIN_API_VERSION)
_DEFAULT = (_NEWEST[0], _NEWEST[1])


class App:
    """ASGI application. Every answer, refusals and faults included, is in Docker's form."""

    def __init__(
        self, services: Services, authenticate: Authenticate, audit: Audit | None, routes: Iterable[Route]
    ) -> None:
        self._services = services
        self._matcher = Matcher(tuple(routes))
        self._gate = Gate(authenticate, self._matcher, audit)
        self._audit = audit
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
            note(route=matched[0].route.path)
            if self._audit is not None and matched[0].audited:
                return await self._audited(self._audit, matched, version_text, scope, receive, send)
            return await self._serve(matched, version_text, scope, receive, send)
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

    async def _serve(
        self,
        matched: tuple[Bound, str],
        version_text: str,
        scope: Scope,
        receive: Receive,
        send: Send,
        admitted: Callable[[Caller], None] | None = None,
    ) -> Response:
        bound, value = matched
        # Who is asking comes first: without a valid proof nothing is told, not even what is served.
        caller = _GATEWAY if bound.internal else await self._gate.admit(scope, bound, admitted)
        note(tenant=caller.tenant, **_container(bound, value))
        version = self._negotiate(version_text) if version_text else _DEFAULT
        if bound.handler is None:
            raise _refusal(bound)
        variables = {bound.variable: value} if bound.variable else {}
        raw = Request(scope, receive, send)
        return await bound.handler(DockerRequest(raw, self._services, caller, version, variables, self._gate))

    async def _audited(
        self,
        audit: Audit,
        matched: tuple[Bound, str],
        version_text: str,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> Response:
        callers: list[Caller] = []
        status, made = 500, ""
        try:
            response = await self._serve(matched, version_text, scope, receive, send, callers.append)
            status, made = response.status_code, made_by(response.status_code, getattr(response, "body", b""))
            return response
        except DockerError as error:
            status = error.status
            raise
        finally:
            route = matched[0].route
            query = scope.get("query_string", b"").decode("latin-1")
            caller = callers[0] if callers else None
            gateway, address = self._gate.vouched(scope)
            action = f"{route.method} {route.path}"
            audit.record(Entry(caller, action, matched[1], query, status, made, gateway, address))

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
    audit: Audit | None = None,
    internal_routes: Iterable[Route] = (),
    routes: Iterable[Route] = ROUTES,
) -> App:
    """The application of one control plane. Handlers are imported here, so a missing one fails at the start."""
    return App(services, authenticate, audit, (*routes, *internal_routes))


def _container(bound: Bound, value: str) -> dict[str, str]:
    """The container that a request is about, as the client or the gateway names it; for the log."""
    named = bound.variable == "container_id" or bound.route.path.startswith("/containers/{id}")
    return {"container": value} if named else {}


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
        return PlainTextResponse(error.message + "\n", error.status, error.headers)
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
