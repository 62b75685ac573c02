"""One request and its response, as uvicorn's H11Protocol has them, without its copies of large bodies."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import RequestResponseCycle

from agent_gateway.asgi import App, respond_message
from agent_gateway.websockets import write_view

_LARGE = 16 * 1024
"""Below this h11's copies cost less than what is done without them."""


class Cycle(RequestResponseCycle):
    """A chunked request body is kept in parts: one copy, when the app takes it. Large parts of a chunked response body
    go to the kernel as they are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False
        self.parts: list[memoryview] = []
        self.size = 0
        self._chunked = False
        self._fd = -1

    async def run_asgi(self, app: App) -> None:  # type: ignore[override]
        """Serves the request. An answer that cannot be completed is cut off, so that its client sees that."""

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            except asyncio.CancelledError:
                self.disconnected = True  # the server stops and cuts the connection itself
            except ConnectionAbortedError:
                if not self.response_started:
                    raise
                self.disconnected = True
                self.transport.close()

        await super().run_asgi(cast(Any, guarded))

    async def send_500_response(self) -> None:
        """An app that failed before it answered, in Docker's form."""
        await respond_message(cast(Any, self.send), 500, "internal error")

    async def receive(self) -> Any:
        """ASGI's receive."""
        message: Any = await super().receive()
        if self.parts and message["type"] == "http.request":
            message["body"] = b"".join(self.parts)
            self.parts.clear()
            self.size = 0
        return message

    async def send(self, message: Any) -> None:
        """ASGI's send."""
        if not self.response_started and message["type"] == "http.response.start":
            self._chunked = self._is_chunked(message)
        elif self._chunked and len(message.get("body", b"")) >= _LARGE and not self.response_complete:
            await self._send_chunk(message["body"])
            if message.get("more_body", False):
                return
            message = {"type": "http.response.body", "body": b""}
        await super().send(message)

    async def _send_chunk(self, body: bytes) -> None:
        """A chunk past h11, whose state does not depend on it."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if not self.disconnected and not self.transport.is_closing():
            write_view(self.transport, self._fd, (b"%x\r\n" % len(body), body, b"\r\n"))

    def _is_chunked(self, start: Any) -> bool:
        """Whether h11 will write the response's body in chunks, to a plain socket."""
        if self.scope["method"] == "HEAD" or self.scope["http_version"] != "1.1":
            return False
        if start["status"] in (204, 304) or start["status"] < 200:
            return False
        if any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in start.get("headers", [])):
            return False
        sock = self.transport.get_extra_info("socket")
        if sock is None or self.transport.get_extra_info("ssl_object") is not None:
            return False
        self._fd = sock.fileno()
        return True
