"""One end of a stream, without I/O: counting, window, acknowledgement, resumption.

docs/wire-protocol.md, section 3. The owner tells it what it wants to send and what came in, and puts on the wire what
it is told to. Nothing in here waits, and nothing knows which kind of socket carries the stream.
"""

from __future__ import annotations

import secrets
from collections import deque

from agent_gateway.protocol import (
    ACK_BYTES,
    CLOSE_PROTOCOL_ERROR,
    WINDOW,
    Ack,
    Control,
    Eof,
    Error,
    Exit,
    ProtocolViolation,
    Resize,
    Result,
    Resume,
    serialise_control,
)

Message = bytes | memoryview | str
"""What goes on the wire: bytes as a binary message, str as a text message."""

_RECEIVE_LIMIT = 16 * WINDOW
"""Unacknowledged bytes above which the peer plainly ignores the window. Each resumption opens it anew."""
_QUESTIONS_KEPT = 16


class StreamState:
    """The counters of one end. It begins connected, or waiting for its first connection (`connected=False`)."""

    __slots__ = (
        "_asked",
        "_controls",
        "_kept",
        "_kept_from",
        "_resize",
        "_skip",
        "acked",
        "acknowledged",
        "connected",
        "eof_received",
        "eof_sent",
        "received",
        "sent",
        "waiting",
    )

    def __init__(self, *, connected: bool = True) -> None:
        self.sent = 0
        """Payload bytes taken over from our source."""
        self.acked = 0
        """Of those, acknowledged by the peer."""
        self.received = 0
        self.acknowledged = 0
        """The last count we acknowledged."""
        self.connected = connected
        self.waiting = ""
        """The id of our unanswered `resume`: we redialled, said what we have, and wait for the peer's."""
        self.eof_sent = False
        self.eof_received = False
        self._kept: deque[bytes] = deque()
        self._kept_from = 0
        self._controls: deque[tuple[int, str]] = deque()
        self._resize: str | None = None
        self._asked: dict[str, int] = {}
        """Our last questions: what we had received when we asked."""
        self._skip = 0
        """Payload bytes that come a second time, see `_resumed`."""

    @property
    def room(self) -> int:
        """Payload bytes that may be sent before an acknowledgement must come."""
        return WINDOW - (self.sent - self.acked)

    @property
    def unacknowledged(self) -> int:
        """Payload bytes sent and not acknowledged by the peer (or not received by it, at the last resumption)."""
        return self.sent - self.acked

    @property
    def _on_the_wire(self) -> bool:
        return self.connected and not self.waiting

    def send(self, data: bytes) -> bool:
        """Takes payload over. True: put it on the wire now; False: it goes out with the resumption."""
        self._kept.append(data)
        self.sent += len(data)
        return self._on_the_wire

    def send_control(self, control: Eof | Result | Exit | Error | Resize) -> str | None:
        """Takes a control over. The text to put on the wire now, or None (it goes out with the resumption)."""
        text = serialise_control(control)
        if isinstance(control, Resize):
            self._resize = text
        else:
            self.eof_sent = self.eof_sent or isinstance(control, Eof)
            self._controls.append((self.sent, text))
        return text if self._on_the_wire else None

    def accept(self, size: int) -> int:
        """Payload came in. How many of its bytes, counted from its end, are new; 0 when the peer will send it again."""
        if self.waiting:
            return 0
        if self._skip:
            known = min(self._skip, size)
            self._skip -= known
            size -= known
        self.received += size
        if self.received - self.acknowledged > _RECEIVE_LIMIT:
            raise ProtocolViolation("more payload than the window allows")
        return size

    def control_received(self, control: Control) -> tuple[bool, list[Message]]:
        """A control came in: whether the owner should act on it, and what to put on the wire in answer."""
        match control:
            case Ack(count):
                self._acked(count)
                return True, []
            case Resume():
                return True, self._resumed(control)
            case Eof():
                first = not self.waiting and not self.eof_received
                self.eof_received = self.eof_received or first
                return first, []
            case Result() | Exit():
                return not self.waiting, []
            case _:
                return True, []

    def ack_due(self, delivered: int, *, idle: bool = False) -> str | None:
        """The acknowledgement to send now, given the payload bytes the sink has taken since the beginning."""
        fresh = delivered - self.acknowledged
        if fresh <= 0 or not self._on_the_wire or (fresh < ACK_BYTES and not idle):
            return None
        self.acknowledged = delivered
        return f'{{"ack":{delivered}}}'

    def broken(self) -> None:
        """The socket is gone, not closed with 1000."""
        self.connected = False
        self.waiting = ""

    def redialled(self) -> str:
        """A new socket is there. The text to send first; nothing else goes out until the peer's `resume`."""
        self.connected = True
        self.waiting = secrets.token_hex(8)
        self._skip = 0
        self._asked[self.waiting] = self.received
        if len(self._asked) > _QUESTIONS_KEPT:
            del self._asked[next(iter(self._asked))]
        return serialise_control(Resume(self.received, id=self.waiting))

    def _acked(self, count: int) -> None:
        if count > self.sent:
            raise ProtocolViolation("acknowledged more than was sent")
        if count <= self.acked:
            return
        self.acked = count
        self._forget(count)

    def _forget(self, before: int) -> None:
        kept = self._kept
        while kept and self._kept_from + len(kept[0]) <= before:
            self._kept_from += len(kept.popleft())
        while self._controls and self._controls[0][0] < before:
            self._controls.popleft()

    def _resumed(self, resume: Resume) -> list[Message]:
        if resume.answer and resume.answer != self.waiting:
            # Late: to a question of an earlier socket, or to one that the peer's own question answered before. But the
            # peer has gone back to the offset it named, so what we got since comes again.
            if not self.waiting and resume.answer in self._asked:
                self._skip = self.received - self._asked[resume.answer]
            return []
        if not self.acked <= resume.received <= self.sent:
            raise ProtocolViolation("resume at an offset that is not held", CLOSE_PROTOCOL_ERROR)
        answers: list[Message] = []
        if resume.id or not (resume.answer or self.waiting):
            answers.append(serialise_control(Resume(self.received, answer=resume.id)))
        self.waiting = ""
        self._skip = 0
        if self.acknowledged:
            # The last acknowledgement may have died with the old socket.
            answers.append(serialise_control(Ack(self.acknowledged)))
        self._acked(resume.received)
        answers += self._replay()
        if self._resize is not None:
            answers.append(self._resize)
        return answers

    def _replay(self) -> list[Message]:
        offset = self.acked
        messages: list[Message] = []
        controls = deque(self._controls)
        position = self._kept_from
        for chunk in self._kept:
            end = position + len(chunk)
            while controls and controls[0][0] <= position:
                messages.append(controls.popleft()[1])
            messages.append(chunk if position >= offset else memoryview(chunk)[offset - position :])
            position = end
        messages += [text for _, text in controls]
        return messages
