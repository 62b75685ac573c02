"""Listening sockets for the ports that a container publishes: on loopback, whatever else the machine's networks are."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from typing import Any

Ports = dict[str, list[dict[str, str]]]
"""Docker's form: `{"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}`."""

_BACKLOG = 128
_TRIES = 16
"""For a port that is free on both loopback addresses."""
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_IN_USE = "port is already allocated"


class Taken(Exception):
    """A port that cannot be had: the address, and why in moby's words or the system's."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"{address}: {reason}")
        self.address = address
        self.reason = reason


class Sockets:
    """The listening sockets of one container. Connections wait in them until they are accepted."""

    def __init__(self) -> None:
        self.by_port: list[tuple[int, socket.socket]] = []
        """The container's port, and a socket whose connections are for it."""
        self.ports: Ports = {}

    def close(self) -> None:
        """Listens no more; connections that wait are reset."""
        for _, sock in self.by_port:
            sock.close()
        self.by_port.clear()

    def _leave(self, socks: Sequence[socket.socket]) -> None:
        """To the container's process."""
        for sock in socks:
            sock.close()
        self.by_port = [(port, sock) for port, sock in self.by_port if sock not in socks]

    def _add(self, key: str, socks: Sequence[socket.socket]) -> None:
        for sock in socks:
            host, number = sock.getsockname()[:2]
            self.by_port.append((_private(key), sock))
            self.ports.setdefault(key, []).append({"HostIp": host, "HostPort": str(number)})


def reserve(wanted: Sequence[Mapping[str, Any]], *, shared: bool = False) -> Sockets:
    """Listens for what the control plane wants (docs/wire-protocol.md, section 10). Raises Taken, ValueError.

    `shared`: containers have this machine's network. A port that is published under its own number is then listened
    for by the container's process, and is only looked at.
    """
    sockets = Sockets()
    try:
        # Who asks for a certain port goes before those who take any.
        for entry in sorted(wanted, key=lambda entry: not entry["first"]):
            key, first, last = str(entry["port"]), int(entry["first"]), int(entry["last"])
            found = _first_free(entry["hosts"], first, last)
            sockets._add(key, found)
            if shared and first == last == _private(key):
                sockets._leave(found)
    except BaseException:
        sockets.close()
        raise
    return sockets


def again(ports: Ports, *, shared: bool = False) -> tuple[Sockets, list[Taken]]:
    """Listens where it was listened before; what cannot be had any more is left out, and told."""
    sockets, missing = Sockets(), []
    for key, entries in ports.items():
        for entry in entries:
            if shared and int(entry["HostPort"]) == _private(key):
                continue
            try:
                sockets._add(key, [_listening(entry["HostIp"], int(entry["HostPort"]))])
            except (OSError, ValueError) as error:
                missing.append(_taken(entry["HostIp"], int(entry["HostPort"]), error))
    return sockets, missing


def _private(key: str) -> int:
    """Of `80/tcp`."""
    return int(key.partition("/")[0])


def _first_free(hosts: Sequence[str], first: int, last: int) -> list[socket.socket]:
    """One port on all the hosts: the first of the range that is free, or any when it begins with 0."""
    if not hosts:
        raise ValueError("no address is wanted")
    candidates = range(first, last + 1) if first else [0] * _TRIES
    fault: Taken | None = None
    for number in candidates:
        try:
            return _on_all(hosts, number)
        except Taken as taken:
            fault = taken
    if fault is None or len(candidates) == 1 or not first:
        raise fault or Taken(f"{hosts[0]}:{first}", _IN_USE)
    raise Taken(f"{_shown(hosts[0])}:{first}-{last}", "all ports are allocated")


def _on_all(hosts: Sequence[str], number: int) -> list[socket.socket]:
    """A machine may have no ::1; where several addresses stand for one binding, it does without."""
    found: list[socket.socket] = []
    for host in hosts:
        try:
            sock = _listening(host, number)
        except OSError as error:
            if error.errno in _NO_SUCH_ADDRESS and found:
                continue
            for sock in found:
                sock.close()
            raise _taken(host, number, error) from None
        found.append(sock)
        number = sock.getsockname()[1]
    return found


def _listening(host: str, number: int) -> socket.socket:
    if not ipaddress.ip_address(host).is_loopback:
        raise ValueError("published ports are on loopback")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, number))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _taken(host: str, number: int, error: OSError | ValueError) -> Taken:
    reason = str(error)
    if isinstance(error, OSError):
        reason = _IN_USE if error.errno == errno.EADDRINUSE else (error.strerror or reason).lower()
    return Taken(f"{_shown(host)}:{number}", reason)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
