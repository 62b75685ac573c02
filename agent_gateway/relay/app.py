"""What the relay serves: websockets, and two plain HTTP resources. docs/wire-protocol.md, section 1."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from importlib import resources
from typing import Any

import orjson

from agent_gateway import trace_context, traces
from agent_gateway.asgi import Receive, Scope, Send, read_body, respond, respond_message
from agent_gateway.client_half import StreamError
from agent_gateway.relay.metrics import CONTENT_TYPE, exposition
from agent_gateway.relay.pairing import StreamRefused
from agent_gateway.relay.streams import Streams
from agent_gateway.streams import CALL_SECONDS
from agent_gateway.tickets import TicketRefused, bearer
from agent_gateway.websockets import Socket

_CALLS = re.compile(r"/links/([a-zA-Z0-9_.-]{1,128})/calls")
_BINARY = re.compile(r"/agent/binary/([a-z0-9]{1,16}-[a-z0-9]{1,16})")
_BODY_LIMIT = 1024 * 1024


def authorization(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The bearer token of a request. Raises TicketRefused."""
    for name, value in headers:
        if name == b"authorization":
            return bearer(value.decode("latin-1"))
    raise TicketRefused("a bearer token is wanted")


class RelayApp:
    """An ASGI app, and the router of websockets for `http.GatewayProtocol`."""

    def __init__(self, streams: Streams, connections: Callable[[], int] = lambda: 0) -> None:
        self._streams = streams
        self._connections = connections

    def serves(self, path: str) -> bool:
        """Whether a path is the relay's."""
        return path.startswith(("/agent/", "/streams/", "/links/"))

    def websocket(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> Socket | None:
        """What serves a websocket; None for a path that isn't one of ours. Raises StreamRefused."""
        streams = self._streams
        try:
            if path == "/agent/link":
                return streams.link(authorization(headers))
            if path == "/agent/streams":
                return streams.spare(authorization(headers))
            if path.startswith("/agent/streams/"):
                return streams.agent_half(authorization(headers), path.removeprefix("/agent/streams/"))
            if path.startswith("/streams/"):
                trace = None if traces.active is None else trace_context.shown(headers)
                return streams.client_half(authorization(headers), path.removeprefix("/streams/"), trace)
        except TicketRefused as refused:
            raise StreamRefused(401, str(refused)) from None
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`POST /links/{container_id}/calls`, `GET /agent/binary/{os}-{arch}`, `/health` and `/metrics`."""
        path, method = scope["path"], scope["method"]
        calls, binary = _CALLS.fullmatch(path), _BINARY.fullmatch(path)
        try:
            if calls is not None and method == "POST":
                await self._call(calls[1], scope, receive, send)
            elif binary is not None and method in ("GET", "HEAD"):
                await self._binary(binary[1], scope, send)
            elif path == "/health" and method in ("GET", "HEAD"):
                await respond(send, 200, b"OK", b"text/plain; charset=utf-8")
            elif path == "/metrics" and method == "GET":
                self._streams.gateway_token(authorization(scope["headers"]))
                await respond(send, 200, exposition(self._streams, self._connections()), CONTENT_TYPE)
            else:
                await respond_message(send, 404, "page not found")
        except TicketRefused as refused:
            await respond_message(send, 401, str(refused))
        except StreamError as error:
            await respond_message(send, error.status, error.message)

    async def _call(self, container: str, scope: Scope, receive: Receive, send: Send) -> None:
        self._streams.call_ticket(authorization(scope["headers"]), container)
        body = await read_body(receive, _BODY_LIMIT)
        try:
            request: Any = None if body is None else orjson.loads(body)
        except orjson.JSONDecodeError:
            request = None
        method = request.get("method") if isinstance(request, dict) else None
        params = request.get("params") or {} if isinstance(request, dict) else None
        if not isinstance(method, str) or not isinstance(params, dict):
            raise StreamError(400, "a call has a method and params")
        result = await self._streams.call(container, method, params, CALL_SECONDS)
        await respond(send, 200, orjson.dumps({"result": result}), b"application/json")

    async def _binary(self, platform: str, scope: Scope, send: Send) -> None:
        self._streams.agent_token(authorization(scope["headers"]))
        file = resources.files("agent_gateway") / "agent" / "dist" / f"sockerless-agent-{platform}"
        if not file.is_file():
            raise StreamError(404, f"no agent for {platform}")
        await respond(send, 200, file.read_bytes(), b"application/octet-stream")
