"""The server's end of a websocket against bytes as a network cuts them."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_gateway.protocol import MAX_BINARY, ProtocolViolation
from agent_gateway.websocket_frames import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    client_header,
    parse_header,
    server_header,
    unmasked,
)
from agent_gateway.websocket_server import READ_BUFFER, Connection
from agent_gateway.websockets import Socket, feed


class _Transport:
    """Records what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = ""

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return bool(self.closed)

    def close(self) -> None:
        self.closed = "close"

    def abort(self) -> None:
        self.closed = "abort"

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else default

    def fileno(self) -> int:
        return -1


class _Recorder(Socket):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, bytes]] = []
        self.refused: int | None = None

    def binary(self, view: memoryview) -> None:
        if self.seen and self.seen[-1][0] == "binary":
            self.seen[-1] = ("binary", self.seen[-1][1] + bytes(view))
        else:
            self.seen.append(("binary", bytes(view)))

    def text(self, text: str) -> None:
        self.seen.append(("text", text.encode()))

    def refuse(self, code: int, reason: str) -> None:
        self.closing, self.refused = True, code


def _connection() -> tuple[Connection, _Recorder, _Transport]:
    transport, recorder = _Transport(), _Recorder()
    connection = Connection(cast(asyncio.Transport, transport), recorder, memoryview(bytearray(READ_BUFFER)))
    connection.open(b"", ping=False)
    return connection, recorder, transport


def _masked(kind: int, data: bytes, key: bytes) -> bytes:
    header = client_header(kind, len(data))[:-4]
    return header + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(data))


def _wire(messages: list[tuple[bool, bytes, bytes]]) -> bytes:
    return b"".join(_masked(BINARY if binary else TEXT, data, key) for binary, data, key in messages)


_KEYS = st.sampled_from([b"\0\0\0\0", b"\1\2\3\4", b"\xff\0\xff\0"])
_MESSAGES = st.lists(st.tuples(st.booleans(), st.text(max_size=300).map(str.encode), _KEYS), max_size=8)


@given(_MESSAGES, st.lists(st.integers(0, 4000), max_size=20))
def test_messages_come_out_wherever_packets_end(messages: list[tuple[bool, bytes, bytes]], cuts: list[int]) -> None:
    connection, recorder, _ = _connection()
    wire = _wire(messages)
    for start, end in pairwise(sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})):
        feed(connection, wire[start:end])
    wanted: list[tuple[str, bytes]] = []
    for binary, data, _ in messages:
        if not binary:
            wanted.append(("text", data))
        elif data and wanted and wanted[-1][0] == "binary":
            wanted[-1] = ("binary", wanted[-1][1] + data)
        elif data:
            wanted.append(("binary", data))
    assert recorder.seen == wanted
    assert recorder.refused is None


def test_payload_goes_on_before_its_message_is_complete() -> None:
    connection, recorder, _ = _connection()
    feed(connection, client_header(BINARY, 1000) + b"x" * 10)
    assert recorder.seen == [("binary", b"x" * 10)]


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (server_header(BINARY, 4) + b"data", 1002),  # no mask
        (b"\x02\x84\0\0\0\0data", 1002),  # not the last fragment
        (b"\x80\x84\0\0\0\0data", 1002),  # a continuation
        (b"\xc2\x84\0\0\0\0data", 1002),  # an extension's bit
        (b"\x83\x80\0\0\0\0", 1002),  # an opcode that is none
        (client_header(PING, 200), 1002),
        (client_header(BINARY, MAX_BINARY + 1), 1009),
        (b"\x82\xff" + b"\xff" * 8, 1009),
    ],
)
def test_a_peer_against_the_protocol_is_refused_and_not_heard_again(wire: bytes, code: int) -> None:
    connection, recorder, _ = _connection()
    feed(connection, wire)
    feed(connection, client_header(BINARY, 4) + b"late")
    assert (recorder.refused, recorder.seen) == (code, [])


def test_text_that_is_none_is_refused() -> None:
    connection, recorder, _ = _connection()
    feed(connection, client_header(TEXT, 2) + b"\xff\xfe")
    assert recorder.refused == 1007


def test_a_ping_is_answered_with_its_payload() -> None:
    connection, _, transport = _connection()
    feed(connection, _masked(PING, b"are you there", b"abcd"))
    assert transport.written == b"\x8a\x0dare you there"


@pytest.mark.parametrize(("data", "answer"), [(b"\x03\xe9bye", 1001), (b"", 1000)])
def test_a_close_is_answered_and_ends_the_connection(data: bytes, answer: int) -> None:
    connection, _, transport = _connection()
    feed(connection, _masked(CLOSE, data, b"abcd"))
    assert transport.written[2:4] == answer.to_bytes(2, "big")
    assert transport.closed == "close"


@given(st.binary(max_size=2000), st.integers(0, 2000), st.binary(min_size=4, max_size=4))
def test_a_mask_comes_off_in_pieces(data: bytes, cut: int, key: bytes) -> None:
    hidden = memoryview(bytes(byte ^ key[i % 4] for i, byte in enumerate(data)))
    cut = min(cut, len(data))
    assert unmasked(hidden[:cut], key, 0) + unmasked(hidden[cut:], key, cut) == data


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536, MAX_BINARY])
def test_headers_are_read_as_they_are_written(length: int) -> None:
    header = client_header(BINARY, length)
    found = parse_header(header, MAX_BINARY)
    assert found is not None
    assert (found.kind, found.length, found.key, found.size) == (BINARY, length, b"", len(header))
    assert all(parse_header(header[:size], MAX_BINARY) is None for size in range(len(header)))


def test_a_header_that_promises_too_much_is_refused_before_its_mask_is_there() -> None:
    with pytest.raises(ProtocolViolation):
        parse_header(client_header(BINARY, MAX_BINARY + 1)[:10], MAX_BINARY)
