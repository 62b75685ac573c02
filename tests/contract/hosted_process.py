"""A control plane as hosted: its own process, hypercorn, a SQLite store, and a local cloud beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from agent_gateway.tickets import mint_gateway_token
from control_plane.auth.caller import Scope
from control_plane.services.tenants import Tenants
from control_plane.services.tokens import Tokens
from control_plane.store.sqlite import SqliteStore
from tests.free_ports import free_port

T = TypeVar("T")

KEY = "hosted-tests-signing-key-of-more-than-32-bytes"
START_LIMIT = 30.0
GATEWAY = "http://gateway.example:8443"


def gateway_token() -> str:
    return mint_gateway_token(KEY.encode(), GATEWAY, 600)


@contextlib.contextmanager
def local_cloud(directory: Path) -> Iterator[dict[str, str]]:
    """A local cloud of its own; the variables that point a control plane at it."""
    log = directory / "cloud.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "local_cloud.server", "--data", str(directory / "cloud")], stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + START_LIMIT
        while "grpc=" not in (said := log.read_text()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the local cloud does not start:\n{said[-3000:]}")
            time.sleep(0.05)
        where = dict(part.split("=", 1) for line in said.splitlines() if "grpc=" in line for part in line.split())
        yield {
            "SOCKERLESS_GCP_ENDPOINT": where["grpc"],
            "SOCKERLESS_GCP_STORAGE_ENDPOINT": where["http"],
            "SOCKERLESS_REGISTRY_URL": where["http"],
            "SOCKERLESS_GCR_LOG_DRAIN": "0.2",
        }
    finally:
        process.terminate()
        process.wait(20)


def environment(directory: Path, **more: str) -> dict[str, str]:
    """What every hosted process of a test has; variables of the machine's own do not get in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SOCKERLESS_", "OTEL_"))}
    return kept | {
        "SOCKERLESS_STORE": f"sqlite://{directory}/state.sqlite",
        "SOCKERLESS_KEY": KEY,
        "SOCKERLESS_REGISTRY_URL": "http://127.0.0.1:9",
        "SOCKERLESS_REGISTRY_PREFIX": "local/sockerless",
        "SOCKERLESS_GCR_PROJECT": "local",
        "SOCKERLESS_GCP_ENDPOINT": "127.0.0.1:9",
        "SOCKERLESS_GCP_STORAGE_ENDPOINT": "http://127.0.0.1:9",
        "SOCKERLESS_GATEWAY_URL": GATEWAY,
        "SOCKERLESS_TEMPORARY": str(directory),
        "SOCKERLESS_LISTEN_HOST": "127.0.0.1",
        **more,
    }


@dataclass
class ControlPlaneProcess:
    """`python -m control_plane.entrypoints.cloud_run`."""

    directory: Path
    variables: Mapping[str, str]
    port: int = field(default_factory=free_port)
    token: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.directory / "control-plane.log").read_text()

    def start(self) -> None:
        with (self.directory / "control-plane.log").open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "control_plane.entrypoints.cloud_run"],
                stdout=out,
                stderr=out,
                env=environment(self.directory, **self.variables) | {"PORT": str(self.port)},
            )
        deadline = time.monotonic() + START_LIMIT
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/_ready", timeout=5).status_code == 200:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the control plane is not ready:\n{self.log[-4000:]}")
            time.sleep(0.05)

    def stop(self) -> int:
        """SIGTERM, as the platform does it; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, headers=self.headers(), timeout=20, **options)

    def docker(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """The docker CLI, without a gateway in between: plain commands alone."""
        config = self.directory / "docker-config"
        config.mkdir(exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        told = {"DOCKER_HOST": f"tcp://127.0.0.1:{self.port}", "DOCKER_CONFIG": str(config)}
        if self.token:
            told["DOCKER_CUSTOM_HEADERS"] = f"Authorization=Bearer {self.token}"
        return subprocess.run(
            ["docker", *arguments], input=stdin, capture_output=True, timeout=60, env=kept | told, check=False
        )

    def out(self, *arguments: str, stdin: bytes = b"") -> str:
        done = self.docker(*arguments, stdin=stdin)
        if done.returncode != 0:
            raise AssertionError(f"docker {' '.join(arguments)}: exit {done.returncode}\n{done.stderr.decode()}")
        return done.stdout.decode().strip()


def new_token(directory: Path, tenant: str = "team", scope: Scope = "full") -> str:
    """A tenant's token, made in the store that the test's control planes share."""
    return asyncio.run(_new_token(directory, tenant, scope))


async def _new_token(directory: Path, tenant: str, scope: Scope) -> str:
    store = SqliteStore(directory / "state.sqlite")
    try:
        tenants = Tenants(store)
        if await tenants.active(tenant) is None:
            await tenants.create(tenant)
        return (await Tokens(store, tenants).create(tenant, scope)).text
    finally:
        await store.close()


def stored(directory: Path, change: Callable[[SqliteStore], Awaitable[T]]) -> T:
    """What a look at the store, or a change of it, gives."""

    async def look() -> T:
        store = SqliteStore(directory / "state.sqlite")
        try:
            return await change(store)
        finally:
            await store.close()

    return asyncio.run(look())
