"""Figures that dockerd has no counterpart of: cold start, the cost of an import, and the agent by itself."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from agent_gateway.agent import binary
from agent_gateway.client_half import ClientHalf, StreamError
from agent_gateway.streams import new_stream_id
from agent_gateway.tickets import mint_agent_token, mint_ticket
from tests.contract.agent_container import AgentContainer, agent, busybox_root, spec
from tests.contract.agent_peer import AgentPeer
from tests.contract.gateway_peers import KEY, TENANT, FakeControlPlane, running_gateway
from tests.e2e.endpoint import Endpoint

MIB = 1024 * 1024

_IMPORT = "import time; begin = time.process_time(); import control_plane.app; print(time.process_time() - begin)"

_BARE = """
echo
exec env -i SOCKERLESS_CALLBACK_URL="$URL" SOCKERLESS_CONTAINER_ID=c0ffee SOCKERLESS_AGENT_TOKEN=secret "$AGENT"
"""


def cold_start() -> float:
    """Milliseconds from the command to the first answered `_ping`, in a new state directory."""
    with tempfile.TemporaryDirectory(prefix="skls-", ignore_cleanup_errors=True) as directory:
        endpoint = Endpoint(Path(directory) / "d")
        begin = time.perf_counter()
        endpoint.start()
        spent = time.perf_counter() - begin
        endpoint.down()
    return 1000 * spent


def import_cpu() -> float:
    """CPU milliseconds of importing the control plane's application, from compiled modules."""
    done = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, check=True)
    return 1000 * float(done.stdout)


def agent_size() -> float:
    return binary.path().stat().st_size / 1e6


def agent_ready() -> float:
    """Milliseconds from the agent's execution to its `hello` at the gateway."""
    return asyncio.run(_ready())


async def _ready() -> float:
    async with AgentPeer() as peer:
        # In a pid namespace, as everywhere: an agent takes every process it sees for its container's.
        process = await asyncio.create_subprocess_exec(
            "unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", _BARE,
            stdout=asyncio.subprocess.PIPE, env={"URL": peer.url, "AGENT": str(binary.path()), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert process.stdout is not None
        await process.stdout.readline()
        begin = time.perf_counter()
        await peer.hello()
        spent = time.perf_counter() - begin
        process.kill()
        await process.wait()
    return 1000 * spent


def agent_resident() -> float:
    """MiB of an agent whose container sleeps."""

    async def measure(peer: AgentPeer, container: AgentContainer) -> float:
        await peer.start(spec("sleep", "1000"))
        await asyncio.sleep(1)
        return container.resident() / MIB

    return _with_agent(measure)


class _Counted(ClientHalf):
    """The client half of a stream that counts what comes."""

    def __init__(self) -> None:
        super().__init__()
        self.over = asyncio.Event()

    def on_end(self, error: StreamError | None) -> None:
        self.over.set()


def agent_stdout(size: int = 1024 * MIB) -> float:
    """MB/s from a process in the container to the relay, which is in this process."""
    with tempfile.TemporaryDirectory(prefix="agent-", ignore_cleanup_errors=True) as directory:
        return asyncio.run(_stdout(busybox_root(Path(directory) / "root"), size))


async def _stdout(root: Path, size: int) -> float:
    plane = FakeControlPlane()
    plane.welcome = {"action": "start", "spec": spec("sleep", "1000")}
    async with running_gateway(plane) as gateway:
        container = AgentContainer(root, gateway.url, token=mint_agent_token(KEY, TENANT, "c0ffee", 3600))
        try:
            async with asyncio.timeout(60):
                while not any(event["type"] == "started" for event in plane.events):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                argv = ["dd", "if=/dev/zero", "bs=64k", f"count={size // 65536}"]
                params = {"exec": "e", "argv": argv, "env": [], "stdout": True, "stderr": False, "stdin": False}
                stream, half = new_stream_id(), _Counted()
                begin = time.perf_counter()
                await gateway.agents.join(half, stream, mint_ticket(KEY, TENANT, "c0ffee", "exec", stream, params))
                await half.over.wait()
                spent = time.perf_counter() - begin
        finally:
            container.end()
    assert half.state.received >= size
    return half.state.received / 1e6 / spent


def _with_agent(measure: Callable[[AgentPeer, AgentContainer], object]) -> float:
    async def run(directory: Path) -> float:
        async with agent(directory) as (peer, container):
            figure = measure(peer, container)
            assert asyncio.iscoroutine(figure)
            return float(await figure)

    with tempfile.TemporaryDirectory(prefix="agent-", ignore_cleanup_errors=True) as directory:
        return asyncio.run(run(Path(directory)))


FIGURES: dict[str, tuple[str, int, Callable[[], float], str]] = {
    # name: unit, turns, figure, target
    "cold start of `up` until _ping": ("ms", 5, cold_start, "≤ 3,000"),
    "import control_plane.app": ("ms of CPU", 5, import_cpu, "≤ 400"),
    "agent: size": ("MB", 1, agent_size, "≤ 6"),
    "agent: ready after": ("ms", 9, agent_ready, "≤ 10"),
    "agent: resident": ("MiB", 3, agent_resident, "≤ 15"),
    "agent: stdout of a process to the relay": ("MB/s", 5, agent_stdout, "≥ 800"),
}


def take(wanted: list[str]) -> dict[str, float]:
    """Medians by name."""
    medians = {}
    for name in wanted:
        unit, turns, figure, _ = FIGURES[name]
        medians[name] = statistics.median(figure() for _ in range(turns))
        print(f"  {name}: {medians[name]:,.1f} {unit}", flush=True)
    return medians


def table(medians: dict[str, float]) -> str:
    """A Markdown table with the targets."""
    lines = ["| figure | unit | sockerless | target |", "|---|---|---|---|"]
    lines += [f"| {name} | {FIGURES[name][0]} | {value:,.1f} | {FIGURES[name][3]} |" for name, value in medians.items()]
    return "\n".join(lines)
