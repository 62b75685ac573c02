"""Figures of the hosted parts, one turn each: a long list by store, idle agents on a gateway, many runs at once.

`python -m tests.bench.hosted [part of a name …]`. What a machine has no server for (the Firestore emulator, nginx) is
left out, and said so.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import pytest

from control_plane.model import Container, RunState
from control_plane.services.tenants import Tenants
from control_plane.services.tokens import Tokens
from control_plane.store.base import Store
from control_plane.store.firestore.store import FirestoreStore
from control_plane.store.sqlite import SqliteStore
from tests.bench.engines import sockerless
from tests.contract.hosted_process import ControlPlaneProcess
from tests.contract.store_servers import Missing, shared_firestore

CONTAINERS = 10_000
AGENTS = 1000
RUNS = 100
_TURNS = 3
_AT_ONCE = 50
_LIMIT = 300.0


def _container(number: int) -> Container:
    return Container(
        id=f"{number:064x}"[::-1],
        tenant="team",
        name=f"name{number}",
        created_at="2026-01-01T00:00:00Z",
        image="busybox",
        image_id="sha256:" + "1" * 64,
        config={"Cmd": ["sleep", "3600"], "Env": ["PATH=/bin"], "Image": "busybox", "Labels": {"n": str(number)}},
        host_config={"NetworkMode": "bridge", "AutoRemove": False},
        networking={"bridge": {"NetworkID": "n" * 64}},
        backend="cloudrun",
        gateway="http://gateway",
        state=RunState(status="running", run=1, pid=1, started_at="2026-01-01T00:00:01Z"),
    )


async def _fill(store: Store) -> str:
    """The containers of one tenant, and a token of its."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def write(number: int) -> None:
        container = _container(number)
        async with room:
            await store.create("containers", "team", container.id, container.model_dump(mode="json"))

    tenants = Tenants(store)
    await tenants.create("team")
    token = await Tokens(store, tenants).create("team", "read")
    await asyncio.gather(*map(write, range(CONTAINERS)))
    await store.close()
    return token.text


def _listing(directory: Path, variables: Mapping[str, str], token: str) -> str:
    plane = ControlPlaneProcess(directory, {"SOCKERLESS_RECONCILE_INTERVAL": "0", **variables}, token=token)
    plane.start()
    try:
        taken = []
        for _ in range(1 + _TURNS):
            begin = time.perf_counter()
            answer = httpx.get(f"{plane.url}/v1.50/containers/json", headers=plane.headers(), timeout=_LIMIT)
            answer.raise_for_status()
            taken.append(time.perf_counter() - begin)
            assert len(answer.json()) == CONTAINERS
        size = len(answer.content) / 1024 / 1024
        begin = time.perf_counter()
        assert plane.docker("ps", "-q").stdout.count(b"\n") == CONTAINERS
        command = time.perf_counter() - begin
    finally:
        plane.stop()
    later = statistics.median(taken[1:])
    return f"first {1000 * taken[0]:,.0f} ms, then {1000 * later:,.0f} ms ({size:.1f} MiB); `docker ps` {command:.1f} s"


def listing_on_sqlite() -> str:
    """`GET /containers/json` of a hosted control plane over 10,000 running containers."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)

        async def fill() -> str:
            return await _fill(SqliteStore(directory / "state.sqlite"))

        return _listing(directory, {}, asyncio.run(fill()))


def listing_on_firestore() -> str:
    """The same on Firestore's emulator."""
    server = shared_firestore()
    if isinstance(server, Missing):
        return f"left out: {server}"
    address = f"127.0.0.1:{server.port}"
    with tempfile.TemporaryDirectory() as name:

        async def fill() -> str:
            return await _fill(FirestoreStore("bench", emulator=address))

        variables = {"SOCKERLESS_STORE": "firestore://bench", "FIRESTORE_EMULATOR_HOST": address}
        return _listing(Path(name), variables, asyncio.run(fill()))


def idle_agents() -> str:
    """What idle agents cost a gateway."""
    command = [sys.executable, "-m", "tests.bench.idle_agents", str(AGENTS)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=_LIMIT).stdout.strip()


def _at_once(environment: Mapping[str, str]) -> str:
    """Simultaneous `docker run --rm busybox true` as whole processes, until the last has ended."""
    begin = time.perf_counter()
    command = ["docker", "run", "--rm", "busybox", "true"]
    started = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, text=True)
        for _ in range(RUNS)
    ]
    ended = [process.communicate(timeout=_LIMIT)[1] for process in started]
    seconds = time.perf_counter() - begin
    failed = [said for process, said in zip(started, ended, strict=True) if process.returncode != 0]
    wrong = f"; {len(failed)} failed: {failed[0].strip()[:200]}" if failed else ""
    return f"{seconds:.1f} s, {RUNS - len(failed)} of {RUNS} with exit code 0{wrong}"


def runs_embedded() -> str:
    """100 runs at once on `sockerless up`."""
    with sockerless() as engine:
        engine.docker("run", "--rm", "busybox", "true")
        return _at_once(engine.environment())


def runs_hosted() -> str:
    """The same through a connector: three control planes and two gateways on this machine, store SQLite."""
    from tests.hosted.deployment import deployed

    try:
        with deployed("sqlite") as deployment:
            red = deployment.connects["red"]
            red.out("run", "--rm", "busybox", "true")
            return _at_once(red.docker_environment())
    except pytest.skip.Exception as missing:
        return f"left out: {missing}"


FIGURES: dict[str, Callable[[], str]] = {
    "list of 10,000 on SQLite": listing_on_sqlite,
    "list of 10,000 on Firestore's emulator": listing_on_firestore,
    "1,000 idle agents on a gateway": idle_agents,
    "100 runs at once, embedded": runs_embedded,
    "100 runs at once, hosted": runs_hosted,
}


def take(wanted: list[str]) -> dict[str, str]:
    """What was seen, by name."""
    seen = {}
    for name in wanted:
        seen[name] = FIGURES[name]()
        print(f"  {name}: {seen[name]}", flush=True)
    return seen


def table(seen: Mapping[str, str]) -> str:
    """A Markdown table."""
    return "\n".join(["| hosted | seen |", "|---|---|", *(f"| {name} | {text} |" for name, text in seen.items())])


if __name__ == "__main__":
    print(os.cpu_count(), "cores")
    parts = sys.argv[1:]
    print("\n" + table(take([name for name in FIGURES if not parts or any(part in name for part in parts)])))
