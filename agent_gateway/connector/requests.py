"""Every request that is not hijacked: sent on as it comes; long answers are continued when they are cut."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlencode

from agent_gateway.asgi import Receive, Scope, Send, read_body, respond_message
from agent_gateway.connector.upstream import Headers, Upstream, chunks
from agent_gateway.control_plane_client import Refused
from agent_gateway.faults import Lost
from agent_gateway.front_door.forward import (
    HOP_BY_HOP,
    forwarded_headers,
    has_body,
    request_body,
    while_client_stays,
)
from agent_gateway.front_end import from_front_end, front_end_refusal

if TYPE_CHECKING:
    import httpx

_WHOLE_BODY = 256 * 1024
"""Bodies up to this are read before they are sent, so that they can be sent again."""
_ROUTE = re.compile(r"(/v(\d{1,3})\.(\d{1,3}))?(/.*)")
_OF_CONTAINER = re.compile(r"/containers/([^/]+)/([a-z]+)")
_CREATE = "/containers/create"
_TWICE_IS_ONCE = re.compile(
    rf"{_CREATE}|/containers/[^/]+/(?:start|stop|wait|resize|exec)|/exec/[^/]+/resize|/auth|/images/[^?]+/tag|/internal/v1/tickets"
)
"""POSTs that change nothing when they are done a second time (an exec that is created twice is started once)."""
_CUT_ANSWERS = 5
ATTEMPT = b"sockerless-attempt"
"""Header of a create that may be sent again: the second finds the container of the first."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A Docker request, taken apart."""

    method: str
    prefix: str
    """`/v1.50`, or nothing."""
    version: tuple[int, int]
    path: str
    query: dict[str, str]
    headers: Headers

    @classmethod
    def of(cls, scope: Scope) -> Asked:
        """From an ASGI scope. Of a parameter that comes twice the first counts, as everywhere here."""
        found = _ROUTE.fullmatch(scope["raw_path"].decode("latin-1"))
        prefix, version, path = "", (1, 99), "/"
        if found is not None:
            prefix, path = found[1] or "", found[4]
            if found[1]:
                version = int(found[2]), int(found[3])
        query: dict[str, str] = {}
        for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
            query.setdefault(name, value)
        return cls(scope["method"], prefix, version, path, query, forwarded_headers(scope["headers"]))

    @property
    def of_container(self) -> tuple[str, str]:
        """Reference and verb of `/containers/{reference}/{verb}`; empty for other paths."""
        found = _OF_CONTAINER.fullmatch(self.path)
        return (unquote(found[1]), found[2]) if found is not None else ("", "")

    def flag(self, name: str) -> bool:
        """A boolean parameter, by Docker's rule."""
        return self.query.get(name, "").strip().lower() not in {"", "0", "no", "false", "none"}

    def target(self, path: str, query: dict[str, str] | None = None) -> str:
        """A path of the same API version."""
        text = urlencode(query or {})
        return self.prefix + path + (f"?{text}" if text else "")

    def container(self, reference: str, verb: str, query: dict[str, str] | None = None) -> str:
        """`/containers/{reference}/{verb}`."""
        return self.target(f"/containers/{quote(reference, safe='')}/{verb}", query)


