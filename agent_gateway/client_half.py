"""The client half of a stream: a StreamState, the carrier that moves its messages, and what its owner is told.

The carrier is the relay in the same process or a websocket to it; the owner is the front door (a Docker client's
socket) or the control plane (`streams.Stream`). Everything here runs in the event loop's thread and nothing awaits.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from agent_gateway.protocol import (
    ACK_IDLE_SECONDS,
    CLOSE_OK,
    CLOSE_POLICY,
    Control,
    Eof,
    Error,
    Exit,
    ProtocolViolation,
    Resize,
    Result,
    parse_control,
)
from agent_gateway.stream_state import StreamState

_PIECE = 256 * 1024
"""Payload per binary message: a quarter of the window, so that it never stands still for one message."""


class StreamError(Exception):
    """A stream or call that failed, in Docker's terms: HTTP status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Carrier(Protocol):
    """Moves messages towards the agent. Messages sent while it is down are dropped: the resumption brings them."""

    def send_binary(self, data: bytes | memoryview) -> None:
        """One payload message."""
        ...

    def send_text(self, text: str) -> None:
        """One control message."""
        ...

    def close(self, code: int = CLOSE_OK, reason: str = "") -> None:
        """Ends the stream from this end. No callback follows."""
        ...


class ClientHalf:
    """Subclasses override the `on_…` methods and `undelivered`. `ended` says that nothing more will come."""

    def __init__(self) -> None:
        self.state = StreamState()
        self.carrier: Carrier | None = None
        self.ended = False
        self._finishing: Control | None = None
        self._timer: asyncio.TimerHandle | None = None

    # What the owner overrides.

    def on_payload(self, view: memoryview | bytes) -> None:
        """Payload from the agent. `view` is valid only during the call."""

    def on_result(self, result: Result) -> None:
        """The kind's result."""

    def on_eof(self) -> None:
        """No more payload will come."""

    def on_exit(self, code: int) -> None:
        """The process ended; `on_end(None)` follows."""

    def on_room(self) -> None:
        """The agent acknowledged something: the window may have room again."""

    def on_end(self, error: StreamError | None) -> None:
        """The stream is over, once: None after an orderly end."""

    def undelivered(self) -> int:
        """Payload bytes received that the owner's sink has not taken yet."""
        return 0

    # What the owner does.

    @property
    def room(self) -> int:
        """Bytes that `write` may be given now."""
        return 0 if self.ended else self.state.room

    def write(self, data: bytes) -> None:
        """Sends payload, `room` bytes at most."""
        if self.ended or not data:
            return
        for start in range(0, len(data), _PIECE):
            piece = data if len(data) <= _PIECE else data[start : start + _PIECE]
            if self.state.send(piece) and self.carrier is not None:
                self.carrier.send_binary(piece)

    def write_eof(self) -> None:
        """Half-closes towards the agent."""
        if not self.ended and not self.state.eof_sent:
            self._send(self.state.send_control(Eof()))

    def resize(self, rows: int, cols: int) -> None:
        """Tells the terminal size."""
        if not self.ended:
            self._send(self.state.send_control(Resize(rows, cols)))

    def detach(self) -> None:
        """Ends the stream from this end; for `exec` and `attach` the process goes on. No `on_end` follows."""
        if self.ended:
            return
        self.ended = True
        self._stop_timer()
        if self.carrier is not None:
            self.carrier.close(CLOSE_OK)

    def acknowledge(self, *, idle: bool = True) -> None:
        """Acknowledges what the sink has taken by now."""
        if not self.ended:
            self._send(self.state.ack_due(self.state.received - self.undelivered(), idle=idle))

    # What the carrier does.

    def payload_received(self, view: memoryview | bytes) -> None:
        """A binary message."""
        state = self.state
        try:
            fresh = 0 if self.ended else state.accept(len(view))
        except ProtocolViolation as violation:
            self._violated(violation)
            return
        if not fresh:
            return
        self.on_payload(view if fresh == len(view) else view[len(view) - fresh :])
        ack = None if self.ended else state.ack_due(state.received - self.undelivered())
        if ack is not None:
            self._send(ack)
        if self._timer is None and state.received > state.acknowledged:
            self._timer = asyncio.get_running_loop().call_later(ACK_IDLE_SECONDS, self._idle)

    def text_received(self, text: str | bytes | memoryview) -> None:
        """A text message."""
        if self.ended:
            return
        try:
            control = parse_control(text)
            wanted, answers = self.state.control_received(control)
        except ProtocolViolation as violation:
            self._violated(violation)
            return
        if self.carrier is not None:
            for answer in answers:
                if isinstance(answer, str):
                    self.carrier.send_text(answer)
                else:
                    self.carrier.send_binary(answer)
        if wanted:
            self._act(control)

    def closed(self, error: StreamError | None) -> None:
        """The carrier is closed for good: in order (None), or with the reason."""
        self._end(error)

    def _act(self, control: Control) -> None:
        match control:
            case Result():
                self.on_result(control)
            case Eof():
                self.on_eof()
            case Exit(code):
                self.on_exit(code)
                self.acknowledge()
                self._hang_up()
                self._end(None)
            case Error(status, message):
                self._hang_up()
                self._end(StreamError(status, message))
            case _:
                self.on_room()

    def _hang_up(self) -> None:
        if not self.ended and self.carrier is not None:
            self.carrier.close(CLOSE_OK)

    def _violated(self, violation: ProtocolViolation) -> None:
        if self.carrier is not None:
            self.carrier.close(CLOSE_POLICY, str(violation)[:100])
        self._end(StreamError(502, f"the agent broke the stream protocol: {violation}"))

    def _end(self, error: StreamError | None) -> None:
        if self.ended:
            return
        self.ended = True
        self._stop_timer()
        self.on_end(error)

    def _send(self, text: str | None) -> None:
        if text is not None and self.carrier is not None:
            self.carrier.send_text(text)

    def _idle(self) -> None:
        self._timer = None
        if self.ended:
            return
        self.acknowledge()
        if self.state.received > self.state.acknowledged:
            self._timer = asyncio.get_running_loop().call_later(ACK_IDLE_SECONDS, self._idle)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
