"""Requests of the publisher's own, and answers that it reads before the client does: all through its inner app."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlencode

from agent_gateway.asgi import App, Message, Receive, Scope, Send

_LINE_LIMIT = 1024 * 1024
_PIECES = 64
_log = logging.getLogger(__name__)


class Kept:
    """An answer, kept until it is known what is to be done with it."""

    def __init__(self) -> None:
        self.status = 0
        """0: there was none."""
        self.body = b""
        self._messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        """An ASGI `send`."""
        self._messages.append(message)
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message.get("body", b"")

    async def pass_on(self, send: Send) -> None:
        """The client gets it."""
        for message in self._messages:
            await send(message)


async def get(app: App, path: str) -> Kept:
    """A small answer, whole; status 0 when there was none."""
    kept, over = Kept(), asyncio.Event()
    try:
        await app(_scope(path, {}), _nothing(over), kept)
    except ConnectionError:
        return Kept()
    finally:
        over.set()
    return kept


async def lines(app: App, path: str, query: Mapping[str, str]) -> AsyncIterator[bytes]:
    """An endless answer: an empty line when it begins, then its lines. Ends silently when it is cut or refused."""
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_PIECES)
    over = asyncio.Event()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] != 200:
                raise ConnectionAbortedError(f"the endpoint answered {message['status']}")
            await pieces.put(b"\n")
        elif message.get("body"):
            await pieces.put(message["body"])

    async def ask() -> None:
        try:
            await app(_scope(path, query), _nothing(over), send)
        except ConnectionError as error:
            _log.debug("%s ends: %s", path, error)
        except Exception:
            _log.exception("%s ends", path)
        await pieces.put(None)

    asking = asyncio.create_task(ask())
    try:
        rest = b""
        while (piece := await pieces.get()) is not None:
            *whole, rest = (rest + piece).split(b"\n")
            if len(rest) > _LINE_LIMIT:
                return
            for line in whole:
                yield line
    finally:
        over.set()
        asking.cancel()


def with_body(receive: Receive, body: bytes) -> Receive:
    """The request again, with this body."""
    unread = [body]

    async def again() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await receive()

    return again


def _scope(path: str, query: Mapping[str, str]) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": urlencode(query).encode(),
        "headers": [(b"host", b"publisher")],
        "client": None,
        "server": None,
        "extensions": {},
    }


def _nothing(over: asyncio.Event) -> Receive:
    """A request without a body, whose client stays until `over`."""
    unread: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if unread:
            return unread.pop()
        await over.wait()
        return {"type": "http.disconnect"}

    return receive
