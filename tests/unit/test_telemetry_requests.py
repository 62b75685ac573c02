"""Metrics and traces of requests: bounded labels, the caller's trace gone on with, nothing when off."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from control_plane.backends.calls import CloudError, call
from control_plane.telemetry import context, hooks
from control_plane.telemetry.metrics import Metrics
from control_plane.telemetry.observed import Observed
from control_plane.telemetry.traces import NoTraces, Traces

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture(autouse=True)
def _off_again() -> Iterator[None]:
    yield
    hooks.cloud_call = hooks.reconciled = hooks.containers = None
    hooks.span = hooks.traceparent = hooks.continued = None


async def answering(scope: Scope, receive: Receive, send: Send) -> None:
    context.note(route="/containers/{id}/json", tenant="team", container="abc")
    if scope["path"] == "/fault":
        raise RuntimeError("a bug")
    await call("starting the container", lambda timeout: asyncio.sleep(0))
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def ask(app: Any, method: str = "GET", path: str = "/containers/abc/json", *headers: tuple[bytes, bytes]) -> Any:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": method, "path": path, "headers": list(headers)}, None, send)
    return sent


async def test_labels_are_templates_and_classes() -> None:
    metrics = Metrics()
    app = Observed(answering, metrics, NoTraces())
    for name in ("a", "b", "c"):
        await ask(app, path=f"/containers/{name}/json")
    await ask(app, method="BREW")
    page = metrics.page().decode()
    counted = 'sockerless_request_seconds_count{method="GET",route="/containers/{id}/json",status="4xx"} 3.0'
    assert counted in page
    assert 'method="other"' in page
    assert "BREW" not in page
    assert "/containers/a/json" not in page
    assert "sockerless_requests_in_progress 0.0" in page


async def test_a_fault_is_counted_and_goes_on() -> None:
    metrics = Metrics()
    with pytest.raises(RuntimeError):
        await ask(Observed(answering, metrics, NoTraces()), path="/fault")
    assert 'status="none"} 1.0' in metrics.page().decode()


async def test_the_answer_names_the_request() -> None:
    start, _ = await ask(Observed(answering, Metrics(), NoTraces()))
    names = dict(start["headers"])
    assert len(names[b"x-sockerless-request"]) == 16


async def test_cloud_calls_are_counted_with_their_outcome() -> None:
    metrics = Metrics()
    metrics.attach()

    async def refused(timeout: float) -> None:
        raise CloudError("PERMISSION_DENIED", "no", "starting the container")

    await call("starting the container", lambda timeout: asyncio.sleep(0))
    with pytest.raises(CloudError):
        await call("starting the container", refused)
    page = metrics.page().decode()
    assert 'sockerless_cloud_call_seconds_count{call="starting the container",outcome="ok"} 1.0' in page
    assert 'call="starting the container",outcome="PERMISSION_DENIED"} 1.0' in page


async def test_passes_and_containers() -> None:
    metrics = Metrics()
    metrics.attach()
    with hooks.reconciling():
        assert hooks.containers is not None
        hooks.containers({"running": 3, "exited": 2})
    with pytest.raises(KeyError), hooks.reconciling():
        raise KeyError
    page = metrics.page().decode()
    assert 'sockerless_reconcile_seconds_count{outcome="done"} 1.0' in page
    assert 'sockerless_reconcile_seconds_count{outcome="failed"} 1.0' in page
    assert hooks.containers is not None
    hooks.containers({"running": 2})
    assert 'sockerless_containers{status="running"} 2.0' in metrics.page().decode()
    hooks.containers(None)
    assert "sockerless_containers{" not in metrics.page().decode()
    assert 'sockerless_containers{status="running"} 3.0' in page
    assert 'sockerless_containers{status="paused"} 0.0' in page


async def test_the_trace_goes_from_the_callers_span_to_the_cloud_call() -> None:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    traces = Traces(SimpleSpanProcessor(kept))
    app = Observed(answering, Metrics(), traces)
    await ask(app, "GET", "/containers/abc/json", (b"traceparent", f"00-{TRACE}-{PARENT}-01".encode()))
    cloud, request = kept.get_finished_spans()
    assert request.parent is not None
    assert cloud.parent is not None
    assert f"{request.context.trace_id:032x}" == f"{cloud.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == PARENT
    assert cloud.parent.span_id == request.context.span_id
    assert (request.name, cloud.name) == ("GET /containers/{id}/json", "starting the container")
    assert request.attributes is not None
    assert request.attributes["sockerless.container"] == "abc"
    traces.close()
    assert hooks.span is None


def test_off_nothing_is_loaded() -> None:
    program = (
        "import sys, control_plane.app, control_plane.telemetry.traces as t; t.set_up(); "
        "print([n for n in sys.modules if n.startswith(('opentelemetry.sdk', 'prometheus_client', 'structlog'))])"
    )
    kept = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=kept)
    assert done.stdout.strip() == "[]"


async def test_what_the_agent_reports_later_belongs_to_the_requests_trace() -> None:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    assert hooks.trace_now() == ""
    kept = InMemorySpanExporter()
    traces = Traces(SimpleSpanProcessor(kept))
    with traces.request("POST", {"traceparent": f"00-{TRACE}-{PARENT}-01"}):
        remembered = hooks.trace_now()
    assert remembered.split("-")[1] == TRACE
    with traces.request("POST", {}), context.request(request="r2"), hooks.in_trace(remembered, "agent: started"):
        pass
    start, agent, event = kept.get_finished_spans()
    assert agent.name == "agent: started"
    assert agent.parent is not None
    assert agent.parent.span_id == start.context.span_id
    assert agent.attributes is not None
    assert agent.attributes["sockerless.request"] == "r2"
    assert event.context.trace_id != start.context.trace_id
    with hooks.in_trace("", "agent: started"):
        pass
    assert len(kept.get_finished_spans()) == 3
    traces.close()
