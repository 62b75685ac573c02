"""The front end of services and functions: finds the service by the request's host, checks the caller, passes it on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from google.cloud import run_v2
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from local_cloud.calls import Calls
from local_cloud.errors import ServiceError
from local_cloud.gcp.functions import built
from local_cloud.gcp.metadata.tokens import TokenRefused, Tokens
from local_cloud.gcp.services import pages, traffic
from local_cloud.gcp.services.pool import InstancePool, Unavailable
from local_cloud.gcp.services.records import RevisionRecord, ServiceRecord, ServiceRecords
from local_cloud.instances import ClientGone, UpstreamBroken, UpstreamTimeout, forward

_ALL = int(run_v2.IngressTraffic.INGRESS_TRAFFIC_ALL)
_FUNCTIONS = ".cloudfunctions.net"
_REMOVED = "SIGNATURE_REMOVED_BY_GOOGLE"
_TOKEN_HEADERS = ("x-serverless-authorization", "authorization")


class ServiceFrontEnd:
    """The ASGI app behind `*.run.app` and `*.cloudfunctions.net`.

    `function_of` tells whether a service belongs to a function; `aliases` its further URLs.
    """

    def __init__(
        self,
        records: ServiceRecords,
        pool: InstancePool,
        tokens: Tokens,
        calls: Calls,
        is_function: Callable[[str], bool],
        project: str,
    ) -> None:
        self._records = records
        self._pool = pool
        self._tokens = tokens
        self._calls = calls
        self._is_function = is_function
        self._project = project

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientGone:
            return
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        host = (request.headers.get("host") or "").partition(":")[0].lower()
        name, tag, path = self._find(host, request.url.path)
        record = self._records.service(name) if name else None
        if record is None or record.service.ingress != _ALL:
            return pages.not_found()
        if record.service.default_uri_disabled and not tag:
            return pages.not_found()
        function = self._is_function(record.service.name)
        method = "Functions.Invoke" if function else "Services.Invoke"
        try:
            fault = await self._calls.before(method)
            response = await self._serve(request, record, tag, path, self._audiences(record, host, function=function))
            await self._calls.after(method, fault)
            return response
        except ServiceError as error:
            return PlainTextResponse(error.message + "\n", error.http_status)

    def _find(self, host: str, path: str) -> tuple[str, str, str]:
        """(service name, tag, path for the container) of a request; an empty name when there is none such."""
        if host.endswith(_FUNCTIONS):
            region = host.removesuffix(_FUNCTIONS).removesuffix(f"-{self._project}")
            function, _, rest = path.lstrip("/").partition("/")
            return f"projects/{self._project}/locations/{region}/services/{function}", "", f"/{rest}"
        tag, dashes, main = host.partition("---")
        record = self._records.by_host(main if dashes else host)
        return (record.service.name if record is not None else ""), (tag if dashes else ""), path

    def _audiences(self, record: ServiceRecord, host: str, *, function: bool) -> set[str]:
        service = record.service
        found = {*service.urls, *service.custom_audiences}
        found.update(status.uri for status in service.traffic_statuses if status.uri)
        if function:
            _, project, _, region, _, name = service.name.split("/")
            found.add(f"https://{region}-{project}{_FUNCTIONS}/{name}")
        return found | {f"{url}/" for url in found}

    async def _serve(
        self, request: Request, record: ServiceRecord, tag: str, path: str, audiences: set[str]
    ) -> Response:
        service = record.service
        headers: Mapping[str, str] = {}
        if not service.invoker_iam_disabled:
            name, token = _token(request)
            if not token:
                return pages.forbidden(request.url.path)
            try:
                await self._tokens.check(token, audiences)
            except TokenRefused as refusal:
                return pages.unauthorized(request.url.path, str(refusal))
            headers = {name: f"Bearer {token.rpartition('.')[0]}.{_REMOVED}"}
        chosen = traffic.choose(service, tag)
        revision = self._records.revision(chosen) if chosen else None
        if revision is None:
            return pages.unavailable(503, "Service Unavailable")
        if built.is_built(revision.revision.containers[0].image):
            return built.answer()
        request.scope["path"], request.scope["raw_path"] = _paths(request, path)
        return await self._forward(request, service.name, revision, headers)

    async def _forward(
        self, request: Request, service: str, revision: RevisionRecord, headers: Mapping[str, str]
    ) -> Response:
        loop = asyncio.get_running_loop()
        until = loop.time() + revision.revision.timeout.ToMilliseconds() / 1000
        try:
            async with asyncio.timeout_at(until):
                slot, instance = await self._pool.acquire(service, revision)
        except Unavailable as error:
            return pages.unavailable(error.status, error.text)
        except TimeoutError:
            return pages.timed_out()
        try:
            return await forward(instance, request, timeout=max(until - loop.time(), 0.0), headers=headers)
        except UpstreamTimeout:
            return pages.timed_out()
        except UpstreamBroken:
            return pages.broken()
        finally:
            self._pool.release(slot)


def _token(request: Request) -> tuple[str, str]:
    """The header that carries a bearer token, and the token; empty when there is none."""
    for name in _TOKEN_HEADERS:
        kind, _, token = request.headers.get(name, "").partition(" ")
        if kind.lower() == "bearer" and token.strip():
            return name, token.strip()
    return "", ""


def _paths(request: Request, path: str) -> tuple[str, bytes]:
    """The path for the container, plain and as it came."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    if path == request.scope["path"]:
        return path, raw
    return path, b"/" + raw.lstrip(b"/").partition(b"/")[2]
