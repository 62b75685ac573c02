"""Hijacked requests: what attach and exec start become before a byte flows (`POST /internal/v1/tickets`)."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote

from control_plane.errors import Conflict, Forbidden, InvalidParameter, NotFound
from control_plane.model import Container
from control_plane.services.container_events import ContainerEvents
from control_plane.services.execs import Execs, exec_params
from control_plane.services.lifecycle import not_running
from control_plane.services.moves import place
from control_plane.services.published_ports import is_published
from control_plane.services.runs import Resolver

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_MULTIPLEXED_SINCE = (1, 42)
_NEWEST = (1, 99)
_ATTACH = re.compile(r"(?:/v(\d{1,3})\.(\d{1,3}))?/containers/([^/]+)/attach")
_EXEC_START = re.compile(r"(?:/v(\d{1,3})\.(\d{1,3}))?/exec/([^/]+)/start")
_DIAL = re.compile(r"/internal/v1/containers/([^/]+)/dial")
_FALSE = {"", "0", "no", "false", "none"}


Home = Callable[[Container], Awaitable[Container]]
"""The container, with a gateway that lives."""
Expect = Callable[[Container, str], Awaitable[None]]
"""Told of a container that may not run yet and of the id of a stream that attaches to it."""


class StreamTickets(Protocol):
    """Mints what opens one stream at the container's relay."""

    def __call__(self, container: Container, kind: str, stream_id: str, params: Mapping[str, Any]) -> str:
        """The ticket."""
        ...


@dataclass(frozen=True, slots=True)
class HijackRequest:
    """A Docker request as it came to the front door."""

    method: str
    path: str
    query: str
    body: Any
    attempt: str = ""
    """Tells a repetition of a request whose answer was lost from a second request."""


class Attachments:
    """Parses, checks the state, and hands out the ticket for the stream; the relay and the agent do the rest."""

    def __init__(
        self,
        containers: Resolver,
        execs: Execs,
        events: ContainerEvents,
        mint: StreamTickets,
    ) -> None:
        self._resolve = containers.resolve
        self._execs = execs
        self._events = events
        self._mint = mint
        self._home: Home | None = None
        self._expect: Expect | None = None

    def expect_with(self, expect: Expect) -> None:
        """Who remembers the attachments that a start waits for."""
        self._expect = expect

    def home_with(self, home: Home) -> None:
        """Who finds a container another gateway when its own has died."""
        self._home = home

    async def ticket(self, tenant: str, request: HijackRequest) -> dict[str, Any]:
        """`{"stream_id", "ticket", "relay_url", "container", "tty", "content_type"}`, or `{"detached": true}`.

        `content_type` is that of a 101; a 200 is always a raw stream. Raises DockerError with moby's texts.
        """
        if request.method == "POST" and (found := _ATTACH.fullmatch(request.path)):
            return await self._attach(tenant, unquote(found[3]), _version(found), request)
        if request.method == "GET" and (found := _ATTACH.fullmatch(request.path.removesuffix("/ws"))):
            return await self._attach(tenant, unquote(found[3]), _version(found), request)
        if request.method == "POST" and (found := _EXEC_START.fullmatch(request.path)):
            return await self._exec_start(tenant, unquote(found[3]), _version(found), request)
        if request.method == "POST" and (found := _DIAL.fullmatch(request.path)):
            return await self._dial(tenant, unquote(found[1]), _query(request.query).get("port", ""))
        raise NotFound("page not found")

    async def _attach(
        self, tenant: str, reference: str, version: tuple[int, int], request: HijackRequest
    ) -> dict[str, Any]:
        container = await self._resolve(tenant, reference)
        query = _query(request.query)
        flags = {name: _flag(query, name) for name in ("stdin", "stdout", "stderr", "stream", "logs")}
        keys = query.get("detachKeys", "")
        check_detach_keys(keys)
        status = container.state.status
        if status == "paused":
            raise Conflict(f"container {reference} is paused, unpause the container before attach")
        if status == "restarting":
            raise Conflict(f"container {reference} is restarting, wait until the container is running")
        if status in {"removing", "dead"}:
            raise Conflict(f"container {container.id} is marked for removal and cannot be attached to")
        if container.execution is not None and container.execution.agentless and status in {"starting", "running"}:
            raise Conflict(
                f"container {container.id} runs without an agent and cannot be attached to; see `docker logs`"
            )
        tty = bool(container.config.get("Tty"))
        container = container if self._home is None else await self._home(container)
        # Asked again it is the same stream: a start would wait for the one that nobody has heard of.
        stream_id = _stream_id(container, request.attempt)
        params = flags | {"detach_keys": keys}
        answer = self._answer(container, "attach", params, tty=tty, version=version, stream_id=stream_id)
        if flags["stream"]:
            if self._expect is not None:
                await self._expect(container, answer["stream_id"])
            await self._events.publish(container, "attach")
        return answer

    async def _exec_start(
        self, tenant: str, exec_id: str, version: tuple[int, int], request: HijackRequest
    ) -> dict[str, Any]:
        options = start_options(request.body, version)
        if options.detach:
            await self._execs.start_detached(tenant, exec_id, options.console)
            return {"detached": True}
        container, session = await self._execs.claim(tenant, exec_id, request.attempt)
        container = container if self._home is None else await self._home(container)
        params = exec_params(container, session, options.console)
        # moby shows the start request's `Tty` in the content type, whatever the exec was created with.
        answer = self._answer(container, "exec", params, tty=options.tty, version=version)
        return answer | {"tty": bool(session.config.get("Tty"))}

    async def _dial(self, tenant: str, reference: str, port: str) -> dict[str, Any]:
        """One connection to a published port."""
        container = await self._resolve(tenant, reference)
        number = int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else 0
        if not is_published(container, number):
            raise Forbidden(f"port {port[:16]} of container {container.id} is not published")
        if container.state.status not in {"running", "paused"}:
            raise not_running(container)
        if container.execution is not None and container.execution.agentless:
            raise Conflict(f"container {container.id} runs without an agent, and its ports cannot be reached")
        container = container if self._home is None else await self._home(container)
        return self._answer(container, "dial", {"port": number, "network": "tcp"}, tty=True, version=_NEWEST)

    def _answer(
        self,
        container: Container,
        kind: str,
        params: Mapping[str, Any],
        *,
        tty: bool,
        version: tuple[int, int],
        stream_id: str = "",
    ) -> dict[str, Any]:
        stream_id = stream_id or _stream_id(container)
        return {
            "stream_id": stream_id,
            "ticket": self._mint(container, kind, stream_id, params),
            "relay_url": place(container),
            "container": container.id,
            "tty": tty,
            "content_type": stream_type(tty=tty, version=version),
        }


