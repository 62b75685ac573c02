"""OpenTelemetry traces, on when `OTEL_EXPORTER_OTLP_ENDPOINT` is set; the packages are in the extra `telemetry`.

A request's `traceparent` (W3C Trace Context) is gone on with: the docker client's or a proxy's span is the parent of
ours, and ours of the cloud calls.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from agent_gateway import trace_context
from control_plane.backends.settings_error import SettingsError
from control_plane.telemetry import context, hooks
from control_plane.version import VERSION

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TIMEOUT_MILLISECONDS = 3000


class NoTraces:
    """Traces are off."""

    def request(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
        """No span."""
        return nullcontext()

    def close(self) -> None:
        """Nothing is kept."""


class Traces:
    """Traces to a collector. Other `OTEL_…` variables mean what OpenTelemetry says."""

    def __init__(self, processor: Any = None) -> None:
        """`processor` takes the spans in place of a batching exporter."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        about = {"service.version": VERSION}
        if not os.environ.get("OTEL_SERVICE_NAME"):
            about["service.name"] = "sockerless-control-plane"
        self._provider = TracerProvider(resource=Resource.create(about))
        self._provider.add_span_processor(processor or _exporting())
        self._tracer = self._provider.get_tracer("sockerless", VERSION)
        self._propagator = TraceContextTextMapPropagator()
        hooks.span, hooks.traceparent, hooks.continued = self._inner, self._traceparent, self._continued
        trace_context.traceparent = self._traceparent

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str]) -> Iterator[Any]:
        """The span of one request, child of what its headers name."""
        from opentelemetry.trace import SpanKind

        parent = self._propagator.extract(dict(headers))
        with self._tracer.start_as_current_span(name, context=parent, kind=SpanKind.SERVER) as span:
            yield span

    @contextmanager
    def _inner(self, name: str) -> Iterator[None]:
        from opentelemetry.trace import SpanKind

        with self._tracer.start_as_current_span(name, kind=SpanKind.CLIENT):
            yield

    def _traceparent(self) -> str:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent", "")

    @contextmanager
    def _continued(self, traceparent: str, name: str) -> Iterator[None]:
        from opentelemetry.trace import SpanKind

        parent = self._propagator.extract({"traceparent": traceparent})
        with self._tracer.start_as_current_span(name, context=parent, kind=SpanKind.CONSUMER) as span:
            for known, value in context.facts().items():
                span.set_attribute(f"sockerless.{known}", value)
            yield

    def close(self) -> None:
        """Sends what is left, and is off."""
        hooks.span = hooks.traceparent = hooks.continued = trace_context.traceparent = None
        self._provider.shutdown()


def set_up() -> Traces | NoTraces:
    """By the environment. Raises SettingsError when traces are wanted and the packages are missing."""
    if not os.environ.get(ENDPOINT):
        return NoTraces()
    try:
        return Traces()
    except ImportError as error:
        raise SettingsError(
            f"{ENDPOINT} is set, but {error.name} is not installed: pip install 'sockerless[telemetry]'"
        ) from None


def _exporting() -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter(timeout=10), export_timeout_millis=_TIMEOUT_MILLISECONDS)
