"""A hosted control plane as an ASGI application: composed from the environment, observed, ready or not.

`/_ready` and `/metrics` are its own; Cloud Run reserves paths that end in `z`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson

from control_plane.entrypoints.http2 import taking
from control_plane.errors import DockerError, Unauthorized
from control_plane.telemetry.context import note

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from control_plane.auth.access import Access
    from control_plane.compose import ControlPlane
    from control_plane.entrypoints.hosted_settings import HostedSettings

_log = logging.getLogger(__name__)

_READY, _METRICS = "/_ready", "/metrics"
_LOOK_LIMIT = 5.0
_LOOK_EVERY = 1.0
"""Seconds for which one look at the store answers everybody: `/_ready` asks nobody who they are."""
_STOPPING = "the control plane is shutting down"


class Hosted:
    """One control plane, from `start` to `stop`."""

    def __init__(self, settings: HostedSettings) -> None:
        from control_plane.telemetry import traces
        from control_plane.telemetry.metrics import Metrics
        from control_plane.telemetry.observed import Observed

        self._settings = settings
        self._metrics = Metrics()
        self._traces = traces.set_up()
        self._observed = Observed(self._answer, self._metrics, self._traces)
        self._looking: asyncio.Task[float] | None = None
        self._looked = float("-inf")
        self._requests: set[asyncio.Task[Any]] = set()
        self._stopping = False
        self._access: Access | None = None
        self.control_plane: ControlPlane | None = None

    async def start(self, *, reconcile: bool = True) -> None:
        """Composes the control plane in the running loop, and begins to load SDKs. Raises SettingsError."""
        self._metrics.attach()
        self.control_plane, self._access = compose(self._settings, reconcile=reconcile)
        await self.control_plane.start()
        # The store's SDK and connection as well: the first request should not wait for them.
        self._look_soon()

    def drain(self) -> None:
        """No longer ready; requests under way are cut after the time the settings give them."""
        self._stopping = True
        asyncio.get_running_loop().call_later(self._settings.graceful, self._cut)

    def _cut(self) -> None:
        for request in self._requests:
            request.cancel()

    async def stop(self) -> None:
        """Ends what runs in this process; containers go on."""
        self._stopping = True
        if self.control_plane is not None:
            await self.control_plane.stop()
        if self._access is not None:
            await self._access.close()
        # Sends what it holds, in a thread of the exporter's own: with no collector there, for seconds.
        await asyncio.to_thread(self._traces.close)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        request = asyncio.current_task()
        assert request is not None
        self._requests.add(request)
        try:
            await self._observed(scope, taking(receive), send)
        finally:
            self._requests.discard(request)

    async def gateway(self) -> str:
        """URL of a gateway that serves what streams. Raises Unavailable."""
        assert self.control_plane is not None
        return await self.control_plane.gateways.pick()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.start()
                except Exception as error:
                    _log.exception("the control plane cannot start")
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.control_plane is not None, "not started"
        path = scope.get("path")
        if path == _READY:
            note(route=_READY)
            await self._ready(send)
        elif path == _METRICS:
            note(route=_METRICS)
            await self._expose(scope, send)
        else:
            await self.control_plane.app(scope, receive, send)

    async def _ready(self, send: Send) -> None:
        if self._stopping:
            await _respond(send, 503, {"message": _STOPPING})
            return
        try:
            seconds = await self._look()
        except Exception as error:
            _log.warning("the store cannot be reached: %s", error)
            await _respond(send, 503, {"message": "the store cannot be reached"})
            return
        await _respond(send, 200, {"store_milliseconds": round(seconds * 1000, 1)})

    async def _look(self) -> float:
        """How long the store takes for one read."""
        try:
            seconds = await asyncio.shield(self._look_soon())
        except Exception:
            self._metrics.store_took(-1)
            raise
        self._metrics.store_took(seconds)
        return seconds

    def _look_soon(self) -> asyncio.Task[float]:
        """The look under way, or one that has just been, or a new one."""
        assert self.control_plane is not None
        now = asyncio.get_running_loop().time()
        if self._looking is None or (self._looking.done() and now - self._looked > _LOOK_EVERY):
            self._looked = now
            self._looking = asyncio.create_task(store_seconds(self.control_plane.store))
            self._looking.add_done_callback(_seen)
        return self._looking

    async def _expose(self, scope: Scope, send: Send) -> None:
        assert self.control_plane is not None
        headers = dict(scope["headers"])
        if not _from_this_machine(scope, headers):
            try:
                self.control_plane.auth.check_gateway(headers.get(b"authorization", b"").decode("latin-1"))
            except Unauthorized as error:
                await _respond(send, error.status, {"message": error.message})
                return
        await _send(send, 200, self._metrics.content_type, self._metrics.page())


def _seen(look: asyncio.Task[float]) -> None:
    """A look that nobody waited for has failed unheard; the next one that somebody waits for says so."""
    if not look.cancelled():
        look.exception()


async def store_seconds(store: Any) -> float:
    """Seconds that reading a document that is not there takes. Raises what the store raises, or TimeoutError."""
    began = perf_counter()
    async with asyncio.timeout(_LOOK_LIMIT):
        await store.get("gateways", "", "-")
    return perf_counter() - began


def compose(settings: HostedSettings, *, reconcile: bool = True) -> tuple[ControlPlane, Access]:
    """The control plane that the environment describes, and who may use it. Raises SettingsError."""
    from control_plane.auth.settings import build_access
    from control_plane.auth.tokens import ROTATED, GatewayAuth
    from control_plane.backends.settings_error import SettingsError
    from control_plane.compose import ControlPlane
    from control_plane.deployment import Deployment
    from control_plane.entrypoints.hosted_settings import load_backends
    from control_plane.entrypoints.registry_login import registry_settings
    from control_plane.entrypoints.stores import open_store
    from control_plane.services.audit import Audit
    from control_plane.services.quotas import Quotas
    from control_plane.services.run_settings import RunSettings
    from control_plane.services.tenants import Tenants
    from control_plane.telemetry.logs import audit

    key = settings.signing_key()
    backends = load_backends(settings)
    if backends.cloud_run is not None and backends.cloud_run.agent_token:
        raise SettingsError("SOCKERLESS_GCR_AGENT_TOKEN: a hosted endpoint has one key, SOCKERLESS_KEY, for all tokens")
    store = open_store(settings)
    access = build_access(store, GatewayAuth(key).check_attestation)
    deployment = Deployment(
        cloud_run=backends.cloud_run,
        cloud_functions=backends.cloud_functions,
        azure_functions=backends.azure_functions,
        backend=backends.default,
        registry=registry_settings(settings),
        registry_mirrors=settings.registry_mirror,
        insecure_registries=settings.insecure_registry,
        insecure_loopback=False,
        run=RunSettings(
            instance=settings.instance,
            sole_instance=False,
            start_timeout=settings.start_timeout,
            agent_connect_timeout=settings.agent_connect_timeout,
            linger=settings.linger,
            reconcile_interval=settings.reconcile_interval if reconcile else 0,
            sweep_interval=settings.sweep_interval,
        ),
        key=key,
        gateway_url=settings.gateway_url,
        server_id=settings.server_id(key),
        temporary=settings.temporary,
        authenticate=access,
        admission=Quotas(store, Tenants(store)),
        audit=Audit(audit),
        agent_token_seconds=ROTATED,
    )
    try:
        return ControlPlane(deployment, store), access
    except DockerError as error:  # mirrors and insecure registries, in dockerd's words
        raise SettingsError(error.message) from None


def _from_this_machine(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Whether the request comes from a loopback address, and not through a proxy that has one."""
    client = scope.get("client")
    if not client or any(name in headers for name in (b"x-forwarded-for", b"forwarded", b"via")):
        return False
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


async def _respond(send: Send, status: int, body: Any) -> None:
    await _send(send, status, "application/json", orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE))


async def _send(send: Send, status: int, kind: str, body: bytes) -> None:
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
