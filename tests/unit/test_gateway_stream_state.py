"""Two ends, a channel that loses whatever is in flight when it is cut: no byte lost or doubled."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_gateway.protocol import ACK_BYTES, WINDOW, Ack, Eof, Exit, ProtocolViolation, Resize, Resume, parse_control
from agent_gateway.stream_state import Message, StreamState


class End:
    def __init__(self, data: bytes) -> None:
        self.state = StreamState()
        self.source = data
        self.taken = 0
        self.got = bytearray()
        self.controls: list[object] = []
        self.wire: deque[Message] = deque()
        """What this end has put on the wire."""

    def produce(self, size: int) -> None:
        size = min(size, len(self.source) - self.taken, self.state.room)
        if size > 0:
            chunk = self.source[self.taken : self.taken + size]
            self.taken += size
            if self.state.send(chunk):
                self.wire.append(chunk)
        elif self.taken == len(self.source) and not self.state.eof_sent:
            text = self.state.send_control(Eof())
            if text is not None:
                self.wire.append(text)

    def consume(self, message: Message) -> None:
        if isinstance(message, str):
            control = parse_control(message)
            wanted, answers = self.state.control_received(control)
            self.wire.extend(answers)
            if wanted and isinstance(control, Eof | Exit):
                self.controls.append(control)
        elif fresh := self.state.accept(len(message)):
            self.got += message[len(message) - fresh :]

    def acknowledge(self, idle: bool) -> None:
        text = self.state.ack_due(len(self.got), idle=idle)
        if text is not None:
            self.wire.append(text)

    def cut(self) -> None:
        self.state.broken()

    def redial(self) -> None:
        if not self.state.connected:
            self.wire.append(self.state.redialled())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["produce", "move", "move", "move", "ack", "cut one", "cut both", "redial"]),
        st.booleans(),
        st.integers(1, 200_000),
    ),
    max_size=120,
)


def _move(sender: End, receiver: End, count: int) -> None:
    for _ in range(count):
        if not sender.wire or not sender.state.connected or not receiver.state.connected:
            return
        receiver.consume(sender.wire.popleft())


def _step(ends: tuple[End, End], what: str, first: bool, size: int) -> None:
    one, other = ends if first else ends[::-1]
    if what == "produce":
        one.produce(size)
    elif what == "move":
        _move(one, other, 1 + size % 4)
    elif what == "ack":
        one.acknowledge(idle=size % 2 == 0)
    elif what == "redial":
        one.redial()
    else:
        # Of what was under way, the relay has forwarded some of this end's, and still holds some of the other's.
        one.cut()
        if what == "cut both":
            other.cut()
        for _ in range(size % (len(one.wire) + 1)):
            one.wire.pop()
        for _ in range(size // 7 % (len(other.wire) + 1)):
            other.wire.popleft()


@settings(max_examples=500, deadline=None)
@given(STEPS, st.integers(0, 3 * WINDOW), st.integers(0, WINDOW))
def test_every_byte_arrives_once_whatever_is_cut(steps: list[tuple[str, bool, int]], there: int, back: int) -> None:
    pattern = bytes(range(251)) * (3 * WINDOW // 251 + 1)
    ends = (End(pattern[:there]), End(pattern[7 : 7 + back]))
    for what, first, size in steps:
        _step(ends, what, first, size)
        for end in ends:
            assert end.state.unacknowledged <= WINDOW
    for _ in range(2000):
        for end in ends:
            end.redial()
        for one, other in (ends, ends[::-1]):
            one.produce(100_000)
            _move(one, other, 1000)
            one.acknowledge(idle=True)
        if all(end.controls for end in ends) and not any(end.wire for end in ends):
            break
    assert ends[1].got == ends[0].source
    assert ends[0].got == ends[1].source
    assert all(end.controls.count(Eof()) == 1 for end in ends)


def test_sending_stops_at_the_window() -> None:
    state = StreamState()
    state.send(b"x" * WINDOW)
    assert state.room == 0
    state.control_received(Ack(100))
    assert state.room == 100


def test_acknowledgement_waits_for_a_quarter_of_the_window_or_idleness() -> None:
    state = StreamState()
    state.accept(ACK_BYTES)
    assert state.ack_due(ACK_BYTES - 1) is None
    assert state.ack_due(10, idle=True) == '{"ack":10}'
    assert state.ack_due(10, idle=True) is None
    assert state.ack_due(10 + ACK_BYTES) == f'{{"ack":{10 + ACK_BYTES}}}'


def test_the_exit_goes_again_after_the_bytes_it_followed() -> None:
    state = StreamState()
    state.send(b"abcdef")
    state.send_control(Exit(3))
    _, answers = state.control_received(Resume(4, id="q"))
    assert [m if isinstance(m, str) else bytes(m) for m in answers] == [
        '{"resume":{"received":0,"answer":"q"}}',
        b"ef",
        '{"exit":{"code":3}}',
    ]


def test_the_last_size_goes_again() -> None:
    state = StreamState()
    state.broken()
    assert state.send_control(Resize(1, 2)) is None
    state.send_control(Resize(24, 80))
    state.redialled()
    _, answers = state.control_received(Resume(0))
    assert answers == ['{"resize":[24,80]}']


@pytest.mark.parametrize("control", [Ack(5), Resume(5, id="x")])
def test_what_was_never_sent_is_not_acknowledged(control: Ack | Resume) -> None:
    state = StreamState()
    state.send(b"1234")
    with pytest.raises(ProtocolViolation):
        state.control_received(control)


def test_a_peer_that_ignores_the_window_is_found_out() -> None:
    state = StreamState()

    def flood() -> None:
        for _ in range(17):
            state.accept(WINDOW)

    with pytest.raises(ProtocolViolation):
        flood()
