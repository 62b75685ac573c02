"""What Docker clients talk to: hijacks end here, everything else goes to the control plane."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import orjson

from agent_gateway.asgi import App, Receive, Scope, Send, read_body, respond_message
from agent_gateway.client_half import ClientHalf, StreamError
from agent_gateway.control_plane_client import Grant, HijackRequest, Refused, Tickets
from agent_gateway.front_door import web_pages
from agent_gateway.front_door.attach_websocket import WebsocketClient, WebsocketStream
from agent_gateway.front_door.clients import Clients
from agent_gateway.front_door.hijacked import HijackedStream, RawClient, failure_text, stderr_text, stdout_text
from agent_gateway.front_door.proxy_protocol import Proxied
from agent_gateway.relay.app import RelayApp

_HIJACK = re.compile(r"(?:/v\d+\.\d+)?/(?:containers/[^/]+/(attach)(/ws)?|exec/[^/]+/(start))")
_INTERNAL = re.compile(r"/+(?:v[0-9.]+/+)?internal(?:/.*)?", re.DOTALL)
"""What gateways say to the control plane. They do not say it through a front door."""
_BODY_LIMIT = 256 * 1024
_GO_CLIENTS = (b"Docker-Client/", b"Go-http-client/", b"compose/")
_HOLD_SECONDS = 0.03
"""docker-py and dockerode drop payload that arrives with the head of the answer: they read the bare socket after their
HTTP library has read ahead. moby is never so fast, and for clients that may not be written in Go we are not either."""
_DEFAULT_TYPE = "application/vnd.docker.raw-stream"


class Joined(Protocol):
    """A relay, as far as a front door needs it."""

    async def join(self, half: ClientHalf, stream_id: str, ticket: str) -> None:
        """Becomes the client half of the stream the ticket is for. Raises StreamError when the relay refuses it."""
        ...


class FrontDoor:
    """The ASGI app of the Docker listeners."""

    def __init__(
        self,
        control_plane: Tickets,
        inner: App,
        relay_for: Callable[[str], Joined],
        relay_app: RelayApp | None = None,
        *,
        local_only: bool = False,
        clients: Clients | None = None,
    ) -> None:
        self._clients = clients or Clients()
        self._control_plane = control_plane
        self._inner = inner
        self._relay_for = relay_for
        self._relay_app = relay_app
        self._local_only = local_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        path: str = scope["path"]
        if self._local_only and (reason := web_pages.refusal(scope)) is not None:
            await respond_message(send, 403, reason)
            return
        if _INTERNAL.fullmatch(path):
            await respond_message(send, 404, "page not found")
            return
        try:
            client = self._clients.of(scope)
        except Refused as refused:
            await respond_message(send, refused.status, refused.message)
            return
        if path.endswith(("/start", "/attach", "/attach/ws")):
            match = _HIJACK.fullmatch(path)
            if match is not None and scope["method"] == ("GET" if match[2] else "POST"):
                await self._hijack(scope, receive, send, client, websocket=bool(match[2]), is_exec=bool(match[3]))
                return
        elif self._relay_app is not None and self._relay_app.serves(path):
            await self._relay_app(scope, receive, send)
            return
        await self._inner(scope, receive, send)

    async def _hijack(
        self, scope: Scope, receive: Receive, send: Send, client: Proxied, *, websocket: bool, is_exec: bool
    ) -> None:
        connection: Any = scope["extensions"]["tcp.hijack"]
        connection.expect_hijack()
        raw = await read_body(receive, _BODY_LIMIT)
        if raw is None:
            await respond_message(send, 413, "request body too large")
            return
        try:
            body = orjson.loads(raw) if raw.strip() else None
        except orjson.JSONDecodeError as error:
            await respond_message(send, 400, f"invalid JSON: {error}")
            return
        if is_exec and isinstance(body, dict) and body.get("Detach") is True:
            await self._inner(scope, _replay(raw, receive), send)
            return
        headers = dict(scope["headers"])
        if websocket and headers.get(b"upgrade", b"").lower() != b"websocket":
            await respond_message(send, 400, "a websocket handshake is wanted")
            return
        try:
            grant = await self._control_plane.tickets(_request(scope, headers, body, client))
            relay = self._relay_for(grant.relay_url)
            if websocket:
                await _attach_websocket(connection, relay, grant)
            else:
                await _raw(connection, relay, grant, headers, is_exec=is_exec)
        except Refused as refused:
            await respond_message(send, refused.status, refused.message)
        except StreamError as error:
            await respond_message(send, error.status, error.message)
        except ConnectionError:
            # The client went away while it waited; there is nobody to answer.
            return


def _request(scope: Scope, headers: dict[bytes, bytes], body: Any, client: Proxied) -> HijackRequest:
    return HijackRequest(
        scope["method"],
        scope["raw_path"].decode("latin-1"),
        scope["query_string"].decode("latin-1"),
        headers.get(b"authorization", b"").decode("latin-1"),
        body,
        client.subject,
        client.address,
    )


async def _raw(connection: Any, relay: Joined, grant: Grant, headers: dict[bytes, bytes], *, is_exec: bool) -> None:
    if is_exec:
        stream = HijackedStream(lament=partial(failure_text, tty=grant.tty))
    else:
        stream = HijackedStream(farewell=partial(stderr_text, tty=grant.tty))
    await relay.join(stream, grant.stream_id, grant.ticket)
    last_words = b""
    try:
        if is_exec:
            # The first message says whether the process started. An attach may wait long for its container's start.
            await stream.answered.wait()
            error = stream.error
            if error is not None and error.status == 400:
                # moby answers 101 before it starts the process, and its text is stdout; the CLI wants nothing but 101.
                last_words = stdout_text(error.message, tty=grant.tty)
            elif error is not None and not stream.state.received:
                raise error
        hold = 0.0 if headers.get(b"user-agent", b"").startswith(_GO_CLIENTS) else _HOLD_SECONDS
        client = RawClient(stream, last_words, hold_seconds=hold)
        connection.hijack(_head(grant, upgrade=b"upgrade" in headers), client)
    except BaseException:
        stream.detach()
        raise


async def _attach_websocket(connection: Any, relay: Joined, grant: Grant) -> None:
    stream = WebsocketStream(tty=grant.tty)
    await relay.join(stream, grant.stream_id, grant.ticket)
    try:
        connection.hijack_websocket(WebsocketClient(stream))
    except BaseException:
        stream.detach()
        raise


def _head(grant: Grant, *, upgrade: bool) -> bytes:
    """101 only for those who asked: docker-py and dockerode hang on one they did not ask for."""
    content_type = (grant.content_type or _DEFAULT_TYPE).encode("latin-1")
    if upgrade:
        return (
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: "
            + content_type
            + b"\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
    return b"HTTP/1.1 200 OK\r\nContent-Type: " + content_type + b"\r\nConnection: close\r\n\r\n"


def _replay(body: bytes, receive: Receive) -> Receive:
    unread = [body]

    async def again() -> Any:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await receive()

    return again
