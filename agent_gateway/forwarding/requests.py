"""Every request that is not hijacked: sent on as it comes; long answers are continued when they are cut."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from agent_gateway.asgi import Receive, Scope, Send, read_body, respond_message
from agent_gateway.control_plane_client import Refused
from agent_gateway.faults import Lost
from agent_gateway.forwarding.asked import Asked
from agent_gateway.forwarding.connections import Connections, Content
from agent_gateway.forwarding.exchange import forwarded_headers, has_body, request_body, start, while_client_stays
from agent_gateway.forwarding.upstream import Credentials, Upstream, chunks
from agent_gateway.front_end import from_front_end, front_end_refusal

if TYPE_CHECKING:
    import httpx

    from agent_gateway.forwarding.continued import Continued

_WHOLE_BODY = 256 * 1024
"""Bodies up to this are read before they are sent, so that they can be sent again; others are never held."""
_CREATE = "/containers/create"
_TWICE_IS_ONCE = re.compile(
    rf"{_CREATE}|/containers/[^/]+/(?:start|stop|wait|resize|exec)|/exec/[^/]+/resize|/auth|/images/[^?]+/tag"
)
"""POSTs that change nothing when they are done a second time (an exec that is created twice is started once)."""
ATTEMPT = b"sockerless-attempt"
"""Header of a create that may be sent again: the second finds the container of the first."""


class Requests:
    """The ASGI app behind a front door whose control plane is elsewhere."""

    def __init__(self, connections: Connections, credentials: Callable[[Scope], Credentials]) -> None:
        """`credentials`: of whoever sent a request. Connections are shared by all, credentials by nobody."""
        self._connections = connections
        self._credentials = credentials

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. A client that goes away takes its request with it."""
        sent = asyncio.Event()
        upstream = Upstream(self._connections, self._credentials(scope))
        try:
            await while_client_stays(_serve(upstream, scope, receive, send, sent), receive, sent)
        except Refused as refused:
            await respond_message(send, refused.status, refused.message)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._connections.aclose()


async def _serve(upstream: Upstream, scope: Scope, receive: Receive, send: Send, sent: asyncio.Event) -> None:
    content: Content = None
    if has_body(scope["headers"]):
        content = await _content(scope, receive, sent)
    else:
        sent.set()
    if not isinstance(content, AsyncIterator):
        # Some clients send `{}` with every POST; a body means nothing to these requests.
        continued = _continued(upstream, Asked.of(scope))
        if continued is not None:
            await continued.serve(send)
            return
    await _forward(upstream, scope, content, send)


def _continued(upstream: Upstream, asked: Asked) -> Continued | None:
    from agent_gateway.forwarding.events import FollowedEvents
    from agent_gateway.forwarding.logs import FollowedLogs
    from agent_gateway.forwarding.waits import ContinuedWait

    reference, verb = asked.of_container
    if asked.method == "POST" and verb == "wait" and asked.version >= (1, 30):
        return ContinuedWait(upstream, asked, reference)
    if asked.method == "GET" and verb == "logs" and asked.flag("follow"):
        return FollowedLogs(upstream, asked, reference)
    if asked.method == "GET" and asked.path == "/events":
        return FollowedEvents(upstream, asked)
    return None


async def _forward(upstream: Upstream, scope: Scope, content: Content, send: Send) -> None:
    target = scope["raw_path"]
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    headers = forwarded_headers(scope["headers"])
    again = not isinstance(content, AsyncIterator) and _may_repeat(scope)
    if again and _makes_container(scope) and not any(name == ATTEMPT for name, _ in headers):
        headers = [*headers, (ATTEMPT, secrets.token_hex(16).encode())]
    try:
        answer = await upstream.ask(scope["method"], target.decode("latin-1"), headers, content, again=again)
    except Lost as lost:
        raise upstream.lost(lost) from None
    try:
        await _pass_on(upstream, answer, send)
    finally:
        await answer.aclose()


async def _pass_on(upstream: Upstream, answer: httpx.Response, send: Send) -> None:
    """The answer as it comes. Raises ConnectionAbortedError when it is cut, so that the client sees a cut too."""
    if answer.status_code >= 300 and from_front_end(answer):
        raise front_end_refusal(upstream.url, answer.status_code, http2=upstream.connections.offers_http2)
    await send(start(answer))
    try:
        async for chunk in chunks(answer):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except Lost as lost:
        raise ConnectionAbortedError(str(lost)) from None
    await send({"type": "http.response.body", "body": b""})


async def _content(scope: Scope, receive: Receive, sent: asyncio.Event) -> AsyncIterator[bytes] | bytes:
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if not length.isdigit() or int(length) > _WHOLE_BODY:
        return request_body(receive, sent)
    body = await read_body(receive, _WHOLE_BODY)
    sent.set()
    if body is None:
        raise ConnectionAbortedError("the client went away")
    return body


def _may_repeat(scope: Scope) -> bool:
    if scope["method"] in ("GET", "HEAD"):
        return True
    return scope["method"] == "POST" and _TWICE_IS_ONCE.fullmatch(_unversioned(scope)) is not None


def _makes_container(scope: Scope) -> bool:
    return scope["method"] == "POST" and _unversioned(scope) == _CREATE


def _unversioned(scope: Scope) -> str:
    return re.sub(r"^/v\d+\.\d+", "", scope["path"])
