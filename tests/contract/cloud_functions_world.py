"""A local cloud whose functions hold an agent's HTTP face, and Cloud Functions backends of its."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from control_plane.backends.base import RunOutcome
from control_plane.backends.cloud_functions.backend import CloudFunctionsBackend
from control_plane.backends.cloud_functions.settings import CloudFunctionsSettings, load_settings
from control_plane.backends.gcp.clients import Clients, Endpoint
from control_plane.backends.minute_quota import MinuteQuota
from control_plane.model import Container, Execution, Image, RunState
from local_cloud.faults import Fault
from local_cloud.runtime.api import RunSpec
from local_cloud.server import LocalCloud
from tests.contract import function_agent, local_gcp_fixtures
from tests.contract.test_cloud_run_on_local_cloud import Images, _digest
from tests.unit.cloud_function_records import MemoryRecords

ID, OTHER = "ab" * 32, "cd" * 32
KEY = b"k" * 32


class AgentRuntime(local_gcp_fixtures.ProcessRuntime):
    """Runs the agent's HTTP face in place of the agent."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    async def run(self, spec: RunSpec) -> int:
        assert spec.argv[0] == "/.sockerless/agent"
        face = (sys.executable, str(function_agent.__file__), str(self._directory))
        return await super().run(replace(spec, argv=face))


@dataclass
class World:
    cloud: LocalCloud
    records: MemoryRecords
    image: Image
    agents: Path
    backends: list[CloudFunctionsBackend]
    ended: list[tuple[str, str]]

    def settings(self, **changes: Any) -> CloudFunctionsSettings:
        plain: dict[str, Any] = {
            "project": "local", "bucket": "volumes-bucket", "gcp_endpoint": self.cloud.grpc_target, "pool": 0,
            "storage_endpoint": self.cloud.http_url, "log_drain": 0.2, "writes_per_minute": 0,
            "log_reads_per_minute": 0, "start_timeout": 20.0, "sweep_grace": 0.0,
        }  # fmt: skip
        return load_settings(**(plain | changes))

    def backend(self, **changes: Any) -> CloudFunctionsBackend:
        clients = Clients(Endpoint(grpc=self.cloud.grpc_target, storage=self.cloud.http_url))
        writes = MinuteQuota("writes", 0)
        made = CloudFunctionsBackend(self.settings(**changes), clients, Images(), self.records, KEY, writes)
        made.follow(lambda tenant, container: self.ended.append((tenant, container)))
        self.backends.append(made)
        return made

    def calls(self) -> dict[str, int]:
        """Without polls, and what is read of images and tokens."""
        counts = {name: count for name, count in self.cloud.calls.counts().items() if count}
        others = ("Operations.", "Registry.", "Storage.", "Metadata.")
        return {name: count for name, count in counts.items() if not name.startswith(others)}

    def seen(self, container: str = ID) -> list[dict[str, Any]]:
        path = self.agents / f"{container}.seen"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    async def invoked(self, times: int = 1, container: str = ID) -> dict[str, Any]:
        await until(lambda: len(self.seen(container)) >= times)
        return self.seen(container)[-1]

    def end(self, said: str | int, container: str = ID) -> None:
        part = self.agents / f"{container}.part"
        part.write_text(str(said))
        part.rename(self.agents / f"{container}.end")

    async def outcome(self, backend: CloudFunctionsBackend, execution: Execution) -> RunOutcome:
        async with asyncio.timeout(20):
            while not (found := await backend.outcome(execution)).finished:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return found

    def resources(self) -> dict[str, int]:
        google: Any = self.cloud._google
        return {name: count for name, count in google.resources().items() if count}

    def fail_once(self, method: str, fault: Fault) -> None:
        """The next call of a method goes wrong, those after it do not."""
        calls = self.cloud.calls
        plain = calls.before
        calls.set_faults({method: fault})

        async def before(called: str) -> Fault | None:
            try:
                return await plain(called)
            finally:
                if called == method:
                    calls.set_faults({})

        calls.before = before  # type: ignore[method-assign,assignment]


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 (what is waited for is another process's)
            await asyncio.sleep(0.01)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    agents = tmp_path / "agents"
    agents.mkdir()
    runtime = AgentRuntime(agents)
    async with local_gcp_fixtures.local_cloud(tmp_path / "cloud", runtime, stop_grace=0.2) as (cloud, _):
        reference = await local_gcp_fixtures.push(cloud.http_url, "local/apps/tool:latest")
        image = Image(
            id="sha256:1", tenant="acme", created_at="", tags=["tool:latest"],
            repository=reference.rpartition(":")[0], config={"config": {}},
            manifest_digest=(await _digest(cloud.http_url, "local/apps/tool")).strip(),
        )  # fmt: skip
        made = World(cloud, MemoryRecords(), image, agents, [], [])
        try:
            yield made
        finally:
            for backend in made.backends:
                await backend.close()
            await runtime.end()


def container(id: str = ID, **changes: Any) -> Container:
    plain = Container(
        id=id, tenant="acme", name="c", created_at="", image="tool", image_id="sha256:1", config={"Cmd": ["x"]},
        host_config={}, backend="gcf", gateway="http://127.0.0.1:1", state=RunState(run=1, status="starting"),
    )  # fmt: skip
    return plain.model_copy(update=changes)
