"""What every Azure Resource Manager call shares: the token, api-version, subscription, resource group, throttling.

Paths are matched without case, as Resource Manager does.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local_cloud.azure import errors
from local_cloud.azure.errors import ArmError
from local_cloud.azure.identity.tokens import ARM_AUDIENCES, Tokens
from local_cloud.azure.names import SUBSCRIPTION
from local_cloud.azure.throttle import Throttle
from local_cloud.calls import Calls
from local_cloud.errors import ServiceError

_API_VERSIONS = frozenset({
    "2018-02-01", "2018-11-01", "2019-08-01", "2020-06-01", "2020-09-01", "2020-10-01", "2020-12-01", "2021-01-01",
    "2021-01-15", "2021-02-01", "2021-03-01", "2022-03-01", "2022-09-01", "2023-01-01", "2023-12-01", "2024-04-01",
    "2024-11-01", "2025-03-01", "2025-05-01",
})  # fmt: skip
_GROUP = r"/resourceGroups/(?P<group>[^/]+)"
_WEB = "/providers/Microsoft.Web/"
_MAX_BODY = 4 << 20
_METHODS = ["GET", "PUT", "PATCH", "POST", "DELETE"]


@dataclass(frozen=True, slots=True)
class ArmCall:
    """One call that may be served. `body` is its JSON object, empty when it has none."""

    request: Request
    group: str
    """The resource group as it is spelled in its own name; empty for calls on the whole subscription."""
    name: str
    kind: str
    api_version: str
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        """Where the caller reaches Resource Manager."""
        return str(self.request.base_url).rstrip("/")

    def flag(self, name: str, default: bool) -> bool:
        """A boolean query parameter. Raises ArmError."""
        text = self.request.query_params.get(name, str(default)).lower()
        if text not in ("true", "false"):
            raise errors.bad_request(f"The query parameter {name} must be true or false.")
        return text == "true"


Work = Callable[[ArmCall], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Action:
    """A method of a service, and what serves it."""

    method: str
    pattern: re.Pattern[str]
    name: str
    work: Work


def action(method: str, path: str, name: str, work: Work) -> Action:
    """`path` follows `Microsoft.Web/`; `{name}` in it is the resource's name. A path that begins with `*` is of the
    subscription as a whole, others of a resource group."""
    scope = "" if path.startswith("*") else _GROUP
    pattern = re.escape(_WEB + path.lstrip("*")).replace(re.escape("{name}"), "(?P<name>[^/]+)")
    return Action(method, re.compile(rf"/subscriptions/(?P<subscription>[^/]+){scope}{pattern}/?", re.I), name, work)


class ArmFace:
    """Finds the action of a call and checks what is common to all."""

    def __init__(self, tokens: Tokens, calls: Calls, groups: Iterable[str], throttle: Throttle) -> None:
        self._tokens = tokens
        self._calls = calls
        self._groups = {group.lower(): group for group in groups}
        self._throttle = throttle
        self._actions: list[Action] = []

    def add(self, actions: Iterable[Action]) -> None:
        """Takes up the actions of a service."""
        self._actions.extend(actions)

    def routes(self) -> list[Route]:
        """One route: the paths are matched here."""
        return [Route("/subscriptions/{rest:path}", self.handle, methods=_METHODS)]

    async def handle(self, request: Request) -> Response:
        """Answers a call."""
        found = next(
            (
                (each, match)
                for each in self._actions
                if each.method == request.method and (match := each.pattern.fullmatch(request.url.path))
            ),
            None,
        )
        try:
            if found is None:
                return await self._unknown(request)
            each, match = found
            answer = await self._calls.call(each.name, lambda: self._serve(each, match, request))
        except (ArmError, ServiceError) as error:
            return errors.refusal(error)
        answer.headers.update(errors.request_headers())
        return answer

    async def _serve(self, found: Action, match: re.Match[str], request: Request) -> Response:
        version = self._check(request)
        _check_subscription(match["subscription"])
        parts = match.groupdict()
        group = self._group(parts["group"]) if "group" in parts else ""
        self._throttle.take(request.method)
        body = await _body(request) if request.method in ("PUT", "PATCH") else {}
        kind = request.url.path.lower().partition(_WEB.lower())[2].split("/")[0]
        return await found.work(ArmCall(request, group, parts.get("name") or "", kind, version, body))

    async def _unknown(self, request: Request) -> Response:
        version = self._check(request)
        path = request.url.path.partition(_WEB)[2] or request.url.path
        raise ArmError(
            404,
            "InvalidResourceType",
            f"The resource type '{path.strip('/')}' with method {request.method} could not be found in the namespace "
            f"'Microsoft.Web' of the local cloud for api version '{version}'.",
        )

    def _check(self, request: Request) -> str:
        self._tokens.check(request.headers.get("authorization"), ARM_AUDIENCES, 401)
        version = request.query_params.get("api-version", "")
        if not version:
            text = "The api-version query parameter (?api-version=) is required for all requests."
            raise ArmError(400, "MissingApiVersionParameter", text)
        if version not in _API_VERSIONS:
            known = ",".join(sorted(_API_VERSIONS, reverse=True))
            text = f"The api-version '{version}' is invalid. The supported versions are '{known}'."
            raise ArmError(400, "InvalidApiVersionParameter", text)
        return version

    def _group(self, name: str) -> str:
        found = self._groups.get(name.lower())
        if found is None:
            raise ArmError(404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found.")
        return found


def _check_subscription(subscription: str) -> None:
    if subscription.lower() == SUBSCRIPTION:
        return
    try:
        uuid.UUID(subscription)
    except ValueError:
        text = f"The provided subscription identifier '{subscription}' is malformed or invalid."
        raise ArmError(400, "InvalidSubscriptionId", text) from None
    raise ArmError(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")


async def _body(request: Request) -> dict[str, Any]:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > _MAX_BODY:
            raise ArmError(413, "RequestEntityTooLarge", f"The request is larger than {_MAX_BODY} bytes.")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        text = "The request content was invalid and could not be deserialized: it is not a JSON object."
        raise ArmError(400, "InvalidRequestContent", text)
    return value


def listing(values: list[dict[str, Any]]) -> Response:
    """A list answer; all on one page."""
    return JSONResponse({"value": values, "nextLink": None})
