"""`sockerless gateway`: a gateway as a process of its own, told by its environment what it is.

- `SOCKERLESS_CONTROL_PLANE_URL`: where requests are forwarded and agents' reports go (http or https).
- `SOCKERLESS_KEY`, or `SOCKERLESS_KEY_FILE`: the signing key, as the control plane has it: 32 bytes at least.
- `SOCKERLESS_GATEWAY_URL`: this gateway's own public URL: agents, control planes and connectors dial it.
- `SOCKERLESS_LISTEN`: for agents and streams, addresses with commas between; else `tcp://0.0.0.0:$PORT`.
- `SOCKERLESS_DOCKER_LISTEN`: for Docker clients over raw TCP, behind a proxy that ends their TLS; none by default.
- `SOCKERLESS_DRAIN_SECONDS`: between SIGTERM and the end (10).
- `SOCKERLESS_PROXY_SECRET`, or `_FILE`: what that proxy shows when it names a client's certificate; 32 bytes at least.
- `SOCKERLESS_DOCKER_PROXY_PROTOCOL`: 1: that proxy begins every connection with a PROXY protocol header, version 2.
- `SOCKERLESS_DOCKER_PROXIES`: with it, the addresses and networks such connections come from (`127.0.0.0/8,::1`).
- `SOCKERLESS_PEER_CONNECTIONS`: most connections of one address that have shown no valid token (1024; 0: any number).
- `OTEL_EXPORTER_OTLP_ENDPOINT`: switches traces on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from agent_gateway import traces
from agent_gateway.control_plane_client import HttpControlPlane
from agent_gateway.front_door.proxied import networks
from agent_gateway.registration import Registration
from agent_gateway.server import Gateway, GatewaySettings
from agent_gateway.tickets import GatewayTokens

_LOGGER = logging.getLogger("agent_gateway")
_KEY_LEAST = 32
_LOOPBACK = ("127.0.0.0/8", "::1")
_DEFAULT_DRAIN_SECONDS = 10.0
_DEFAULT_PEER_CONNECTIONS = 1024
_LAST_CALLS_SECONDS = 2.0
"""Of the time to drain, what is kept for the good-bye to the control plane."""


class NotConfigured(Exception):
    """The environment does not say what is needed. The message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What the variables say."""

    control_plane_url: str
    key: bytes
    gateway_url: str
    listen: list[str]
    docker_listen: list[str]
    drain_seconds: float
    peer_connections: int
    proxy_secret: str
    docker_proxies: list[str]

    @classmethod
    def read(cls, variables: Mapping[str, str]) -> Environment:
        """Raises NotConfigured."""
        listen = _addresses(variables, "SOCKERLESS_LISTEN")
        if not listen and variables.get("PORT"):
            listen = [f"tcp://0.0.0.0:{variables['PORT']}"]
        if not listen:
            raise NotConfigured("SOCKERLESS_LISTEN (or PORT) must say where agents are served, as tcp://0.0.0.0:8080")
        secret = _secret(variables, "SOCKERLESS_PROXY_SECRET", least=0).decode("latin-1")
        proxies = _proxies(variables)
        if secret and proxies:
            raise NotConfigured(
                "SOCKERLESS_PROXY_SECRET and SOCKERLESS_DOCKER_PROXY_PROTOCOL: one of them, because certificates are "
                "named either in headers or in the PROXY protocol"
            )
        return cls(
            _url(variables, "SOCKERLESS_CONTROL_PLANE_URL"),
            _secret(variables, "SOCKERLESS_KEY", least=_KEY_LEAST),
            _url(variables, "SOCKERLESS_GATEWAY_URL"),
            listen,
            _addresses(variables, "SOCKERLESS_DOCKER_LISTEN"),
            _number(variables, "SOCKERLESS_DRAIN_SECONDS", _DEFAULT_DRAIN_SECONDS),
            int(_number(variables, "SOCKERLESS_PEER_CONNECTIONS", _DEFAULT_PEER_CONNECTIONS)),
            secret,
            proxies,
        )


def _addresses(variables: Mapping[str, str], name: str) -> list[str]:
    return [part.strip() for part in variables.get(name, "").split(",") if part.strip()]


def _proxies(variables: Mapping[str, str]) -> list[str]:
    switch, name = variables.get("SOCKERLESS_DOCKER_PROXY_PROTOCOL", ""), "SOCKERLESS_DOCKER_PROXIES"
    given = _addresses(variables, name)
    if switch not in ("", "0", "1"):
        raise NotConfigured(f"SOCKERLESS_DOCKER_PROXY_PROTOCOL must be 1 or 0, not {switch!r}")
    if switch != "1":
        if given:
            raise NotConfigured(f"{name} means nothing without SOCKERLESS_DOCKER_PROXY_PROTOCOL=1")
        return []
    try:
        networks(given)
    except ValueError as error:
        raise NotConfigured(f"{name}: {error}") from None
    return given or list(_LOOPBACK)


def _url(variables: Mapping[str, str], name: str) -> str:
    url = variables.get(name, "").rstrip("/")
    parts = urlsplit(url)
    # Agents are told of several with spaces between them.
    listable = url.isascii() and url.isprintable() and not set(" ,") & set(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or not listable:
        raise NotConfigured(f"{name} must be a URL that begins with http:// or https://, not {url!r}")
    return url


def _secret(variables: Mapping[str, str], name: str, *, least: int) -> bytes:
    path = variables.get(f"{name}_FILE", "")
    secret = variables.get(name, "").encode()
    if path:
        try:
            with open(path, "rb") as file:
                secret = file.read()
        except OSError as error:
            raise NotConfigured(f"{name}_FILE: {error}") from None
    secret = secret.strip()
    if len(secret) < least or 0 < len(secret) < _KEY_LEAST:
        raise NotConfigured(f"{name} or {name}_FILE must hold {_KEY_LEAST} bytes at least")
    return secret


def _number(variables: Mapping[str, str], name: str, default: float) -> float:
    text = variables.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e6:
        raise NotConfigured(f"{name} must be a number, not {text!r}")
    return value


class GatewayProcess:
    """The gateway, its registration and its end."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        url = environment.gateway_url
        self._control_plane = HttpControlPlane(environment.control_plane_url, GatewayTokens(environment.key, url), url)
        settings = GatewaySettings(
            environment.key,
            url,
            docker_listen=environment.docker_listen,
            agent_listen=environment.listen,
            control_plane_url=environment.control_plane_url,
            proxy_secret=environment.proxy_secret,
            docker_proxies=environment.docker_proxies,
            peer_connections=environment.peer_connections,
        )
        self.gateway = Gateway(settings, self._control_plane, where=self._control_plane.where)
        self.registration = Registration(self._control_plane, self.gateway.linked, self.gateway.others)

    async def serve(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, and then until everything has moved or the time to drain is over. Raises OSError."""
        await self.gateway.start()
        for address in self.gateway.agent_addresses:
            _LOGGER.warning("agents and streams: %s", address)
        for address in self.gateway.docker_addresses:
            _LOGGER.warning("Docker clients: %s", address)
        self.registration.start()
        try:
            await stop.wait()
        finally:
            await self._end()

    async def _end(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._environment.drain_seconds
        last = min(_LAST_CALLS_SECONDS, self._environment.drain_seconds / 4)
        try:
            async with asyncio.timeout(last):
                await self.registration.drain()
        except TimeoutError:
            _LOGGER.warning("the control plane was not told in time that this gateway drains")
        await self.gateway.stop(max(0.0, until - loop.time() - last))
        try:
            async with asyncio.timeout(last):
                await self.registration.end()
        except TimeoutError:
            _LOGGER.warning("the control plane was not told in time that this gateway is gone")
        await self._control_plane.aclose()


async def _run(environment: Environment) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await GatewayProcess(environment).serve(stop)


def _set_traces_up(variables: Mapping[str, str]) -> None:
    try:
        traces.set_up(variables)
    except ImportError as error:
        raise NotConfigured(
            f"{traces.ENDPOINT} is set, but {error.name} is not installed: pip install 'sockerless[telemetry]'"
        ) from None


def _raise_file_limit() -> None:
    """Each link and stream is a socket."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(variables: Mapping[str, str] | None = None) -> int:
    """Runs until SIGTERM; the result is the process's exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line per request
    variables = os.environ if variables is None else variables
    try:
        environment = Environment.read(variables)
        _set_traces_up(variables)
    except NotConfigured as error:
        print(f"sockerless gateway: {error}", file=sys.stderr)
        return 2
    _raise_file_limit()
    try:
        asyncio.run(_run(environment))
    except (OSError, ValueError) as error:
        print(f"sockerless gateway: {error}", file=sys.stderr)
        return 1
    finally:
        traces.switch_off()
    return 0


if __name__ == "__main__":
    sys.exit(main())
