"""The front door of a control plane in another process: requests and responses are forwarded as they come.

A response is read when its request's body has been sent, or refused (HTTP/1.1 as httpx speaks it); what needs both at
once is hijacked, and not forwarded.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any

from agent_gateway.asgi import Receive, Scope, Send, respond_message
from agent_gateway.faults import Lost
from agent_gateway.front_end import from_front_end, front_end_refusal
from agent_gateway.tickets import ATTESTED
from agent_gateway.uploads import NoHttp2, upload

if TYPE_CHECKING:
    import httpx

_VIA = (b"via", b"1.1 sockerless-gateway")
"""Tells a control plane on the same machine that the request is not this machine's own."""
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
    }
)


_LARGE = 1024 * 1024
"""Bytes of a body that takes a connection of its own over HTTP/2: front ends bound those of HTTP/1.1."""


class Forward:
    """An ASGI app in front of a control plane at a URL. Nothing is buffered."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._client: Any = None
        self._http2 = _http2_context() if url.startswith("https:") else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, there and back. A client that goes away takes its request with it."""
        sent = asyncio.Event()
        await while_client_stays(self._exchange(scope, receive, send, sent), receive, sent)

    async def _exchange(self, scope: Scope, receive: Receive, send: Send, sent: asyncio.Event) -> None:
        import httpx

        if self._client is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=128)
            # Waits and followed logs are silent for hours.
            timeout = httpx.Timeout(None, connect=10.0)
            self._client = httpx.AsyncClient(limits=limits, timeout=timeout, follow_redirects=False)
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        brings_body = has_body(scope["headers"])
        if not brings_body:
            sent.set()
        content = request_body(receive, sent) if brings_body else None
        try:
            answer = await self._send(scope, (scope["raw_path"] + query).decode("latin-1"), content)
        except (httpx.HTTPError, OSError, Lost):
            await respond_message(send, 503, "the control plane can't be reached")
            return
        if answer.status_code >= 300 and from_front_end(answer):
            await answer.aclose()
            refusal = front_end_refusal(self._url, answer.status_code, http2=self._http2 is not None)
            await respond_message(send, refusal.status, refusal.message)
            return
        try:
            # The date is the front door's.
            dropped = HOP_BY_HOP | {b"date"}
            headers = [(k.lower(), v) for k, v in answer.headers.raw if k.lower() not in dropped]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
            async for chunk in answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await answer.aclose()

    async def _send(self, scope: Scope, target: str, content: AsyncIterator[bytes] | None) -> httpx.Response:
        url, headers = self._url + target, [*forwarded_headers(scope["headers"]), _VIA]
        if content is not None and self._http2 is not None and _is_large(scope["headers"]):
            try:
                return await upload(url, self._http2, None, scope["method"], headers, content)
            except NoHttp2:
                self._http2 = None
        request = self._client.build_request(scope["method"], url, headers=headers, content=content)
        answer: httpx.Response = await self._client.send(request, stream=True)
        return answer

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


async def while_client_stays(work: Coroutine[Any, Any, None], receive: Receive, sent: asyncio.Event) -> None:
    """Does the work of a request until its client goes away; `sent` is set once the request's body is forwarded."""
    exchange = asyncio.create_task(work)
    watch = asyncio.create_task(_gone(receive, sent))
    try:
        await asyncio.wait({exchange, watch}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not exchange.done():
            exchange.cancel()
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError):
            await exchange


def forwarded_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Without those that are for the next hop only, and without `Host`."""
    named = {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}
    named.discard(ATTESTED)  # a gateway's own word, which a client must not be able to take out
    return [(k, v) for k, v in headers if k not in HOP_BY_HOP and k not in named and k != b"host"]


def has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a request with these headers brings a body."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() not in (b"", b"0"))
        for name, value in headers
    )


def _is_large(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a body is, or may be: one that comes in chunks has no length."""
    length = next((value for name, value in headers if name == b"content-length"), b"")
    return not length.isdigit() or int(length) > _LARGE


def _http2_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def request_body(receive: Receive, sent: asyncio.Event) -> AsyncIterator[bytes]:
    """The body as it comes. Raises httpx.ReadError when the client goes away in the middle."""
    import httpx

    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise httpx.ReadError("the client went away")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            sent.set()
            return


async def _gone(receive: Receive, sent: asyncio.Event) -> None:
    await sent.wait()
    while (await receive())["type"] == "http.request":
        pass
