"""The client half of a stream over a websocket: dialling, and dialling again when the connection breaks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from agent_gateway.client_half import ClientHalf, StreamError
from agent_gateway.protocol import CLOSE_OK, GRACE_SECONDS, REDIAL_FIRST_SECONDS, REDIAL_LAST_SECONDS
from agent_gateway.websockets import Socket, dial

Dial = Callable[[str, Socket, str], Awaitable[Any]]
"""Connects a socket to a URL with a ticket, as `websockets.dial`."""
Moved = Callable[[str], Awaitable[str]]
"""From the URL at which a stream was served to that at the relay which its agent is linked to now.

It is asked before each redial. StreamError below 500: the stream is over; any other: it is dialled where it was.
"""
_STOOD_SECONDS = 4.0
"""A connection that stood for so long was a good one, also when the agent has not spoken yet. Relays give attachments
that look for their agent five seconds."""
_FRONT_ENDS_BUSY = (408, 429)
"""What front ends say while they have no instance to pass a connection on to."""


class _StreamSocket(Socket):
    """One connection of the stream. A newer one takes its place when it breaks."""

    def __init__(self, carrier: WebsocketCarrier) -> None:
        super().__init__()
        self._carrier = carrier

    def opened(self) -> None:
        self._carrier.opened(self)

    def binary(self, view: memoryview) -> None:
        self._carrier.half.payload_received(view)

    def text(self, text: str) -> None:
        self._carrier.text(text)

    def lost(self, code: int) -> None:
        self._carrier.lost(self, code)


class WebsocketCarrier:
    """Keeps one stream connected to a relay."""

    def __init__(
        self, half: ClientHalf, url: str, ticket: str, connect: Dial = dial, moved: Moved | None = None
    ) -> None:
        """`connect` makes one connection; `moved` tells before each redial where the stream is served now."""
        self.half = half
        self._stood_since = 0.0
        self._connect = connect
        self._moved = moved
        self._url = url
        self._ticket = ticket
        self._socket: _StreamSocket | None = None
        self._was_connected = False
        self._redial: asyncio.Task[None] | None = None
        self._broken_since = 0.0

    async def dial(self) -> None:
        """The first connection. Raises StreamError."""
        self.half.carrier = self
        self.half.state.connected = False
        socket = _StreamSocket(self)
        try:
            await self._connect(self._url, socket, self._ticket)
        except OSError:
            raise StreamError(503, "the gateway can't be reached") from None
        except Exception as error:
            raise _refusal(error) or StreamError(502, "the gateway refused the stream") from None

    def take_over(self) -> None:
        """Goes on with a stream that another carrier has begun, at the place that `moved` tells."""
        self.half.carrier = self
        self._was_connected = True
        self.half.state.broken()
        self._redial = asyncio.get_running_loop().create_task(self._dial_again())

    def send_binary(self, data: bytes | memoryview) -> None:
        """One payload message."""
        if self._socket is not None:
            self._socket.send_binary(data)

    def send_text(self, text: str) -> None:
        """One control message."""
        if self._socket is not None:
            self._socket.send_text(text)

    def close(self, code: int = CLOSE_OK, reason: str = "") -> None:
        """Ends the stream from this end."""
        if self._redial is not None:
            self._redial.cancel()
            self._redial = None
        if self._socket is not None:
            self._socket.close(code, reason)
            self._socket = None

    def opened(self, socket: _StreamSocket) -> None:
        """A connection stands: the first, or one that resumes."""
        if self.half.ended:
            socket.close(CLOSE_OK)
            return
        self._socket = socket
        self._stood_since = asyncio.get_running_loop().time()
        if self._was_connected:
            socket.send_text(self.half.state.redialled())
        else:
            self._was_connected = True
            self.half.state.connected = True

    def text(self, text: str) -> None:
        """A control message; after the peer's `resume` the stream counts as healthy again."""
        self.half.text_received(text)
        if not self.half.state.waiting:
            self._broken_since = 0.0

    def lost(self, socket: _StreamSocket, code: int) -> None:
        """The connection ended: for good with 1000, else it is dialled again."""
        if socket is not self._socket:
            return
        self._socket = None
        if code == CLOSE_OK:
            self.half.closed(None)
        elif code in (1002, 1007, 1008, 1009):
            self.half.closed(StreamError(502, f"the gateway closed the stream ({code})"))
        elif self._redial is None and not self.half.ended:
            if asyncio.get_running_loop().time() - self._stood_since >= _STOOD_SECONDS:
                self._broken_since = 0.0
            self.half.state.broken()
            self._redial = asyncio.get_running_loop().create_task(self._dial_again())

    async def _dial_again(self) -> None:
        loop = asyncio.get_running_loop()
        self._broken_since = self._broken_since or loop.time()
        delay = 0.0
        try:
            while loop.time() - self._broken_since < GRACE_SECONDS:
                if delay:
                    await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(max(delay * 2, REDIAL_FIRST_SECONDS), REDIAL_LAST_SECONDS)
                try:
                    await self._find()
                    await self._connect(self._url, _StreamSocket(self), self._ticket)
                except Exception as error:
                    refusal = error if isinstance(error, StreamError) else _refusal(error)
                    if refusal is not None and refusal.status < 500 and not _passing(error, refusal):
                        self.half.closed(refusal)
                        return
                    continue
                if self._socket is not None or self.half.ended:
                    return
            self.half.closed(StreamError(503, "the connection to the gateway was lost"))
        finally:
            self._redial = None

    async def _find(self) -> None:
        """Asks for the stream's place. Raises StreamError when it has none any more."""
        if self._moved is None:
            return
        try:
            self._url = await self._moved(self._url)
        except StreamError as error:
            if error.status < 500 or not self._url:
                raise


def _passing(error: Exception, refusal: StreamError) -> bool:
    """Whether a refusal says nothing of the stream: a front end's, while no relay stands behind it."""
    if refusal.status in _FRONT_ENDS_BUSY:
        return True
    return not isinstance(error, StreamError) and not _message(error)


def _message(error: Exception) -> str:
    """What the relay said in an answer to a handshake; nothing when it was not a relay that answered."""
    try:
        body = orjson.loads(getattr(error, "raw_body", None) or b"")
    except orjson.JSONDecodeError:
        return ""
    return str(body.get("message", "")) if isinstance(body, dict) else ""


def _refusal(error: Exception) -> StreamError | None:
    """The relay's HTTP answer to a handshake, as a StreamError."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    return StreamError(int(response.status), _message(error) or f"the gateway answered {int(response.status)}")
