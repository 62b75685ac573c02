"""Direct mode as it is deployed: a control plane, a gateway and the HAProxy of the Terraform modules, as processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.contract.client_authority import Authority, docker_certificates
from tests.contract.hosted_process import (
    KEY,
    START_LIMIT,
    ControlPlaneProcess,
    environment,
    local_cloud,
    new_token,
)
from tests.e2e.cutting_proxy import CuttingProxy
from tests.free_ports import free_port

TEMPLATE = Path(__file__).parents[2] / "terraform/modules/gcp/direct/haproxy.cfg.tftpl"
SUBJECTS = [
    {"subject": "CN=ci", "tenant": "acme", "scope": "full"},
    {"subject": "CN=eye", "tenant": "acme", "scope": "read"},
]


def haproxy_configuration(directory: Path, port: int, relay: str, docker: str, **switches: bool) -> str:
    """The modules' template with its switches decided, on this test's port and gateway (`host:port`)."""

    def decided(found: re.Match[str]) -> str:
        return found[2] if all(switches[name] for name in found[1].split(" && ")) else ""

    text = re.sub(
        r"%\{ if ([\w &]+?) (?:~\}\n|\})(.*?)%\{ endif (?:~\}\n|\})", decided, TEMPLATE.read_text(), flags=re.S
    )
    assert "%{" not in text
    text = text.replace("/run/sockerless/", f"{directory}/").replace("bind :2376", f"bind 127.0.0.1:{port}")
    text = text.replace("127.0.0.1:8080", relay).replace("127.0.0.1:2375", docker)
    return text.replace("fd-hard-limit 50000", "fd-hard-limit 2000")


@dataclass
class Direct:
    """The endpoint, and docker clients with and without certificates."""

    directory: Path
    plane: ControlPlaneProcess
    port: int
    """HAProxy's."""
    gateway_port: int
    """The gateway's Docker listener, which HAProxy alone should reach."""
    relay: str
    token: str
    certificates: Mapping[str, Path] = field(default_factory=dict)
    front_end: CuttingProxy | None = None
    """What the gateway reaches the control plane through, if there is something."""

    def client_environment(self, who: str, token: str = "") -> dict[str, str]:
        config = self.directory / "docker-config"
        config.mkdir(exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
        kept |= {"DOCKER_HOST": f"tcp://localhost:{self.port}", "DOCKER_CONFIG": str(config)}
        kept |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(self.certificates[who])}
        return kept | ({"DOCKER_CUSTOM_HEADERS": f"Authorization=Bearer {token}"} if token else {})

    def docker(
        self, who: str, *arguments: str, stdin: bytes = b"", token: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        """The docker CLI, as the holder of that certificate (`nobody`: of none)."""
        given = self.client_environment(who, token)
        return subprocess.run(
            ["docker", *arguments], input=stdin, capture_output=True, timeout=60, env=given, check=False
        )

    def out(self, who: str, *arguments: str, stdin: bytes = b"", token: str = "") -> str:
        done = self.docker(who, *arguments, stdin=stdin, token=token)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: exit {done.returncode}\n{done.stderr.decode()}"
        return done.stdout.decode().strip()

    @contextlib.contextmanager
    def haproxy(self, **switches: bool) -> Iterator[int]:
        """HAProxy in front of the gateway, on a port of its own."""
        port = free_port()
        path = self.directory / f"haproxy-{port}.cfg"
        path.write_text(
            haproxy_configuration(self.directory, port, self.relay, f"127.0.0.1:{self.gateway_port}", **switches)
        )
        with _process(["haproxy", "-db", "-f", str(path)], os.environ, path.with_suffix(".log"), port):
            yield port

    def audit(self) -> list[dict[str, Any]]:
        """The control plane's audit log."""
        lines = [line for line in self.plane.log.splitlines() if '"audit"' in line]
        return [json.loads(line) for line in lines]


def _until_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT
    while True:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"nothing listens on {port}:\n{log.read_text()[-3000:]}")
        time.sleep(0.05)


@contextlib.contextmanager
def _process(command: list[str], variables: Mapping[str, str], log: Path, port: int) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=dict(variables))
    try:
        _until_listening(port, process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def direct_endpoint(directory: Path, front_end: Callable[[int], CuttingProxy] | None = None) -> Iterator[Direct]:
    """A hosted endpoint with the tenants `acme` (by certificate) and `team` (by token).

    `front_end` makes a proxy to the control plane's port, for the gateway.
    """
    server, clients, stranger = Authority("server's CA"), Authority(), Authority("another CA")
    (directory / "tls.pem").write_bytes(b"".join(server.issue("localhost")))
    (directory / "client-ca.pem").write_bytes(clients.pem)
    issued = {"nobody": None, "stranger": stranger.issue("ci")} | {
        n: clients.issue(n) for n in ("ci", "eye", "unknown")
    }
    certificates = {who: docker_certificates(directory / who, server, pair) for who, pair in issued.items()}
    token = new_token(directory)
    new_token(directory, "acme")
    docker = free_port()
    with local_cloud(directory) as cloud, contextlib.ExitStack() as running:
        rules = {"SOCKERLESS_GATEWAY_URL": "", "SOCKERLESS_CLIENT_CERTIFICATES": json.dumps(SUBJECTS)}
        plane = ControlPlaneProcess(directory, {**cloud, **rules})
        running.callback(lambda: plane.process is None or plane.stop())
        plane.start()
        host = next(part[5:] for part in (directory / "cloud.log").read_text().split() if part.startswith("host="))
        relay = f"{host}:{free_port(host)}"
        between = None if front_end is None else running.enter_context(front_end(plane.port))
        variables = environment(directory) | {
            "SOCKERLESS_KEY": KEY,
            "SOCKERLESS_CONTROL_PLANE_URL": plane.url if between is None else f"http://127.0.0.1:{between.port}",
            "SOCKERLESS_GATEWAY_URL": f"http://{relay}",
            "SOCKERLESS_LISTEN": f"tcp://{relay}",
            "SOCKERLESS_DOCKER_LISTEN": f"tcp://127.0.0.1:{docker}",
            "SOCKERLESS_DOCKER_PROXY_PROTOCOL": "1",
            "SOCKERLESS_DRAIN_SECONDS": "1",
        }
        command = [sys.executable, "-m", "agent_gateway.entrypoint"]
        running.enter_context(_process(command, variables, directory / "gateway.log", docker))
        direct = Direct(directory, plane, 0, docker, relay, token, certificates, between)
        direct.port = running.enter_context(direct.haproxy(client_ca=True, certificate_required=False))
        yield direct
