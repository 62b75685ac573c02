"""A request as it is passed on, and its answer as it comes back: what is for one hop only stays behind.

A response is read when its request's body has been sent, or refused (HTTP/1.1 as httpx speaks it); what needs both at
once is hijacked, and not forwarded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any

from agent_gateway.asgi import Receive
from agent_gateway.faults import Lost
from agent_gateway.forwarding.connections import Headers

if TYPE_CHECKING:
    import httpx

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


def forwarded_headers(headers: Headers) -> Headers:
    """Without those that are for the next hop only, and without `Host`."""
    named = {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}
    return [(k, v) for k, v in headers if k not in HOP_BY_HOP and k not in named and k != b"host"]


def has_body(headers: Headers) -> bool:
    """Whether a request with these headers brings a body."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() not in (b"", b"0"))
        for name, value in headers
    )


def start(answer: httpx.Response) -> dict[str, object]:
    """The head of an answer, for the client. The date is the front door's."""
    dropped = HOP_BY_HOP | {b"date"}
    headers = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in dropped]
    return {"type": "http.response.start", "status": answer.status_code, "headers": headers}


async def request_body(receive: Receive, sent: asyncio.Event) -> AsyncIterator[bytes]:
    """The body as it comes. Raises Lost when the client goes away in the middle."""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Lost("the client went away")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            sent.set()
            return


async def _gone(receive: Receive, sent: asyncio.Event) -> None:
    await sent.wait()
    while (await receive())["type"] == "http.request":
        pass
