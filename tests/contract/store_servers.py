"""The servers the hosted stores are tested against: Google's Firestore emulator, and an npm server for Cosmos.

Either is used when the machine has what it needs; if not, `Missing` says what. A server is a child of the test run and
ends with it, at the latest when the run is killed.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import gettempdir

from tests.free_ports import free_port

_JAR_PLACES = (
    "/usr/lib/google-cloud-sdk/platform/cloud-firestore-emulator",
    "/opt/google-cloud-sdk/platform/cloud-firestore-emulator",
    "/usr/local/google-cloud-sdk/platform/cloud-firestore-emulator",
    "~/google-cloud-sdk/platform/cloud-firestore-emulator",
    "~/.cache/firebase/emulators",
)
_COSMOS_PACKAGE = "@vercel/cosmosdb-server@1.0.1"
_COSMOS_CLI = "node_modules/@vercel/cosmosdb-server/lib/cli.js"


class Missing(Exception):
    """A server cannot be had here; the message says what is missing."""


class Server:
    """A child process that listens on a port of its own."""

    def __init__(self, name: str, command: list[str], port: int) -> None:
        self.name = name
        self.port = port
        # The child must not outlive a killed test run.
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        self._command = guard + command
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path(gettempdir()) / f"{name}-{os.getpid()}-{port}.log"
        atexit.register(self.stop, final=True)

    def start(self, seconds: float = 60) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=Path(__file__).parents[2]
            )
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if self._process.poll() is not None:
                break
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not start: {self._log.read_text(errors='replace')[-2000:]}")

    def stop(self, final: bool = False) -> None:
        """Kills it, without a chance to say goodbye."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
        if final:
            self._log.unlink(missing_ok=True)


def firestore_server() -> Server:
    """A Firestore emulator that is not started yet. Raises Missing."""
    jar = _emulator_jar()
    java = shutil.which("java")
    if java is None:
        raise Missing("Firestore's emulator needs java, which is not installed")
    port = free_port()
    flags = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx1g"]
    main = ["com.google.cloud.datastore.emulator.firestore.CloudFirestore", "start"]
    return Server(
        "firestore-emulator", [java, *flags, "-cp", str(jar), *main, "--host=127.0.0.1", f"--port={port}"], port
    )


def _emulator_jar() -> Path:
    named = os.environ.get("FIRESTORE_EMULATOR_JAR")
    if named:
        if not Path(named).is_file():
            raise Missing(f"FIRESTORE_EMULATOR_JAR is {named}, and there is no such file")
        return Path(named)
    for place in _JAR_PLACES:
        found = sorted(Path(place).expanduser().glob("cloud-firestore-emulator*.jar"))
        if found:
            return found[-1]
    raise Missing("Firestore's emulator is not on this machine (cloud-firestore-emulator*.jar; FIRESTORE_EMULATOR_JAR)")


class CosmosServer:
    """The npm server and the proxy that puts it right; clients speak to `port`."""

    def __init__(self) -> None:
        node = shutil.which("node")
        if node is None:
            raise Missing("the Cosmos test server needs node, which is not installed")
        cli = _cosmos_cli()
        inner = free_port()
        self.server = Server(
            "cosmosdb-server", [node, str(cli), "-p", str(inner), "--no-ssl", "--host=127.0.0.1"], inner
        )
        self.port = free_port()
        command = [sys.executable, "-m", "tests.contract.cosmos_proxy", str(self.port), str(inner)]
        self.proxy = Server("cosmos-proxy", command, self.port)

    def start(self) -> None:
        self.server.start()
        self.proxy.start()

    def stop(self) -> None:
        """Kills both."""
        self.proxy.stop()
        self.server.stop()


def _cosmos_cli() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sockerless-tests"
    cli = cache / _COSMOS_CLI
    if cli.is_file():
        return cli
    npm = shutil.which("npm")
    if npm is None:
        raise Missing("the Cosmos test server is not installed, and there is no npm to install it with")
    cache.mkdir(parents=True, exist_ok=True)
    flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(cache)]
    try:
        done = subprocess.run([npm, "install", *flags, _COSMOS_PACKAGE], capture_output=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        raise Missing(f"npm did not install {_COSMOS_PACKAGE} within five minutes") from None
    if done.returncode != 0 or not cli.is_file():
        raise Missing(f"npm cannot install {_COSMOS_PACKAGE}: {done.stderr.decode(errors='replace')[-300:]}")
    return cli


@functools.cache
def shared_firestore() -> Server | Missing:
    """The emulator of this test run, started on first use; why there is none."""
    try:
        server = firestore_server()
    except Missing as missing:
        return missing
    server.start()
    return server


@functools.cache
def shared_cosmos() -> CosmosServer | Missing:
    """The Cosmos server of this test run, started on first use; why there is none."""
    try:
        server = CosmosServer()
    except Missing as missing:
        return missing
    server.start()
    return server
