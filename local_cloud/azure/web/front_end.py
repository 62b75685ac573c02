"""App Service's front end: requests for `<site>.azurewebsites.net`, passed on to the site's container."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from local_cloud.azure.errors import azure_error
from local_cloud.azure.names import SITE_SUFFIX
from local_cloud.azure.web.containers import Containers
from local_cloud.azure.web.records import RUNNING, Records
from local_cloud.calls import Calls
from local_cloud.errors import ServiceError
from local_cloud.instances import ClientGone, UpstreamBroken, UpstreamTimeout, forward

METHOD = "Sites.Invoke"


class FrontEnd:
    """An ASGI app for all sites. `limit`: seconds after which a request is given up."""

    def __init__(self, records: Records, containers: Containers, calls: Calls, limit: float) -> None:
        self._records = records
        self._containers = containers
        self._calls = calls
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        request = Request(scope, receive, send)
        try:
            response = await self._calls.call(METHOD, lambda: self._answer(request))
        except ServiceError as error:
            said = azure_error(error)
            response = PlainTextResponse(said.message, said.status, headers=said.headers)
        except ClientGone:
            return
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        began = time.monotonic()
        name = request.headers.get("host", "").partition(":")[0].rstrip(".").lower().removesuffix(SITE_SUFFIX)
        site = self._records.site(name)
        if site is None:
            return _page(404, "Web Site not found", "404 Web Site not found.")
        if site.state != RUNNING:
            return _page(403, "Web App - Unavailable", "Error 403 - This web app is stopped.")
        instance = await self._containers.ready(site.name, self._limit)
        left = began + self._limit - time.monotonic()
        if instance is None or left <= 0:
            if left <= 0:
                return _page(504, "504.0 GatewayTimeout", "504.0 GatewayTimeout")
            return _page(503, "Application Error", "Application Error")
        try:
            return await forward(instance, request, timeout=left)
        except UpstreamTimeout:
            return _page(504, "504.0 GatewayTimeout", "504.0 GatewayTimeout")
        except UpstreamBroken:
            return _page(502, "502 Bad Gateway", "502 Bad Gateway")


def _page(status: int, title: str, text: str) -> Response:
    page = f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{text}</h1></body></html>\n"
    return HTMLResponse(page, status)
