"""The PROXY protocol, version 2: what a TLS proxy says about a connection before its first byte.

Sans I/O: `parse` is given the bytes that have come so far. Layout and constants are those of HAProxy's
`doc/proxy-protocol.txt`: a signature, version and command, family, length; addresses; then TLVs, of which the one about
TLS counts here (`send-proxy-v2-ssl-cn`). Version 1, text, is not spoken: it cannot name a certificate.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
LONGEST = 4096
"""Bytes after the fixed part. HAProxy's own stay below 600; the length field would allow 64 KiB."""
_FIXED = 16
_VERSION = 2
_LOCAL, _PROXY = 0, 1
_ADDRESSES = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}
"""Family and transport → bytes: unspecified, TCP over IPv4 and IPv6, unix stream. Datagrams carry no Docker API."""
_TCP4, _TCP6 = 0x11, 0x21
_TLV_SSL = 0x20
_TLV_SSL_COMMON_NAME = 0x22
_CLIENT_SSL = 0x01
_CLIENT_CERTIFICATE = 0x02 | 0x04
"""Shown on this connection, or at an earlier one of the same TLS session, which this one resumes."""
_LONGEST_NAME = 128
"""Characters; X.509 itself allows 64 (ub-common-name)."""
_ESCAPED = frozenset('"+,;<>\\')


class Malformed(Exception):
    """What came is no header of version 2; the text is for our log."""


@dataclass(frozen=True, slots=True)
class Proxied:
    """Who is behind a connection, as the proxy says."""

    address: str = ""
    """The client's IP address; empty where the proxy has none to tell (its own health checks, unix sockets)."""
    port: int = 0
    subject: str = ""
    """Of the client certificate, when the proxy has verified one: `CN=…` (RFC 4514)."""


def parse(data: bytes | bytearray) -> tuple[Proxied, int] | None:
    """What the header at the beginning says, and how long it is; None while some of it is missing. Raises Malformed."""
    if data[: len(SIGNATURE)] != SIGNATURE[: len(data)]:
        raise Malformed("there is no PROXY protocol header, version 2")
    if len(data) < _FIXED:
        return None
    command, family, length = struct.unpack_from("!BBH", data, len(SIGNATURE))
    if command >> 4 != _VERSION or command & 15 not in (_LOCAL, _PROXY):
        raise Malformed(f"version and command are {command:#04x}")
    if length > LONGEST:
        raise Malformed(f"the header is {length} bytes long")
    end = _FIXED + length
    if len(data) < end:
        return None
    if command & 15 == _LOCAL:
        # The proxy speaks for itself: whatever else is there is to be ignored.
        return Proxied(), end
    return _proxied(family, bytes(data[_FIXED:end])), end


def subject_of(name: str) -> str:
    """The distinguished name that is this common name alone, escaped so that it cannot look like a longer one."""
    escaped = "".join("\\" + character if character in _ESCAPED else character for character in name)
    if name[:1] in ("#", " "):
        escaped = "\\" + escaped
    if len(name) > 1 and name[-1] == " ":
        escaped = escaped[:-1] + "\\ "
    return "CN=" + escaped


def _proxied(family: int, block: bytes) -> Proxied:
    size = _ADDRESSES.get(family)
    if size is None or len(block) < size:
        raise Malformed(f"family {family:#04x} with {len(block)} bytes")
    address, port = "", 0
    if family == _TCP4:
        address, port = str(ipaddress.IPv4Address(block[:4])), int.from_bytes(block[8:10], "big")
    elif family == _TCP6:
        six = ipaddress.IPv6Address(block[:16])
        address, port = str(six.ipv4_mapped or six), int.from_bytes(block[32:34], "big")
    tls = [value for kind, value in _tlvs(block[size:]) if kind == _TLV_SSL]
    if len(tls) > 1:
        raise Malformed("TLS is described twice")
    return Proxied(address, port, _subject(tls[0]) if tls else "")


def _subject(value: bytes) -> str:
    if len(value) < 5:
        raise Malformed("the description of TLS is cut short")
    client, verify = struct.unpack_from("!BI", value)
    names = [name for kind, name in _tlvs(value[5:]) if kind == _TLV_SSL_COMMON_NAME]
    if len(names) > 1:
        raise Malformed("there are two common names")
    # `verify` is 0 as well where no certificate was shown.
    if not names or verify or not client & _CLIENT_SSL or not client & _CLIENT_CERTIFICATE:
        return ""
    try:
        name = names[0].decode()
    except UnicodeDecodeError:
        return ""
    return subject_of(name) if 0 < len(name) <= _LONGEST_NAME and name.isprintable() else ""


def _tlvs(block: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(block):
        if len(block) - at < 3:
            raise Malformed("a TLV is cut short")
        kind, length = struct.unpack_from("!BH", block, at)
        at += 3
        if len(block) - at < length:
            raise Malformed("a TLV is longer than the header")
        yield kind, block[at : at + length]
        at += length
