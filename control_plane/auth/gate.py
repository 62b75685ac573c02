"""The one place where a route meets its caller: who is it, and is the route open to a token of that scope?"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from control_plane.auth.bearer import header
from control_plane.auth.caller import LOCAL, Authenticate, Caller, single_tenant
from control_plane.auth.refusal import no_proof
from control_plane.errors import DockerError, Forbidden, NotFound, Unauthorized
from control_plane.services.audit import Audit, Entry

if TYPE_CHECKING:
    from control_plane.route import Bound, Matcher

_VERSION = re.compile(r"/v[0-9.]{1,32}(?=/)")
_OWN_TOKEN = "bearer skls_"  # noqa: S105 (a prefix)


@dataclass(frozen=True, slots=True)
class StreamAsked:
    """A Docker request to be hijacked, as far as it concerns access."""

    method: str
    path: str
    query: str
    authorization: str | None = None
    """The client's, passed on by a gateway."""
    certificate: str = ""
    """Subject of the client's certificate, verified by the gateway's TLS proxy."""
    address: str = ""
    """Of that client, as the proxy says."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks for a ticket."""

    gateway: str
    """URL of a gateway; empty when a connector asks."""
    caller: Caller | None
    """A connector's user; None: the gateway's client, still to be asked for its proof."""


class Gate:
    """Asked by the application for every request, and by the gateways' calls for every stream."""

    def __init__(self, authenticate: Authenticate, matcher: Matcher, audit: Audit | None) -> None:
        self.authenticate = authenticate
        self._matcher = matcher
        self._audit = audit

    async def admit(
        self, scope: Mapping[str, Any], bound: Bound, known: Callable[[Caller], None] | None = None
    ) -> Caller:
        """The caller, if the route is open to it. `known` hears of it in any case.

        Raises NotAuthenticated, Forbidden.
        """
        caller = await self.authenticate(scope)
        if known is not None:
            known(caller)
        check_scope(caller, bound)
        return caller

    def vouched(self, scope: Mapping[str, Any]) -> tuple[str, str]:
        """For the audit log: the gateway that vouches for a request's client, and the client's address, or nothing."""
        attested = getattr(self.authenticate, "attested", None)
        found = None if attested is None else attested(scope)
        return (found.gateway, found.address) if found is not None else ("", "")

    async def who_asks(self, scope: Mapping[str, Any], check_gateway: Callable[[str | None], str]) -> Asking:
        """Of a ticket's request: a gateway for its client, or a connector with its user's own token.

        Raises NotAuthenticated, Unauthorized.
        """
        authorization = header(scope, b"authorization")
        try:
            if authorization is None or not authorization.lower().startswith(_OWN_TOKEN):
                return Asking(check_gateway(authorization), None)
        except Unauthorized:
            if authorization is None or self.authenticate is single_tenant:
                raise
        caller = await self.authenticate(scope)
        if caller.subject == LOCAL.subject:
            # Nobody was asked for a proof: then only gateways may have tickets.
            raise no_proof()
        return Asking("", caller)

    async def admit_stream(
        self, asking: Asking, asked: StreamAsked, grant: Callable[[Caller], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        """What `grant` gives the caller, if the stream's route is open to it. Raises DockerError."""
        bound, target = self._route(asked.method, asked.path)
        caller, status = asking.caller, 500
        try:
            if caller is None:
                caller = await self._client_of_gateway(asked)
            check_scope(caller, bound)
            answer = await grant(caller)
            status = 200
            return answer
        except DockerError as error:
            status = error.status
            raise
        finally:
            if self._audit is not None:
                action = f"{asked.method} {bound.route.path}"
                address = asked.address if asking.gateway else ""
                entry = Entry(caller, action, target, asked.query, status, gateway=asking.gateway, address=address)
                self._audit.record(entry)

    def _route(self, method: str, path: str) -> tuple[Bound, str]:
        found = _VERSION.match(path)
        matched = self._matcher.match(method, path[found.end() :] if found else path)
        if matched is None or matched[0].route.served_by != "front_door":
            raise NotFound("page not found")
        return matched

    async def _client_of_gateway(self, asked: StreamAsked) -> Caller:
        certified = getattr(self.authenticate, "certified", None)
        if asked.certificate and not asked.authorization and certified is not None:
            caller: Caller = await certified(asked.certificate)
            return caller
        headers = [] if not asked.authorization else [(b"authorization", asked.authorization.encode())]
        return await self.authenticate({"type": "http", "method": asked.method, "path": asked.path, "headers": headers})


def check_scope(caller: Caller, bound: Bound) -> None:
    """Raises Forbidden."""
    if not caller.may(bound.needs):
        route = bound.route
        raise Forbidden(
            f"this token has the scope `{caller.scope}`, and {route.method} {route.path} wants `{bound.needs}`"
        )
