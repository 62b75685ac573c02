"""From a Docker request over the gateway to the agent: one trace, sent to a collector by the processes that made it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_gateway.streams import StreamError
from control_plane.model import Lease
from control_plane.telemetry.metrics import Metrics
from control_plane.telemetry.observed import Observed
from control_plane.telemetry.traces import Traces
from tests.contract.agent_container import AgentContainer, busybox_root, needs_namespaces
from tests.contract.gateway_processes import GatewayProcess, Plane
from tests.contract.otlp_collector import Collector, Span, collecting
from tests.contract.test_gateway_processes import exec_params
from tests.free_ports import free_port
from tests.unit.run_world import TENANT

TRACE, START = "0af7651916cd43dd8448eb211c80319c", "1bf7651916cd43dd8448eb211c80319d"
PARENT = "b7ad6b7169203331"


class Traced:
    """A gateway that sends its spans, and a control plane in this process that keeps its own."""

    def __init__(self, plane: Plane, gateway: GatewayProcess, collector: Collector, docker: str) -> None:
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.plane, self.gateway, self.docker, self._collector = plane, gateway, docker, collector
        self.kept = InMemorySpanExporter()
        self.traces = Traces(SimpleSpanProcessor(self.kept))
        plane.app = Observed(plane.app, Metrics(), self.traces)  # type: ignore[assignment]

    async def spans(self) -> list[Span]:
        """The gateway's; it ends first, so that all have been sent."""
        assert await self.gateway.terminate() == 0
        return [span for span in self._collector.spans() if span.service == "sockerless-gateway"]

    def of_control_plane(self, trace: str) -> list[Any]:
        return [span for span in self.kept.get_finished_spans() if f"{span.context.trace_id:032x}" == trace]

    async def ask(self, method: str, path: str, **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            shown = {"traceparent": f"00-{TRACE}-{PARENT}-01", **headers}
            return await client.request(method, self.docker + path, headers=shown)


@asynccontextmanager
async def traced(folder: Path) -> AsyncIterator[Traced]:
    with collecting() as collector:
        plane = Plane(folder)
        port = free_port()
        listen = {"SOCKERLESS_DOCKER_LISTEN": f"tcp://127.0.0.1:{port}", "SOCKERLESS_DRAIN_SECONDS": "1"}
        gateway = GatewayProcess(plane, **listen, **collector.variables)
        found = Traced(plane, gateway, collector, f"http://127.0.0.1:{port}")
        await plane.start()
        try:
            await gateway.start()
            await plane.registered(gateway.url)
            yield found
        finally:
            gateway.close()
            await plane.close()
            found.traces.close()


async def test_a_docker_request_is_a_span_and_the_control_planes_is_its_child(tmp_path: Path) -> None:
    async with traced(tmp_path) as world:
        assert (await world.ask("GET", "/v1.50/containers/a-name/json")).status_code == 401
        assert (await world.ask("POST", "/containers/a-name/attach")).status_code >= 400
        assert (await world.ask("BREW", "/secrets-of/a-name")).status_code >= 400
        spans = [span for span in await world.spans() if span.trace == TRACE]
        asked = world.of_control_plane(TRACE)
    assert [span.name for span in spans] == ["GET /containers", "POST /containers", "OTHER (other)"]
    assert {span.parent for span in spans} == {PARENT}
    assert spans[0].attributes == {"http.request.method": "GET", "http.response.status_code": 401}
    assert "a-name" not in repr(spans)
    # What is forwarded, and the ticket that a hijack asks for.
    assert [f"{span.parent.span_id:016x}" for span in asked] == [span.id for span in spans]


async def test_an_agents_hello_and_the_streams_to_it_belong_to_who_asked(tmp_path: Path) -> None:
    needs_namespaces()
    root = busybox_root(tmp_path / "root")
    async with traced(tmp_path / "plane") as world:
        await world.plane.container(world.gateway.url)
        lease = Lease(operation="start", owner="o", expires_at=time.time() + 60, trace=f"00-{START}-{PARENT}-01")
        await world.plane.records.update(TENANT, "c0ffee", lambda c: c.model_copy(update={"lease": lease}))
        container = AgentContainer(root, world.gateway.url, token=world.plane.token())
        try:
            await world.plane.until(lambda c: c.state.status == "running")
            relay = world.plane.relay(world.gateway.url)
            with world.traces.request("POST", {"traceparent": f"00-{TRACE}-{PARENT}-01"}) as span:
                asking = f"{span.get_span_context().span_id:016x}"
                stream = await relay.open(TENANT, "c0ffee", "exec", exec_params("echo", "here"))
                assert b"".join([chunk async for chunk in stream.chunks()]).strip() == b"here"
            await relay.aclose()
        finally:
            container.end()
        spans = await world.spans()
    (hello,) = [span for span in spans if span.trace == START]
    assert (hello.name, hello.parent) == ("gateway: hello", PARENT)
    assert hello.attributes == {"sockerless.container": "c0ffee"}
    (opened,) = [span for span in spans if span.name == "open stream: exec"]
    assert (opened.trace, opened.parent, opened.failed) == (TRACE, asking, False)
    # The control plane's own span of the hello is beside it.
    assert "agent: hello" in [span.name for span in world.of_control_plane(START)]


async def test_a_stream_whose_agent_never_comes_is_a_span_that_failed(tmp_path: Path) -> None:
    async with traced(tmp_path) as world:
        relay = world.plane.relay(world.gateway.url)
        stream = await relay.open(TENANT, "c0ffee", "exec", exec_params("true"))
        with pytest.raises(StreamError):
            [chunk async for chunk in stream.chunks()]
        await relay.aclose()
        (span,) = [span for span in await world.spans() if span.name == "open stream: exec"]
    assert span.failed


def test_wanted_without_the_packages_it_is_said() -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from agent_gateway.entrypoint import main\n"
        "sys.exit(main({'SOCKERLESS_CONTROL_PLANE_URL': 'http://127.0.0.1:1', 'SOCKERLESS_KEY': 'k' * 32,"
        " 'SOCKERLESS_GATEWAY_URL': 'http://g', 'PORT': '0', 'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://127.0.0.1:1'}))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert ended.returncode == 2
    assert "pip install 'sockerless[telemetry]'" in ended.stderr


def test_off_nothing_is_loaded_and_nothing_is_in_the_way() -> None:
    program = (
        "import sys\n"
        "from agent_gateway import entrypoint, server, traces, trace_context\n"
        "traces.set_up({})\n"
        "app = object()\n"
        "assert traces.around(app, bool) is app\n"
        "assert trace_context.carried() == {} and traces.now() == 0\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout.strip() == "[]"
