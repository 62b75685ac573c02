"""Ports for servers that are told theirs before they start.

Not of the range the kernel takes ports of outgoing connections from: between the choice and the server's start one of
those would be taken by anybody's connection.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 10_000
_chosen: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now, and that was not chosen in this process before."""
    while True:
        port = random.SystemRandom().randrange(_LOWEST, _ephemeral())
        if port in _chosen:
            continue
        _chosen.add(port)
        try:
            with socket.create_server((host, port)):
                return port
        except OSError:
            continue


def _ephemeral() -> int:
    """The lowest port of outgoing connections."""
    try:
        return max(int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]), _LOWEST + 10_000)
    except (OSError, ValueError):
        return 32_768