def _stream_id(container: Container, attempt: str = "") -> str:
    """Of an attempt always the same one, and of nobody else's container."""
    seed = f"{container.tenant}/{container.id}/{attempt}" if attempt else secrets.token_hex(32)
    return hashlib.sha256(seed.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class StartOptions:
    """The body of exec start. `console` is [height, width]."""

    detach: bool
    tty: bool
    console: list[int] | None


def start_options(body: Any, version: tuple[int, int]) -> StartOptions:
    """Raises InvalidParameter. `ConsoleSize` counts from API 1.42 on, and with a TTY only (moby)."""
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise InvalidParameter("invalid JSON: an object is wanted")
    tty = bool(body.get("Tty"))
    console = body.get("ConsoleSize") if tty and version >= _MULTIPLEXED_SINCE else None
    if console is not None and not is_console_size(console):
        raise InvalidParameter("invalid JSON: ConsoleSize: two numbers are wanted")
    return StartOptions(bool(body.get("Detach")), tty, console)


def is_console_size(value: Any) -> bool:
    """Docker's `[height, width]`."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(isinstance(number, int) and 0 <= number <= 0xFFFF for number in value)


def stream_type(*, tty: bool, version: tuple[int, int]) -> str:
    """The content type of container output: since API 1.42 clients are told whether it is multiplexed."""
    return RAW if tty or version < _MULTIPLEXED_SINCE else MULTIPLEXED


def check_detach_keys(text: str) -> None:
    """`ctrl-p,ctrl-q`, `a,b`. Raises InvalidParameter with moby's text."""
    for key in text.split(",") if text else []:
        control = key.startswith("ctrl-") and len(key) == 6 and (key[5].isalpha() or key[5] in "@[\\]^_")
        if not control and len(key) != 1:
            raise InvalidParameter(f"Invalid detach keys ({text}) provided")


def _version(found: re.Match[str]) -> tuple[int, int]:
    return (int(found[1]), int(found[2])) if found[1] else _NEWEST


def _query(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text, keep_blank_values=True, max_num_fields=100).items()}


def _flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").strip().lower() not in _FALSE
