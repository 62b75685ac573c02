"""`sockerless up` and `down`: the three roles in one process, with the local cloud in the clouds' place."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import resource
import secrets
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from control_plane.entrypoints.footprint import keep_small
from control_plane.entrypoints.local_settings import (
    PROJECT,
    RefusedSettingError,
    local_azure_functions,
    local_cloud_functions,
    local_cloud_run,
    refuse_meaningless,
)
from control_plane.settings import Settings, default_data_dir

_BACKENDS = ("cloudrun", "gcf", "azf")
_KEY_BYTES = 32


_SHARED_NETWORK = (
    "containers use this machine's own network: whatever listens on 127.0.0.1 can be reached from them, the local "
    "cloud's APIs and this endpoint's tcp:// listeners among it, and those ask for no password; run images you trust"
)


class CannotStart(Exception):
    """Why `up` cannot start, in one line for the user."""


def up(given: Mapping[str, Any]) -> int:
    """Runs an endpoint until SIGINT or SIGTERM; the exit code."""
    try:
        settings = Settings(**given)
        _check(settings)
        keep_small()
        _allow_many_files()
        with _locked(settings.data):
            asyncio.run(_serve(settings))
    except CannotStart as reason:
        print(f"sockerless: {reason}", file=sys.stderr)
        return 1
    except ValidationError as error:
        fault = error.errors()[0]
        print(f"sockerless: SOCKERLESS_{str(fault['loc'][0]).upper()}: {fault['msg']}", file=sys.stderr)
        return 1
    return 0


def down(data: Path | None) -> int:
    """Ends every container of a state directory, and its launcher; the exit code."""
    directory = (data or default_data_dir()).absolute()
    if not (directory / "cloud" / "runtime").is_dir():
        print(f"sockerless: no local cloud in {directory}", file=sys.stderr)
        return 1
    try:
        with _locked(directory):
            asyncio.run(_end(directory))
    except CannotStart as reason:
        print(f"sockerless: {reason}; stop it first", file=sys.stderr)
        return 1
    return 0


async def _end(directory: Path) -> None:
    from local_cloud.runtime.api import Runtime

    runtime = Runtime(directory / "cloud" / "runtime")
    await runtime.start()
    await runtime.shutdown()


def _check(settings: Settings) -> None:
    try:
        refuse_meaningless()
    except RefusedSettingError as refused:
        raise CannotStart(str(refused)) from None
    if settings.backend not in _BACKENDS:
        raise CannotStart(f"backend {settings.backend!r} is not served; there is: {', '.join(_BACKENDS)}")
    if settings.local_network not in {"bridge", "host"}:
        raise CannotStart(f"SOCKERLESS_LOCAL_NETWORK={settings.local_network}: bridge or host is wanted")
    for address in settings.listen:
        parts = urlsplit(address)
        try:
            port = parts.port
        except ValueError:
            raise CannotStart(f"--listen {address}: the port is not a number") from None
        if parts.scheme == "unix" and parts.path and not parts.netloc:
            continue
        if parts.scheme != "tcp" or not parts.hostname or port is None:
            raise CannotStart(f"--listen {address}: tcp://HOST:PORT or unix:///PATH is wanted")
        if not _loopback(parts.hostname):
            raise CannotStart(
                f"--listen {address}: refused, because whoever reaches it could run containers here without "
                "authentication; use 127.0.0.1 or a unix socket"
            )


def _loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def _locked(data: Path) -> Any:
    """One `up` per state directory."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock: IO[str] = (data / "lock").open("w")
    except OSError as error:
        raise CannotStart(f"the state directory {data} cannot be used: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(f"another `sockerless up` runs in {data}") from None
        yield


def _allow_many_files() -> None:
    """Every link and stream is a socket; the usual soft limit of 1,024 files is soon reached."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(settings: Settings) -> None:
    from local_cloud.ports import PortTakenError
    from local_cloud.runtime.findings import RuntimeRefused

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    endpoint = Embedded(settings)
    try:
        await endpoint.start()
        print(f"export DOCKER_HOST={endpoint.addresses[0]}", flush=True)
        for shortcoming in endpoint.shortcomings:
            print(f"note: {shortcoming}", file=sys.stderr, flush=True)
        await ended.wait()
    except (PortTakenError, RuntimeRefused) as error:
        raise CannotStart(str(error)) from None
    except OSError as error:
        raise CannotStart(f"cannot start: {error}") from None
    finally:
        running = await endpoint.stop()
    if running:
        print(f"{running} container(s) go on running: `sockerless up` finds them again, `sockerless down` ends them")


class Embedded:
    """Local cloud, gateway and control plane of one state directory, in this process."""

    def __init__(self, settings: Settings) -> None:
        from local_cloud.options import Options
        from local_cloud.runtime.api import Runtime
        from local_cloud.server import LocalCloud

        self._settings = settings
        self._data = settings.data.absolute()
        self._runtime = Runtime(self._data / "cloud" / "runtime")
        self._cloud = LocalCloud(
            self._data / "cloud",
            project=PROJECT,
            options=Options(network=settings.local_network, idle_instance_seconds=settings.local_idle),
            runtime=self._runtime,
        )
        self._gateway: Any = None
        self._control_plane: Any = None
        self.addresses: list[str] = []

    @property
    def shortcomings(self) -> list[str]:
        """What this machine cannot do for containers, in words."""
        found = list(self._runtime.shortcomings)
        if self._shared_network:
            found.append(_SHARED_NETWORK)
        return found

    @property
    def _shared_network(self) -> bool:
        return "host" in (self._settings.local_network, self._runtime.network)

    async def start(self) -> None:
        """Starts everything; the Docker listeners last."""
        # Containers' root file systems are in it, with set-user-id programs: closed to others, whatever is around it.
        (self._data / "cloud").mkdir(mode=0o700, exist_ok=True)
        await self._runtime.start()
        await self._cloud.start()
        from agent_gateway.control_plane_client import AsgiControlPlane
        from agent_gateway.server import Gateway, GatewaySettings
        from agent_gateway.tickets import GatewayTokens
        from control_plane.compose import ControlPlane
        from control_plane.store.sqlite import SqliteStore

        listen = self._agent_address()
        url = self._settings.callback_url or listen.replace("tcp://", "http://")
        backends = self._backends(url)
        cloud_run = backends["cloud_run"]
        key = cloud_run.agent_token.encode() or _remembered_key(self._data / "key")

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await self._control_plane.app(scope, receive, send)

        self._gateway = Gateway(
            GatewaySettings(
                key=key,
                url=url,
                docker_listen=self._docker_addresses(),
                agent_listen=[listen],
                local_only=True,
                publications=self._data / "published-ports.json",
                shared_network=self._shared_network,
            ),
            AsgiControlPlane(app, GatewayTokens(key, url), url),
            app,
        )
        store = SqliteStore(self._data / "state.sqlite")
        self._control_plane = ControlPlane(self._deployment(backends, key, url), store, {url: self._gateway.agents})
        await self._gateway.start()
        self.addresses = self._gateway.docker_addresses
        await self._control_plane.start()
        await self._gateway.publisher.remember()

    async def stop(self) -> int:
        """Stops serving; the number of containers that go on."""
        if self._gateway is not None:
            await self._gateway.stop()
        running = 0
        if self._control_plane is not None:
            running = await self._control_plane.running()
            await self._control_plane.stop()
        await self._cloud.stop()
        await self._runtime.close()
        return running

    def _deployment(self, backends: dict[str, Any], key: bytes, url: str) -> Any:
        from control_plane.compose import Deployment
        from control_plane.registry.push import RegistrySettings
        from control_plane.services.run_settings import RunSettings

        temporary = self._data / "tmp"
        temporary.mkdir(mode=0o700, exist_ok=True)
        return Deployment(
            **backends,
            backend=self._settings.backend,
            registry_mirrors=tuple(self._settings.registry_mirror),
            insecure_registries=tuple(self._settings.insecure_registry),
            root=str(self._settings.data),
            azure_identity=self._cloud.azure_identity,
            registry=RegistrySettings(url=self._cloud.http_url, prefix=f"{PROJECT}/sockerless"),
            run=RunSettings(
                instance=f"embedded-{secrets.token_hex(6)}",
                sole_instance=True,
                start_timeout=self._settings.start_timeout,
                agent_connect_timeout=self._settings.agent_connect_timeout,
                linger=self._settings.linger,
                reconcile_interval=self._settings.reconcile_interval,
                sweep_interval=self._settings.sweep_interval,
            ),
            key=key,
            gateway_url=url,
            server_id=_remembered_id(self._data / "server-id"),
            temporary=temporary,
        )

    def _backends(self, url: str) -> dict[str, Any]:
        """Field of `Deployment` → the backend's settings."""
        from control_plane.backends.settings_error import SettingsError

        grpc, http = self._cloud.grpc_target, self._cloud.http_url
        try:
            return {
                "cloud_run": local_cloud_run(url, grpc, http),
                "cloud_functions": local_cloud_functions(url, grpc, http),
                "azure_functions": local_azure_functions(url, http),
            }
        except SettingsError as error:
            raise CannotStart(str(error)) from None

    def _docker_addresses(self) -> list[str]:
        addresses = self._settings.listen or [f"unix://{self._data / 'docker.sock'}"]
        for address in addresses:
            path = urlsplit(address).path
            if address.startswith("unix:") and len(path.encode()) > 107:
                raise CannotStart(f"--listen {address}: a unix socket's path has at most 107 bytes")
        return addresses

    def _agent_address(self) -> str:
        """Where agents dial in. The same after every restart, because running agents dial it again."""
        if self._settings.agent_listen:
            return self._settings.agent_listen
        host = "127.0.0.1" if self._settings.local_network == "host" else self._runtime.host_address
        remembered = self._data / "agent-port.json"
        with contextlib.suppress(FileNotFoundError, ValueError):
            return f"tcp://{host}:{json.loads(remembered.read_text())['port']}"
        with socket.create_server((host, 0)) as probe:
            port = probe.getsockname()[1]
        remembered.write_text(json.dumps({"port": port}))
        return f"tcp://{host}:{port}"


def _remembered_key(path: Path) -> bytes:
    """The endpoint's signing key, made once, readable by its owner alone."""
    with contextlib.suppress(FileNotFoundError):
        key = path.read_bytes()
        if len(key) >= _KEY_BYTES:
            return key
    key = secrets.token_bytes(_KEY_BYTES)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(key)
    return key


def _remembered_id(path: Path) -> str:
    """Names the endpoint in `docker info`."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    chosen = secrets.token_hex(16)
    path.write_text(chosen + "\n")
    return chosen
