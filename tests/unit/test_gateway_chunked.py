from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_gateway.front_door.chunked import LARGE, ChunkedBody, FixedBody, MalformedChunk, rewrite_large


def _encode(chunks: list[bytes]) -> bytes:
    return b"".join(b"%x;ext=1\r\n%b\r\n" % (len(c), c) for c in chunks if c)


def _feed(body: ChunkedBody | FixedBody, wire: bytes, cuts: list[int]) -> tuple[bytes, bytes | None]:
    got, rest = b"", None
    points = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    for start, end in pairwise(points):
        if rest is not None:
            rest += wire[start:end]
            continue
        parts, rest = body.feed(wire[start:end])
        got += b"".join(parts)
    return got, rest


@given(st.lists(st.binary(max_size=300), max_size=10), st.lists(st.integers(0, 5000), max_size=20))
def test_chunks_come_out_wherever_packets_end(chunks: list[bytes], cuts: list[int]) -> None:
    wire = _encode(chunks) + b"0\r\nX: y\r\n\r\nGET /"
    got, rest = _feed(ChunkedBody(), wire, cuts)
    assert got == b"".join(chunks)
    assert rest == b"0\r\nX: y\r\n\r\nGET /"


@given(st.binary(min_size=1, max_size=300), st.lists(st.integers(0, 400), max_size=10))
def test_a_fixed_body_ends_where_it_said(data: bytes, cuts: list[int]) -> None:
    got, rest = _feed(FixedBody(len(data)), data + b"NEXT", cuts)
    assert got == data
    assert rest == b"0\r\n\r\nNEXT"


@pytest.mark.parametrize(
    "wire",
    [
        b"zz\r\n",
        b"-1\r\nx",
        b"\r\n",
        b"5\nhello",
        b"5\r\nhelloXX",
        b"0x5\r\nhello\r\n",
        b"1" * 16 + b"\r\n",
        b"5;" + b"e" * 5000,
        b" 5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"1_0\r\n",
    ],
)
def test_malformed_framing_is_refused(wire: bytes) -> None:
    with pytest.raises(MalformedChunk):
        ChunkedBody().feed(wire)


def test_only_one_large_length_is_rewritten() -> None:
    head = b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nA: b\r\n\r\n"
    rewritten, length = rewrite_large(head % LARGE)
    assert length == LARGE
    assert rewritten == b"PUT /x HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\nA: b\r\n\r\n"
    assert rewrite_large(head % (LARGE - 1)) == (head % (LARGE - 1), 0)
    for twice in (b"Transfer-Encoding: chunked", b"content-length: 5"):
        smuggled = (head % LARGE)[:-2] + twice + b"\r\n\r\n"
        assert rewrite_large(smuggled) == (smuggled, 0)
