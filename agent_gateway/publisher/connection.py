"""One connection to a published port: the client's socket on one side, a stream to the container on the other."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable

from agent_gateway.client_half import ClientHalf, StreamError
from agent_gateway.control_plane_client import Refused
from agent_gateway.websockets import write_view

_READ_SIZE = 256 * 1024
"""asyncio reads that much at once; reading stops when the window has less room."""
_WRITE_HIGH = 640 * 1024
_WRITE_LOW = 512 * 1024
"""Half of the window: what was taken is acknowledged while the client still has the other half to read."""
_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: a close resets the connection."""
_log = logging.getLogger(__name__)

Dial = Callable[[ClientHalf], Awaitable[None]]
"""Makes a half the client half of a stream to the container's port. Raises Refused, StreamError."""


class DialledStream(ClientHalf):
    """Payload goes to the client; each side's half-close is the other's."""

    def __init__(self, connection: PublishedConnection) -> None:
        super().__init__()
        self._connection = connection

    def on_payload(self, view: memoryview | bytes) -> None:
        """From the container."""
        self._connection.deliver(view)

    def undelivered(self) -> int:
        """What the client has not taken."""
        return self._connection.queued()

    def on_room(self) -> None:
        """The client is read on when the window allows."""
        self._connection.room_again()

    def on_eof(self) -> None:
        """The container's process has half-closed."""
        self._connection.half_close()

    def on_end(self, error: StreamError | None) -> None:
        """The stream is over."""
        self._connection.finish(error)


class PublishedConnection(asyncio.Protocol):
    """What a Docker user's programs connect to."""

    def __init__(self, dial: Dial, standing: set[PublishedConnection], most: int) -> None:
        """`standing`: the connections there are, of which `most` may be."""
        self._dial = dial
        self._standing = standing
        self._most = most
        self._stream = DialledStream(self)
        self._transport: asyncio.Transport | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._fd = -1
        self._paused = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing is read before the stream is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._fd = transport.get_extra_info("socket").fileno()
        transport.pause_reading()
        transport.set_write_buffer_limits(_WRITE_HIGH, _WRITE_LOW)
        if len(self._standing) >= self._most:
            _log.warning("a connection to a published port is refused: there are %d", len(self._standing))
            self.reset()
            return
        self._standing.add(self)
        self._dialling = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        try:
            await self._dial(self._stream)
        except (Refused, StreamError) as refused:
            _log.info("a connection to a published port is refused: %s", refused.message)
            self.reset()
            return
        except Exception:
            self.reset()
            raise
        if self._transport is None:
            self._stream.detach()
            return
        self.room_again()

    def data_received(self, data: bytes) -> None:
        """From the client."""
        self._stream.write(data)
        if self._stream.room < _READ_SIZE and self._transport is not None and not self._stream.ended:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client half-closes: it still reads."""
        self._stream.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._transport = None
        self._standing.discard(self)
        if self._dialling is not None:
            self._dialling.cancel()
        self._stream.detach()

    def resume_writing(self) -> None:
        """The client has read: that much is acknowledged."""
        self._stream.acknowledge()

    def deliver(self, view: memoryview | bytes) -> None:
        """Payload to the client."""
        if self._transport is not None and not self._transport.is_closing():
            write_view(self._transport, self._fd, (view,))

    def queued(self) -> int:
        """Bytes the client's socket has not taken."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def room_again(self) -> None:
        """The window has room: the client is read on."""
        if self._paused and self._transport is not None and self._stream.room >= _READ_SIZE:
            self._paused = False
            self._transport.resume_reading()

    def half_close(self) -> None:
        """The client gets an end behind what it was sent, and may go on itself."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def finish(self, error: StreamError | None) -> None:
        """In order after both ends have half-closed, else as a break."""
        if error is not None:
            self.reset()
        elif self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """The client sees the connection broken."""
        transport = self._transport
        if transport is not None:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            transport.abort()
