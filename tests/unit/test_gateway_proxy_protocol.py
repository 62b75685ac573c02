"""The PROXY protocol's parser: what it takes, when it waits, and everything it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_gateway.front_door.proxy_protocol import LONGEST, SIGNATURE, Malformed, Proxied, parse, subject_of
from tests.proxy_headers import CONNECTION, SESSION, SSL, TCP6, UDP4, UNIX, addresses, certified, header, tls, tlv

CLIENT = Proxied("192.0.2.7", 50000)
CERTIFIED = Proxied("192.0.2.7", 50000, "CN=ci")


def whole(data: bytes) -> Proxied:
    found = parse(data + b"GET / HTTP/1.1\r\n")
    assert found is not None
    assert found[1] == len(data)
    return found[0]


def test_addresses() -> None:
    assert whole(header(addresses())) == CLIENT
    assert whole(header(addresses("2001:db8::7", 7), family=TCP6)) == Proxied("2001:db8::7", 7)
    # A dual-stack proxy writes IPv4 clients so; they are one client with one address.
    mapped = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 7])
    assert whole(header(mapped + bytes(16) + b"\xc3\x50\x09\x48", family=TCP6)) == CLIENT
    assert whole(header(bytes(216) + tls(), family=UNIX)) == Proxied(subject="CN=ci")
    assert whole(header(tls(), family=0)) == Proxied(subject="CN=ci")
    assert whole(header(family=0)) == Proxied()


def test_tlvs_that_do_not_concern_us_are_passed_over() -> None:
    others = tlv(0x01, b"http/1.1") + tlv(0x02, b"docker.example.com") + tlv(0x04, b"") + tlv(0xE0, bytes(300))
    assert whole(header(addresses() + others + tls(more=tlv(0x25, b"RSA2048")) + others)) == CERTIFIED


@pytest.mark.parametrize("client", [SSL | CONNECTION | SESSION, SSL | CONNECTION, SSL | SESSION])
def test_a_verified_certificate(client: int) -> None:
    assert whole(header(addresses() + tls(client=client))) == CERTIFIED


@pytest.mark.parametrize(
    "described",
    [
        tls(verify=1),
        tls(verify=0x01000000),
        tls(client=SSL),  # verify is 0 where no certificate was shown
        tls(client=CONNECTION | SESSION),
        tls(client=0xF8 | SSL),
        tls(name=None),
        tls(name=b""),
        tls(name=b"\xff\xfe"),
        tls(name=b"ci\x00"),
        tls(name=b"ci\r\nX: y"),
        tls(name="c\u202ei".encode()),
        tls(name=b"x" * 129),
    ],
)
def test_what_is_no_verified_certificate(described: bytes) -> None:
    assert whole(header(addresses() + described)) == CLIENT


def test_the_proxys_own_connections_are_nobodys() -> None:
    assert whole(header(command=0x20, family=0)) == Proxied()
    assert whole(header(addresses() + tls(), command=0x20)) == Proxied()
    assert whole(header(b"\x01", command=0x20, family=0xFF)) == Proxied()


@pytest.mark.parametrize(
    "data",
    [
        b"GET /_ping HTTP/1.1\r\n",
        b"PROXY TCP4 192.0.2.7 192.0.2.1 50000 2376\r\n",
        b"\x16\x03\x01",
        b"\r\n\r\n\x00\r\nQUIX",
        header(addresses(), command=0x11),
        header(addresses(), command=0x31),
        header(addresses(), command=0x22),
        header(addresses(), family=UDP4),
        header(addresses(), family=0x10),
        header(addresses(), family=0x41),
        header(addresses()[:-1]),
        header(addresses(), family=TCP6),
        header(length=LONGEST + 1),
        header(length=0xFFFF),
        header(addresses() + b"\x20"),
        header(addresses() + b"\x20\x00"),
        header(addresses() + b"\x20\x00\x01"),
        header(addresses() + tlv(0x20, b"\x07\x00\x00\x00")),
        header(addresses() + tlv(0x20, b"\x07\x00\x00\x00\x00\x22\x00")),
        header(addresses() + tlv(0x20, b"\x07\x00\x00\x00\x00\x22\x00\x09ci")),
        header(addresses() + tls() + tls(b"root")),
        header(addresses() + tls(more=tlv(0x22, b"root"))),
    ],
)
def test_what_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse(data)


def test_the_longest_header_is_taken() -> None:
    block = addresses() + tls()
    filler = tlv(0x04, bytes(LONGEST - len(block) - 3))
    assert whole(header(block + filler)) == CERTIFIED


@given(st.integers(0, len(certified()) - 1))
def test_a_part_is_waited_for(size: int) -> None:
    assert parse(certified()[:size]) is None
    assert parse(bytearray(certified()[:size])) is None


def test_a_wrong_byte_is_seen_at_once() -> None:
    for place in range(len(SIGNATURE)):
        begun = bytearray(SIGNATURE[: place + 1])
        begun[place] ^= 0x20
        with pytest.raises(Malformed):
            parse(begun)


@given(st.binary(max_size=300), st.sampled_from([b"", SIGNATURE, SIGNATURE + b"\x21\x11", header(addresses())[:14]]))
def test_garbage_is_refused_or_waited_for(garbage: bytes, begun: bytes) -> None:
    try:
        found = parse(begun + garbage)
    except Malformed:
        return
    if found is not None:
        assert 16 <= found[1] <= len(begun + garbage)


@given(st.binary(max_size=200))
def test_no_garbage_becomes_a_certificate_unless_all_flags_say_so(garbage: bytes) -> None:
    unverified = tlv(0x20, b"\x07\x00\x00\x00\x01" + garbage)
    try:
        found = parse(header(addresses() + unverified))
    except Malformed:
        return
    assert found is not None
    assert found[0].subject == ""


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("ci", "CN=ci"),
        ("ci,O=acme", "CN=ci\\,O=acme"),
        ('a+b;c<d>e"f\\g', 'CN=a\\+b\\;c\\<d\\>e\\"f\\\\g'),
        ("#1", "CN=\\#1"),
        (" x ", "CN=\\ x\\ "),
        (" ", "CN=\\ "),
        ("Bøb Smith", "CN=Bøb Smith"),
    ],
)
def test_subjects_are_escaped(name: str, subject: str) -> None:
    assert subject_of(name) == subject


@given(st.text(min_size=1, max_size=64), st.text(min_size=1, max_size=64))
def test_two_names_are_two_subjects(one: str, other: str) -> None:
    assert (subject_of(one) == subject_of(other)) == (one == other)
