"""PROXY protocol headers, written as a proxy would: what the gateway's parser is held against."""

from __future__ import annotations

import ipaddress
import struct

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
TCP4, TCP6, UDP4, UNIX = 0x11, 0x21, 0x12, 0x31
SSL, CONNECTION, SESSION = 1, 2, 4


def header(block: bytes = b"", *, command: int = 0x21, family: int = TCP4, length: int | None = None) -> bytes:
    size = len(block) if length is None else length
    return SIGNATURE + struct.pack("!BBH", command, family, size) + block


def addresses(source: str = "192.0.2.7", port: int = 50000) -> bytes:
    address = ipaddress.ip_address(source)
    target = ipaddress.ip_address("192.0.2.1" if address.version == 4 else "2001:db8::1")
    return address.packed + target.packed + struct.pack("!HH", port, 2376)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def tls(
    name: bytes | None = b"ci", client: int = SSL | CONNECTION | SESSION, verify: int = 0, more: bytes = b""
) -> bytes:
    names = b"" if name is None else tlv(0x22, name)
    return tlv(0x20, struct.pack("!BI", client, verify) + tlv(0x21, b"TLSv1.3") + names + more)


def certified(name: bytes = b"ci", source: str = "192.0.2.7") -> bytes:
    """What HAProxy's `send-proxy-v2-ssl-cn` sends for a client with a certificate."""
    return header(addresses(source) + tls(name))
