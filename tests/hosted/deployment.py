"""A hosted endpoint on loopback: local cloud, three control planes, two gateways and what stands before them.

Users → HAProxy (TLS) → a limit on a request's length → nginx → control planes; uploads over HTTP/2 without the limit.
Agents and connectors → a limit → a gateway. Docker clients without a connector → HAProxy (TLS, TCP mode) → a gateway's
Docker listener.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker.tls
import httpx
import pytest

from agent_gateway.tickets import mint_gateway_token
from tests import images
from tests.contract.connect_endpoint import Connected
from tests.contract.store_fixtures import COSMOS_KEY, cosmos_opener
from tests.contract.store_servers import Missing, shared_cosmos, shared_firestore
from tests.e2e.endpoint import Endpoint
from tests.free_ports import free_port
from tests.hosted.fronts import Ports, haproxy, nginx
from tests.hosted.process import ROOT, START_LIMIT, Process, program

KEY = "hosted-rehearsal-signing-key-of-more-than-32-bytes"
PLANES, GATEWAYS = 3, 2
LIMIT = 8.0
"""Seconds: the 60 minutes of a request on Cloud Run, scaled down."""
RECONCILE = 3
TENANTS = ("red", "blue")


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def store_variables(kind: str, directory: Path) -> dict[str, str]:
    """What points control planes at a new store; the test is skipped where this machine has no server for it."""
    if kind == "sqlite":
        return {"SOCKERLESS_STORE": f"sqlite://{directory}/state.sqlite"}
    found = shared_firestore() if kind == "firestore" else shared_cosmos()
    if isinstance(found, Missing):
        pytest.skip(str(found))
    name = f"rehearsal-{secrets.token_hex(6)}"
    if kind == "firestore":
        return {"SOCKERLESS_STORE": f"firestore://{name}", "FIRESTORE_EMULATOR_HOST": f"127.0.0.1:{found.port}"}
    asyncio.run(_cosmos_database(found.port, name))
    return {"SOCKERLESS_STORE": f"cosmos+http://127.0.0.1:{found.port}/{name}", "SOCKERLESS_COSMOS_KEY": COSMOS_KEY}


async def _cosmos_database(port: int, name: str) -> None:
    await cosmos_opener(port, name)


@dataclass
class Direct(Endpoint):
    """The docker CLI alone: TLS to HAProxy, its token as a header of its configuration, or a certificate."""

    port: int = 0
    token: str = ""
    tls: str = "tls"
    """The folder of its certificates."""

    @property
    def host(self) -> str:
        return f"tcp://localhost:{self.port}"

    def docker_environment(self, **more: str) -> dict[str, str]:
        """TLS is verified, and the header is in `config.json`, as `sockerless login` writes it."""
        self.data.mkdir(parents=True, exist_ok=True)
        found = super().docker_environment(DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(self.data.parent / self.tls))
        config = Path(found["DOCKER_CONFIG"]) / "config.json"
        if self.token and not config.exists():
            config.write_text(f'{{"HttpHeaders": {{"Authorization": "Bearer {self.token}"}}}}')
        return found | more

    def sdk_options(self) -> dict[str, Any]:
        tls: Any = docker.tls  # the SDK has no types
        return {"base_url": self.host, "tls": tls.TLSConfig(ca_cert=f"{self.data.parent}/tls/ca.pem", verify=True)}

    def connection(self) -> socket.socket:
        pytest.skip("a request written by hand needs TLS with half-close, which Python's has not; the CLI's has")

    def start(self) -> None:
        """Nothing of its own runs."""

    def down(self) -> None:
        """Nothing of its own runs."""


@dataclass
class Deployment:
    """All processes, and the ways in by tenant."""

    directory: Path
    store: dict[str, str]
    cloud: Process = field(init=False)
    planes: list[Process] = field(init=False, default_factory=list)
    gateways: list[Process] = field(init=False, default_factory=list)
    fronts: list[Process] = field(init=False, default_factory=list)
    connects: dict[str, Connected] = field(init=False, default_factory=dict)
    tokens: dict[str, str] = field(init=False, default_factory=dict)
    ports: Ports = field(init=False, default_factory=Ports)
    storage: str = field(init=False, default="")

    def start(self) -> None:
        """Everything, until each tenant's connector serves and the image is loaded."""
        host = self._start_cloud()
        self._prepare_planes()
        self._prepare_gateways(host)
        for process in [*self.planes, *self.gateways, *self.fronts]:
            process.launch()
        for process in [*self.planes, *self.gateways, *self.fronts]:
            process.until_up()
        self._until_gateways_are_registered()
        for tenant in TENANTS:
            self.sockerless("tenant", "create", tenant)
            self.tokens[tenant] = self.sockerless("token", "create", tenant)
            self.connects[tenant] = connect = self.connector(tenant)
            for image in (images.busybox(), images.scratch()):
                connect.out("load", stdin=image)

    @property
    def public(self) -> str:
        """The URL of the endpoint."""
        return f"https://localhost:{self.ports.public}"

    @property
    def ca(self) -> str:
        """The file of certificates that its clients trust."""
        return str(self.directory / "tls" / "ca.pem")

    def client(self) -> httpx.Client:
        """Requests to the endpoint."""
        tls = ssl.create_default_context(cafile=self.ca)
        return httpx.Client(base_url=self.public, verify=tls, timeout=20, trust_env=False)

    def stop(self) -> None:
        """Ends everything, containers too."""
        for connect in self.connects.values():
            connect.down()
            for token in self.tokens.values():
                assert token not in connect.log.read_text()
        for process in [*self.fronts, *self.gateways, *self.planes, self.cloud]:
            if process.child is not None:
                process.terminate()

    def connector(self, tenant: str) -> Connected:
        """`sockerless connect` of a tenant's user."""
        data = self.directory / f"c-{tenant}"
        connect = Connected(
            data, url=self.public, token=self.tokens[tenant], arguments=("--ca", self.ca, "--allow-http")
        )
        connect.start()
        assert connect.address, connect.log.read_text()
        return connect

    def direct(self, tenant: str) -> Direct:
        """The way through HAProxy."""
        return Direct(self.directory / f"d-{tenant}", port=self.ports.docker, token=self.tokens[tenant])

    def certified(self, tenant: str) -> Direct:
        """The same way with the tenant's certificate, and no token."""
        return Direct(self.directory / f"certified-{tenant}", port=self.ports.docker, tls=f"tls-{tenant}")

    def resources(self) -> dict[str, int]:
        """What the local cloud has, by kind."""
        found: dict[str, int] = httpx.get(f"{self.storage}/_local/resources", timeout=20).raise_for_status().json()
        return {kind: count for kind, count in found.items() if count}

    def _start_cloud(self) -> str:
        """The address at which containers reach this machine."""
        port, grpc = free_port(), free_port()
        arguments = ["--data", str(self.directory / "cloud"), "--http-port", str(port), "--grpc-port", str(grpc)]
        command = _python("local_cloud.server", *arguments)
        self.cloud = Process("cloud", command, self._environment(), self.directory, port)
        self.cloud.start()
        deadline = time.monotonic() + START_LIMIT
        while "host=" not in (said := self.cloud.log.read_text()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the local cloud does not start:\n{said[-3000:]}")
            time.sleep(0.05)
        self.storage = self.cloud.url
        self.store |= {"SOCKERLESS_GCP_ENDPOINT": f"127.0.0.1:{grpc}"}
        return said.split("host=")[1].split()[0]

    def _prepare_planes(self) -> None:
        shared = self.store | {
            "SOCKERLESS_KEY": KEY,
            "SOCKERLESS_GCP_STORAGE_ENDPOINT": self.storage,
            "SOCKERLESS_CLIENT_CERTIFICATES": json.dumps(
                [{"subject": f"CN={tenant}", "tenant": tenant, "scope": "full"} for tenant in TENANTS]
            ),
            "SOCKERLESS_REGISTRY_URL": self.storage,
            "SOCKERLESS_REGISTRY_PREFIX": "local/sockerless",
            "SOCKERLESS_GCR_PROJECT": "local",
            "SOCKERLESS_GCR_LOG_DRAIN": "0.2",
            "SOCKERLESS_GCR_WRITES_PER_MINUTE": "0",
            "SOCKERLESS_GCR_LOG_READS_PER_MINUTE": "0",
            "SOCKERLESS_RECONCILE_INTERVAL": str(RECONCILE),
            "SOCKERLESS_SWEEP_INTERVAL": "5",
            "SOCKERLESS_BIND_RULES": "/=nfs://localhost/",
            "SOCKERLESS_INSECURE_REGISTRY": "127.0.0.0/8",
            "SOCKERLESS_TEMPORARY": str(self.directory),
            "SOCKERLESS_LISTEN_HOST": "127.0.0.1",
        }
        for number in range(PLANES):
            port = free_port()
            variables = self._environment(**shared, PORT=str(port))
            command = _python("control_plane.entrypoints.cloud_run")
            self.planes.append(Process(f"plane{number}", command, variables, self.directory, port))
        command = nginx(self.directory, self.ports, [plane.address for plane in self.planes])
        front = Process("nginx", command, os.environ, self.directory, self.ports.http1)
        self.fronts += [front, self._limited("front", "127.0.0.1", self.ports.limited, front.address)]

    def _prepare_gateways(self, host: str) -> None:
        docker = []
        for number in range(GATEWAYS):
            port, public, raw = free_port(), free_port(host), free_port()
            variables = self._environment(
                SOCKERLESS_KEY=KEY,
                SOCKERLESS_CONTROL_PLANE_URL=self.public,
                SSL_CERT_FILE=self.ca,
                SOCKERLESS_GATEWAY_URL=f"http://{host}:{public}",
                SOCKERLESS_LISTEN=f"tcp://127.0.0.1:{port}",
                SOCKERLESS_DOCKER_LISTEN=f"tcp://127.0.0.1:{raw}",
                SOCKERLESS_DOCKER_PROXY_PROTOCOL="1",
                SOCKERLESS_PEER_CONNECTIONS="0",
            )
            command = _python("agent_gateway.entrypoint")
            self.gateways.append(Process(f"gateway{number}", command, variables, self.directory, port))
            self.fronts.append(self._limited(f"gateway-front{number}", host, public, f"127.0.0.1:{port}"))
            docker.append(f"127.0.0.1:{raw}")
        command = haproxy(self.directory, self.ports, docker, TENANTS)
        self.fronts.append(Process("haproxy", command, os.environ, self.directory, self.ports.public))

    def _limited(self, name: str, host: str, port: int, target: str) -> Process:
        command = _python("tests.hosted.time_limit", f"{host}:{port}", target, str(LIMIT))
        return Process(name, command, os.environ, self.directory, port, host)

    def _environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SOCKERLESS_", "OTEL_"))}
        return kept | more

    def _until_gateways_are_registered(self) -> None:
        token = mint_gateway_token(KEY.encode(), "http://rehearsal", 600)
        deadline = time.monotonic() + START_LIMIT
        while True:
            with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
                with self.client() as client:
                    told = client.get("/internal/v1/status", headers={"authorization": f"Bearer {token}"})
                if len(told.json()["Gateways"]) == GATEWAYS:
                    return
            if time.monotonic() > deadline:
                raise RuntimeError(f"the gateways do not register: {self.gateways[0].log.read_text()[-3000:]}")
            time.sleep(0.1)

    def sockerless(self, *arguments: str) -> str:
        """What a command prints that works on the store; it must succeed."""
        done = subprocess.run(
            _python("control_plane.entrypoints.cli", *arguments),
            env=self._environment(**self.store),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@contextlib.contextmanager
def deployed(kind: str) -> Iterator[Deployment]:
    """A deployment with an empty store of that kind, ended and removed afterwards."""
    for name in ("docker", "nginx", "haproxy"):
        if program(name) is None:
            pytest.skip(f"{name} is not installed")
    with tempfile.TemporaryDirectory(prefix="skls-", ignore_cleanup_errors=True) as place:
        directory = Path(place)
        directory.chmod(0o711)  # nginx's worker is another user
        deployment = Deployment(directory, store_variables(kind, directory))
        try:
            deployment.start()
            yield deployment
        finally:
            deployment.stop()
