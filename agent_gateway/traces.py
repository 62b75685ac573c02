"""OpenTelemetry traces of a gateway, on when `OTEL_EXPORTER_OTLP_ENDPOINT` is set; the packages are in `telemetry`.

Spans are made for a Docker request, for a stream until the agent's half of it has come, and for an agent's hello: never
for what passes over them. Off, nothing of OpenTelemetry is loaded, and each of those looks at `active` once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from time import time_ns
from typing import Any

from agent_gateway import trace_context
from agent_gateway.asgi import App, Receive, Scope, Send

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TIMEOUT_MILLISECONDS = 3000
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})
_COLLECTIONS = frozenset(
    {
        "_ping", "auth", "build", "commit", "configs", "containers", "distribution", "events", "exec", "images", "info",
        "networks", "nodes", "plugins", "secrets", "services", "session", "swarm", "system", "tasks", "version",
        "volumes",
    }
)  # fmt: skip
"""Of Docker's API. A span's name says no more than this: the rest of a path is the client's to choose."""

Opening = Callable[[bool], None]
"""Told whether both halves of a stream have met."""


class Traces:
    """Traces to a collector. Other `OTEL_…` variables mean what OpenTelemetry says."""

    def __init__(self, processor: Any = None) -> None:
        """`processor` takes the spans in place of a batching exporter. Raises ImportError without the packages."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        about = {"service.version": _version()}
        if not os.environ.get("OTEL_SERVICE_NAME"):
            about["service.name"] = "sockerless-gateway"
        self._provider = TracerProvider(resource=Resource.create(about))
        self._provider.add_span_processor(processor or _exporting())
        self._tracer = self._provider.get_tracer("sockerless", _version())
        self._propagator = TraceContextTextMapPropagator()

    def around(self, app: App, but: Callable[[str], bool]) -> App:
        """An app whose requests are spans, and go on with that trace; `but` tells paths that are no Docker requests."""
        from opentelemetry.trace import SpanKind

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or but(scope["path"]):
                await app(scope, receive, send)
                return
            parent = self._propagator.extract(trace_context.shown(scope["headers"]))
            name = _name(scope["method"], scope["path"])
            with self._tracer.start_as_current_span(name, context=parent, kind=SpanKind.SERVER) as span:
                span.set_attribute("http.request.method", name.partition(" ")[0])

                async def answer(message: Any) -> None:
                    if message["type"] == "http.response.start":
                        span.set_attribute("http.response.status_code", message["status"])
                    await send(message)

                carried = [(key.encode(), value.encode()) for key, value in trace_context.carried().items()]
                headers = trace_context.without(scope["headers"]) + carried
                await app({**scope, "headers": headers}, receive, answer)

        return traced

    def opening(self, kind: str, container: str, trace: Mapping[str, str]) -> Opening:
        """Begins the span of a stream's opening, in the trace under way or in the one that is named."""
        parent = self._propagator.extract(trace) if trace else None
        span = self._tracer.start_span(f"open stream: {kind}", context=parent)
        span.set_attribute("sockerless.container", container)

        def met(came: bool) -> None:
            from opentelemetry.trace import StatusCode

            if not came:
                span.set_status(StatusCode.ERROR, "no half of the agent's came")
            span.end()

        return met

    def hello(self, container: str, began: int, trace: str) -> None:
        """An agent that was welcomed, from `began` (nanoseconds of the epoch) until now, in the trace of its start."""
        from opentelemetry.trace import SpanKind

        parent = self._propagator.extract({trace_context.TRACEPARENT: trace})
        span = self._tracer.start_span("gateway: hello", context=parent, kind=SpanKind.SERVER, start_time=began)
        span.set_attribute("sockerless.container", container)
        span.end()

    def traceparent(self) -> str:
        """Of the span under way."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get(trace_context.TRACEPARENT, "")

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()


active: Traces | None = None
"""None while traces are off."""


def switch_on(traces: Traces) -> None:
    """From now on spans are made."""
    global active
    active = traces
    trace_context.traceparent = traces.traceparent


def switch_off() -> None:
    """Sends what is left; no spans from now on."""
    global active
    ended, active, trace_context.traceparent = active, None, None
    if ended is not None:
        ended.close()


def set_up(variables: Mapping[str, str]) -> None:
    """By the environment. Raises ImportError when traces are wanted and the packages are missing."""
    if variables.get(ENDPOINT):
        switch_on(Traces())


def around(app: App, but: Callable[[str], bool]) -> App:
    """The app itself where traces are off."""
    return app if active is None else active.around(app, but)


def now() -> int:
    """The time that a span may be said to have begun at; 0 where traces are off."""
    return 0 if active is None else time_ns()


def _name(method: str, path: str) -> str:
    first = path.lstrip("/").split("/", 2)
    found = first[1] if first[0][:1] == "v" and first[0] not in _COLLECTIONS and len(first) > 1 else first[0]
    collection = f"/{found}" if found in _COLLECTIONS else "(other)"
    return f"{method if method in _METHODS else 'OTHER'} {collection}"


def _version() -> str:
    try:
        return version("sockerless")
    except PackageNotFoundError:
        return ""


def _exporting() -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter(timeout=10), export_timeout_millis=_TIMEOUT_MILLISECONDS)
