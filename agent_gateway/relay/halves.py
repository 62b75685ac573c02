"""The two kinds of stream halves: a websocket, and the front door or control plane in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from agent_gateway.client_half import ClientHalf, StreamError
from agent_gateway.protocol import CLOSE_OK, CLOSE_POLICY, Error, serialise, serialise_control
from agent_gateway.relay.pairing import Pair, Side, StreamRefused
from agent_gateway.websockets import Socket

if TYPE_CHECKING:
    from agent_gateway.relay.links import Links


class WebsocketHalf(Socket):
    """A half that was dialled: always the agent's, and the client's when it is in another process."""

    redials = True

    def __init__(self, side: Side, find: Callable[[], Pair] | None) -> None:
        super().__init__()
        self._side = side
        self._find = find
        self.pair: Pair | None = None

    def opened(self) -> None:
        """The connection stands."""
        # The pair is made only now: a handshake that fails leaves nothing behind.
        try:
            self.pair = self._find() if self._find is not None else None
        except StreamRefused as refused:
            self.refuse(CLOSE_POLICY, refused.message)
            return
        if self.pair is not None:
            self.pair.place(self._side, self)

    def binary(self, view: memoryview) -> None:
        """A binary message came in."""
        if self.pair is not None:
            self.pair.binary(self._side, view)

    def text(self, text: str) -> None:
        """A text message came in."""
        if self.pair is not None:
            self.pair.text(self._side, text)

    def lost(self, code: int) -> None:
        """The connection is gone."""
        if self.pair is not None:
            self.pair.closed(self._side, self, code)

    def congested(self) -> None:
        """The peer reads more slowly than is written."""
        if self.pair is not None:
            self.pair.congested(self._side)

    def drained(self) -> None:
        """The peer reads on."""
        if self.pair is not None:
            self.pair.drained(self._side)

    def fail(self, status: int, message: str) -> None:
        """Docker's error, then the close."""
        self.send_text(serialise_control(Error(status, message)))
        self.close(CLOSE_OK)


class SpareHalf(WebsocketHalf):
    """An agent's half that was dialled before there was a stream for it."""

    def __init__(self, links: Links, container: str) -> None:
        super().__init__("agent", None)
        self._links = links
        self._container = container

    def opened(self) -> None:
        """The connection stands."""
        self._links.spare(self._container, self)

    def binary(self, view: memoryview) -> None:
        """A binary message came in."""
        if self.pair is None:
            self.refuse(CLOSE_POLICY, "no stream yet")
        else:
            self.pair.binary("agent", view)

    def text(self, text: str) -> None:
        """A text message came in."""
        if self.pair is None:
            self.refuse(CLOSE_POLICY, "no stream yet")
        else:
            self.pair.text("agent", text)

    def lost(self, code: int) -> None:
        """The connection is gone."""
        if self.pair is None:
            self._links.spare_lost(self._container, self)
        else:
            super().lost(code)

    def assign(self, pair: Pair) -> None:
        """The spare becomes the agent's half of a stream; the `open` goes over it."""
        self.pair = pair
        pair.opened = True
        self.send_text(serialise({"type": "open", "stream": pair.stream, "kind": pair.kind, "params": pair.params}))
        pair.place("agent", self)


class LocalHalf:
    """A client half in this process. It is its own carrier: what the owner sends goes straight into the pair."""

    redials = False

    def __init__(self, pair: Pair, half: ClientHalf, relocate: Callable[[], None] | None = None) -> None:
        """`relocate` carries the stream on at another gateway when this one sends it off."""
        self._pair = pair
        self._half = half
        self._relocate = relocate
        self._over = False

    # The pair's side.

    def send_binary(self, data: bytes | memoryview) -> None:
        """One payload message."""
        if not self._over:
            self._half.payload_received(data)

    def send_text(self, text: str) -> None:
        """One control message."""
        if not self._over:
            self._half.text_received(text)

    def close(self, code: int = CLOSE_OK, reason: str = "") -> None:
        """Ends the stream from this end."""
        if self._over:
            return
        self._over = True
        if code != CLOSE_OK and self._relocate is not None and not self._half.ended:
            self._relocate()
            return
        error = None if code == CLOSE_OK else StreamError(503, f"the stream was cut off: {reason or code}")
        self._half.closed(error)

    def fail(self, status: int, message: str) -> None:
        """Docker's error, then the end."""
        if not self._over:
            self._over = True
            self._half.closed(StreamError(status, message))

    def pause_reading(self) -> None:
        """The window bounds what the owner sends."""

    def resume_reading(self) -> None:
        """This half is read on."""


class LocalCarrier:
    """What the owner of a local half sends through."""

    def __init__(self, pair: Pair, half: LocalHalf) -> None:
        self._pair = pair
        self._half = half

    def send_binary(self, data: bytes | memoryview) -> None:
        """One payload message."""
        # While the agent is cut off nothing is kept here: its `resume` makes the owner send again.
        if self._pair.agent is not None or not self._pair.paired:
            self._pair.binary("client", data)

    def send_text(self, text: str) -> None:
        """One control message."""
        if self._pair.agent is not None or not self._pair.paired:
            self._pair.text("client", text)

    def close(self, code: int = CLOSE_OK, reason: str = "") -> None:
        """Ends the stream from this end."""
        self._half._over = True
        self._pair.closed("client", self._half, CLOSE_OK)
