"""A hijacked Docker connection: the client's socket on one side, the client half of a stream on the other."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

from agent_gateway.client_half import ClientHalf, StreamError
from agent_gateway.protocol import Result
from agent_gateway.websockets import write_view

_READ_SIZE = 256 * 1024
"""asyncio reads that much at once; reading stops when the window has less room."""
_WRITE_HIGH = 640 * 1024
_WRITE_LOW = 512 * 1024
"""Half of the window: what was taken is acknowledged while the client still has the other half to read."""
_LINGER_SECONDS = 10.0
_STDOUT, _STDERR, _SYSTEM_ERROR = 1, 2, 3
_NOT_SERVED = 501


class HijackedStream(ClientHalf):
    """Payload from the agent goes to `sink` (or is kept until there is one); `answered` is set by its first message."""

    def __init__(
        self, *, farewell: Callable[[str], bytes] | None = None, lament: Callable[[str], bytes] | None = None
    ) -> None:
        """`farewell` makes what the client is shown when there is no agent that could serve the stream (501).

        `lament` the same when the way to the agent is lost for good (502 to 504), so that the output's rest is missing.
        """
        super().__init__()
        self._farewell = farewell
        self._lament = lament
        self.answered = asyncio.Event()
        self.error: StreamError | None = None
        self.finished = False
        """The agent will send nothing more."""
        self._early: list[bytes] = []
        self._early_size = 0
        self._client: RawClient | None = None

    def bind(self, client: RawClient) -> None:
        """The client's socket is there: what came early goes out."""
        self._client = client
        for data in self._early:
            client.deliver(data)
        self._early.clear()
        self._early_size = 0
        if self.finished or self.ended:
            client.finish()
        else:
            self.acknowledge(idle=False)
            client.room_again()

    def on_payload(self, view: memoryview | bytes) -> None:
        """Payload from the agent."""
        if self._client is not None:
            self._client.deliver(view)
        else:
            self._early.append(bytes(view))
            self._early_size += len(view)
            self.answered.set()

    def undelivered(self) -> int:
        """What the client has not taken."""
        return self._early_size if self._client is None else self._client.queued()

    def on_result(self, result: Result) -> None:
        """The process has started."""
        self.answered.set()

    def on_room(self) -> None:
        """Stdin is read on when the window allows."""
        if self._client is not None:
            self._client.room_again()

    def on_eof(self) -> None:
        """The output ends."""
        self._finish()

    def on_end(self, error: StreamError | None) -> None:
        """The stream ends."""
        self.error = error
        if error is not None and error.status == _NOT_SERVED and self._farewell is not None:
            self.on_payload(self._farewell(error.message))
        elif error is not None and error.status > _NOT_SERVED and self._client is not None and self._lament is not None:
            self._client.deliver(self._lament(error.message))
        self._finish()

    def _finish(self) -> None:
        self.finished = True
        self.answered.set()
        if self._client is not None:
            self._client.finish()


class RawClient(asyncio.Protocol):
    """Docker's raw stream on the client's TCP or unix socket."""

    def __init__(self, stream: HijackedStream, last_words: bytes = b"", *, hold_seconds: float = 0.0) -> None:
        self._stream = stream
        self._last_words = last_words
        self._hold_seconds = hold_seconds
        self._transport: asyncio.Transport | None = None
        self._fd = -1
        self._read_paused = False
        self._finished = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The front door has answered the request; the connection is ours."""
        self._transport = transport
        transport.set_write_buffer_limits(_WRITE_HIGH, _WRITE_LOW)
        if transport.get_extra_info("ssl_object") is None:
            self._fd = transport.get_extra_info("socket").fileno()
        if self._hold_seconds:
            asyncio.get_running_loop().call_later(self._hold_seconds, self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            if self._last_words:
                transport.write(self._last_words)
            self._stream.bind(self)

    def data_received(self, data: bytes) -> None:
        """Stdin."""
        if not self._finished:
            self._stream.write(data)
            if self._stream.room < _READ_SIZE and self._transport is not None and not self._stream.ended:
                self._read_paused = True
                self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client half-closes: it still reads."""
        self._stream.write_eof()
        if self._finished and self._transport is not None:
            self._transport.close()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: it detaches."""
        self._finished = True
        self._stream.detach()

    def resume_writing(self) -> None:
        """The client has read: that much is acknowledged."""
        self._stream.acknowledge()

    def deliver(self, view: memoryview | bytes) -> None:
        """Payload to the client."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._fd >= 0:
            write_view(transport, self._fd, (view,))
        else:
            transport.write(bytes(view))

    def queued(self) -> int:
        """Bytes the client's socket has not taken."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def room_again(self) -> None:
        """The window has room: stdin is read on."""
        if self._read_paused and self._transport is not None and self._stream.room >= _READ_SIZE:
            self._read_paused = False
            self._transport.resume_reading()

    def finish(self) -> None:
        """No more output: half-close, and drop what the client still sends, lest a reset eats the output's end."""
        transport = self._transport
        if self._finished or transport is None or transport.is_closing():
            return
        self._finished = True
        if self._read_paused:
            self._read_paused = False
            transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._close)
        else:
            transport.close()

    def _close(self) -> None:
        transport = self._transport
        # A slow client may still be reading; it is left alone until it has everything.
        if transport is not None and not transport.is_closing():
            if transport.get_write_buffer_size():
                asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._close)
            else:
                transport.close()


def stdout_text(text: str, *, tty: bool) -> bytes:
    """A text of ours on the stream, as moby puts it there: in a stdcopy frame of stdout unless there is a TTY."""
    data = text.encode() + b"\r\n"
    return data if tty else struct.pack("!BxxxL", _STDOUT, len(data)) + data


def failure_text(text: str, *, tty: bool) -> bytes:
    """A stream that broke, as moby says it: clients fail on it, where a bare end would look like a success to them."""
    data = text.encode()
    return data + b"\r\n" if tty else struct.pack("!BxxxL", _SYSTEM_ERROR, len(data)) + data


def stderr_text(text: str, *, tty: bool) -> bytes:
    """A text of ours for the user of an attach that no agent serves."""
    data = text.encode() + (b"\r\n" if tty else b"\n")
    return data if tty else struct.pack("!BxxxL", _STDERR, len(data)) + data
