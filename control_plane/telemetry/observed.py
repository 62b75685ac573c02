"""ASGI middleware of a hosted control plane: request id, span, metrics and one log line for each request."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from time import perf_counter
from typing import TYPE_CHECKING, Any

from control_plane.telemetry import context

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from control_plane.telemetry.metrics import Metrics
    from control_plane.telemetry.traces import NoTraces, Traces

_log = logging.getLogger("sockerless.requests")

REQUEST_ID = b"x-sockerless-request"
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_QUIET_ROUTES = frozenset({"/_ping", "/_ready", "/metrics"})
_PROPAGATED = frozenset({b"traceparent", b"tracestate"})


class Observed:
    """Around an app: what it answers is counted, timed and logged; the answer names the request."""

    def __init__(self, app: ASGIApp, metrics: Metrics, traces: Traces | NoTraces) -> None:
        self._app = app
        self._metrics = metrics
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Faults go on to the server, observed."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        propagated = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _PROPAGATED}
        found = _TRACEPARENT.fullmatch(propagated.get("traceparent", ""))
        facts = {"request": secrets.token_hex(8)}
        if found is not None:
            facts["trace"] = found[1]
        status, began = 0, perf_counter()

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID, facts["request"].encode())]
            await send(message)

        self._metrics.began()
        with context.request(**facts) as known, self._traces.request(scope["method"], propagated) as span:
            cut = False
            try:
                await self._app(scope, receive, answer)
            except (asyncio.CancelledError, ConnectionError):
                cut = True
                raise
            finally:
                seconds = perf_counter() - began
                self._metrics.ended(scope["method"], known.get("route", ""), status, seconds)
                self._describe(span, scope, known, status)
                self._tell(scope, known, status, seconds, cut=cut)

    @staticmethod
    def _describe(span: Any, scope: Scope, known: Any, status: int) -> None:
        if span is None:
            return
        route = known.get("route", "")
        span.update_name(f"{scope['method']} {route}".strip())
        span.set_attribute("http.request.method", scope["method"])
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("http.route", route)
        for name in ("request", "tenant", "container"):
            if name in known:
                span.set_attribute(f"sockerless.{name}", known[name])

    @staticmethod
    def _tell(scope: Scope, known: Any, status: int, seconds: float, *, cut: bool) -> None:
        if known.get("route") in _QUIET_ROUTES and status < 400:
            return
        _log.info(
            # The path is the route's template: names and ids of what was asked for are fields, or nobody's business.
            "%s %s",
            scope["method"],
            known.get("route", "(no route)"),
            extra={"status": status, "milliseconds": round(seconds * 1000, 1), "cut": cut},
        )
