"""ASGI, as far as the gateway speaks it itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """The whole body; None when it is over the limit or the client went away."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > limit:
            return None
        if not message.get("more_body", False):
            return bytes(body)


async def respond(send: Send, status: int, body: bytes, content_type: bytes) -> None:
    """A whole response."""
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def respond_message(send: Send, status: int, message: str) -> None:
    """Docker's error form."""
    await respond(send, status, message_body(message), b"application/json")


def message_body(message: str) -> bytes:
    """`{"message": …}` and a newline, as moby ends its JSON bodies."""
    return orjson.dumps({"message": message}, option=orjson.OPT_APPEND_NEWLINE)
