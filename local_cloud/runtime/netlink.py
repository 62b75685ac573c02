"""The few rtnetlink messages a container network needs (rtnetlink(7); numbers from include/uapi/linux).

Spawning ip(8) costs about two milliseconds a call; a message costs some tens of microseconds.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

_NETLINK_ROUTE = 0
_REQUEST, _ACK, _EXCL, _CREATE = 1, 4, 0x200, 0x400
_ERROR = 2
_NEWLINK, _DELLINK, _SETLINK, _NEWADDR, _NEWROUTE = 16, 17, 19, 20, 24
_UP = 1
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=BBBBBBBBI")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_NET_NS_FD, _IFLA_PROTINFO = 28, 12
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_BRPORT_ISOLATED = 33
_NESTED = 0x8000
_RTA_GATEWAY, _RTA_OIF = 5, 4
_TABLE_MAIN, _PROTOCOL_BOOT, _TYPE_UNICAST = 254, 3, 1
_SIOCGIFINDEX = 0x8933


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


class Netlink:
    """A netlink socket of the network namespace it was made in."""

    __slots__ = ("_sequence", "_socket")

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
        self._sequence = 0

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def index(self, name: str) -> int:
        """Index of a link in this socket's namespace, wherever the caller is; raises OSError."""
        answer = fcntl.ioctl(self._socket.fileno(), _SIOCGIFINDEX, struct.pack("16s24x", name.encode()))
        return int(struct.unpack_from("=i", answer, 16)[0])

    def _ask(self, *messages: tuple[int, int, bytes]) -> None:
        """Sends messages (type, flags, body) in one go and takes an acknowledgement of each; raises OSError."""
        packet = b""
        for kind, flags, body in messages:
            self._sequence += 1
            length = _HEADER.size + len(body)
            packet += _HEADER.pack(length, kind, flags | _REQUEST | _ACK, self._sequence, 0) + body
        self._socket.send(packet)
        waiting, first = len(messages), 0
        while waiting:
            data = self._socket.recv(65536)
            while len(data) >= _HEADER.size:
                length, kind, *_ = _HEADER.unpack_from(data)
                if kind == _ERROR:
                    first = first or -int(struct.unpack_from("=i", data, _HEADER.size)[0])
                    waiting -= 1
                data = data[(length + 3) & ~3 :]
        if first:
            raise OSError(first, os.strerror(first))

    def add_bridge(self, name: str, mac: bytes, mtu: int) -> None:
        """A bridge, up; one that exists already is kept. A fixed `mac` stays when ports come and go."""
        body = _LINK.pack(0, 0, 0, _UP, _UP) + _text(_IFLA_IFNAME, name)
        body += _attribute(_IFLA_ADDRESS, mac) + _number(_IFLA_MTU, mtu)
        body += _attribute(_IFLA_LINKINFO, _text(_INFO_KIND, "bridge"))
        try:
            self._ask((_NEWLINK, _CREATE | _EXCL, body))
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise

    def add_pair(self, name: str, master: int, peer: str, namespace: int, mtu: int, mac: bytes = b"") -> None:
        """A veth pair: `name`, up, in the bridge `master`; `peer`, down, in the network namespace (descriptor), with
        the hardware address `mac` or one that the kernel chooses."""
        inner = _LINK.pack(0, 0, 0, 0, 0) + _text(_IFLA_IFNAME, peer) + _number(_IFLA_NET_NS_FD, namespace)
        inner += _number(_IFLA_MTU, mtu) + (_attribute(_IFLA_ADDRESS, mac) if mac else b"")
        info = _text(_INFO_KIND, "veth") + _attribute(_INFO_DATA, _attribute(_VETH_PEER, inner))
        body = _LINK.pack(0, 0, 0, _UP, _UP) + _text(_IFLA_IFNAME, name) + _number(_IFLA_MTU, mtu)
        body += _number(_IFLA_MASTER, master) + _attribute(_IFLA_LINKINFO, info)
        self._ask((_NEWLINK, _CREATE | _EXCL, body))

    def isolate_port(self, index: int) -> None:
        """A bridge port that reaches the bridge's own address and beyond, but no other isolated port."""
        option = _attribute(_BRPORT_ISOLATED, b"\1")
        body = _LINK.pack(socket.AF_BRIDGE, 0, index, 0, 0) + _attribute(_IFLA_PROTINFO | _NESTED, option)
        self._ask((_SETLINK, 0, body))

    def add_address(self, index: int, address: str, prefix: int) -> None:
        """An IPv4 address on a link; one that is there already is kept."""
        try:
            self._ask((_NEWADDR, _CREATE | _EXCL, _address(index, address, prefix)))
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise

    def set_up_namespace(self, index: int, address: str, prefix: int, gateway: str) -> None:
        """In a new namespace: loopback and the link up, the address on it, the default route."""
        route = _ROUTE.pack(socket.AF_INET, 0, 0, 0, _TABLE_MAIN, _PROTOCOL_BOOT, 0, _TYPE_UNICAST, 0)
        route += _attribute(_RTA_GATEWAY, socket.inet_aton(gateway)) + _number(_RTA_OIF, index)
        self._ask(
            (_NEWLINK, 0, _LINK.pack(0, 0, 1, _UP, _UP)),
            (_NEWLINK, 0, _LINK.pack(0, 0, index, _UP, _UP)),
            (_NEWADDR, _CREATE | _EXCL, _address(index, address, prefix)),
            (_NEWROUTE, _CREATE | _EXCL, route),
        )

    def delete_link(self, index: int) -> None:
        """Deletes a link; its addresses and routes go with it."""
        self._ask((_DELLINK, 0, _LINK.pack(0, 0, index, 0, 0)))


def _address(index: int, address: str, prefix: int) -> bytes:
    packed = socket.inet_aton(address)
    return _ADDRESS.pack(socket.AF_INET, prefix, 0, 0, index) + _attribute(2, packed) + _attribute(1, packed)
