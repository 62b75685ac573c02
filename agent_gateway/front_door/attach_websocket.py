"""`GET /containers/{id}/attach/ws`: attach over a websocket. Output is never multiplexed there (moby's rule)."""

from __future__ import annotations

from agent_gateway.client_half import ClientHalf, StreamError
from agent_gateway.protocol import CLOSE_OK
from agent_gateway.websockets import Socket

_HEADER = 8
_PAUSE_BELOW = 256 * 1024


class StdcopyPayload:
    """Takes Docker's 8-byte frame headers out of a stream."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    def feed(self, data: memoryview) -> list[memoryview]:
        """The payload in `data`."""
        parts: list[memoryview] = []
        while data:
            if self._left:
                part = data[: self._left]
                parts.append(part)
                self._left -= len(part)
                data = data[len(part) :]
            else:
                missing = _HEADER - len(self._header)
                self._header += data[:missing]
                data = data[missing:]
                if len(self._header) == _HEADER:
                    self._left = int.from_bytes(self._header[4:], "big")
                    self._header = b""
        return parts


class WebsocketClient(Socket):
    """The Docker client's websocket."""

    def __init__(self, stream: WebsocketStream) -> None:
        super().__init__()
        self._stream = stream

    def opened(self) -> None:
        """The connection stands."""
        self._stream.bind(self)

    def binary(self, view: memoryview) -> None:
        """A binary message came in."""
        self._stream.stdin(bytes(view))

    def text(self, text: str) -> None:
        """A text message came in."""
        self._stream.stdin(text.encode())

    def lost(self, code: int) -> None:
        """The connection is gone."""
        self._stream.detach()

    def drained(self) -> None:
        """The peer reads on."""
        self._stream.acknowledge()

    def queued(self) -> int:
        """Bytes the client has not taken."""
        return 0 if self.ws is None else self.ws.underlying_transport.get_write_buffer_size()


class WebsocketStream(ClientHalf):
    """The client half of an attach over a websocket."""

    def __init__(self, *, tty: bool) -> None:
        super().__init__()
        self._frames = None if tty else StdcopyPayload()
        self._client: WebsocketClient | None = None
        self._early: list[bytes] = []
        self._finished = False

    def bind(self, client: WebsocketClient) -> None:
        """The websocket stands: what came early goes out."""
        self._client = client
        early, self._early = self._early, []
        for data in early:
            self.on_payload(data)
        if self._finished:
            client.close(CLOSE_OK)

    def stdin(self, data: bytes) -> None:
        """From the client; at the end of the window it is not read on."""
        if len(data) > self.room:
            if self._client is not None:
                self._client.close(1009, "too much at once")
            self.detach()
            return
        self.write(data)
        if self._client is not None and self.room < _PAUSE_BELOW:
            self._client.pause_reading()

    def on_payload(self, view: memoryview | bytes) -> None:
        """Payload from the agent."""
        if self._client is None:
            self._early.append(bytes(view))
            return
        for part in [memoryview(view)] if self._frames is None else self._frames.feed(memoryview(view)):
            self._client.send_binary(part)

    def undelivered(self) -> int:
        """What the client has not taken."""
        if self._client is None:
            return sum(map(len, self._early))
        return min(self._client.queued(), self.state.received - self.state.acknowledged)

    def on_room(self) -> None:
        """Stdin is read on when the window allows."""
        if self._client is not None and self.room >= _PAUSE_BELOW:
            self._client.resume_reading()

    def on_eof(self) -> None:
        """The output ends."""
        self._finish()

    def on_end(self, error: StreamError | None) -> None:
        """The stream ends."""
        self._finish()

    def _finish(self) -> None:
        self._finished = True
        if self._client is not None:
            self._client.close(CLOSE_OK)