class Requests:
    """The ASGI app behind the connector's front door."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. A client that goes away takes its request with it."""
        sent = asyncio.Event()
        try:
            await while_client_stays(self._serve(scope, receive, send, sent), receive, sent)
        except Refused as refused:
            await respond_message(send, refused.status, refused.message)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, sent: asyncio.Event) -> None:
        brings_body = has_body(scope["headers"])
        if not brings_body:
            sent.set()
            continued = self._continued(Asked.of(scope))
            if continued is not None:
                await continued.serve(send)
                return
        content: AsyncIterator[bytes] | bytes | None = None
        if brings_body:
            content = await _content(scope, receive, sent)
        await self._forward(scope, content, send)

    def _continued(self, asked: Asked) -> Continued | None:
        from agent_gateway.connector.events import FollowedEvents
        from agent_gateway.connector.logs import FollowedLogs
        from agent_gateway.connector.waits import ContinuedWait

        reference, verb = asked.of_container
        if asked.method == "POST" and verb == "wait" and asked.version >= (1, 30):
            return ContinuedWait(self._upstream, asked, reference)
        if asked.method == "GET" and verb == "logs" and asked.flag("follow"):
            return FollowedLogs(self._upstream, asked, reference)
        if asked.method == "GET" and asked.path == "/events":
            return FollowedEvents(self._upstream, asked)
        return None

    async def _forward(self, scope: Scope, content: AsyncIterator[bytes] | bytes | None, send: Send) -> None:
        target = scope["raw_path"]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        headers = forwarded_headers(scope["headers"])
        again = not isinstance(content, AsyncIterator) and _may_repeat(scope)
        if again and _makes_container(scope):
            headers = [*headers, (ATTEMPT, secrets.token_hex(16).encode())]
        tries = _CUT_ANSWERS if again and scope["method"] != "HEAD" else 0
        while True:
            try:
                answer = await self._upstream.ask(
                    scope["method"], target.decode("latin-1"), headers, content, again=again
                )
            except Lost as lost:
                raise Refused(502, f"the connection to {self._upstream.address.url} was lost: {lost}") from None
            try:
                if tries and _is_small(answer):
                    await answer.aread()  # a small answer that is cut behind its head is asked for again
                await self.pass_on(answer, send)
                return
            except _cuts():
                if not tries:
                    raise
                tries -= 1
            finally:
                await answer.aclose()

    async def pass_on(self, answer: httpx.Response, send: Send) -> None:
        """The answer as it comes. Raises ConnectionAbortedError when it is cut, so that the client sees a cut too."""
        if answer.status_code >= 300 and from_front_end(answer):
            raise front_end_refusal(self._upstream.address.url, answer.status_code, http2=self._upstream.offers_http2)
        await send(start(answer))
        try:
            async for chunk in chunks(answer):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except Lost as lost:
            raise ConnectionAbortedError(str(lost)) from None
        await send({"type": "http.response.body", "body": b""})


class Continued:
    """An answer that goes on over as many connections as it takes. Subclasses do."""

    async def serve(self, send: Send) -> None:
        """The whole answer."""
        raise NotImplementedError


def start(answer: httpx.Response) -> dict[str, object]:
    """The head of an answer, for the client. The date is the front door's."""
    dropped = HOP_BY_HOP | {b"date"}
    headers = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in dropped]
    return {"type": "http.response.start", "status": answer.status_code, "headers": headers}


async def _content(scope: Scope, receive: Receive, sent: asyncio.Event) -> AsyncIterator[bytes] | bytes:
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if not length.isdigit() or int(length) > _WHOLE_BODY:
        return request_body(receive, sent)
    body = await read_body(receive, _WHOLE_BODY)
    sent.set()
    if body is None:
        raise ConnectionAbortedError("the client went away")
    return body


def _is_small(answer: httpx.Response) -> bool:
    length = answer.headers.get("content-length", "")
    return length.isdigit() and int(length) <= _WHOLE_BODY and "content-encoding" not in answer.headers


def _cuts() -> tuple[type[Exception], ...]:
    """What reading an answer that is cut raises, before anything of it was passed on."""
    import httpx

    return (httpx.HTTPError, httpx.StreamError)


def _may_repeat(scope: Scope) -> bool:
    if scope["method"] in ("GET", "HEAD"):
        return True
    return scope["method"] == "POST" and _TWICE_IS_ONCE.fullmatch(_unversioned(scope)) is not None


def _makes_container(scope: Scope) -> bool:
    return scope["method"] == "POST" and _unversioned(scope) == _CREATE


def _unversioned(scope: Scope) -> str:
    return re.sub(r"^/v\d+\.\d+", "", scope["path"])
