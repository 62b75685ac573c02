"""The listeners' ports: chosen once, then the same after every restart, because images and clients name them."""

from __future__ import annotations

import errno
import json
import socket
from pathlib import Path


class PortTakenError(RuntimeError):
    """A remembered or wanted port is used by somebody else."""


def load(path: Path) -> dict[str, int]:
    """The ports of an earlier run, or nothing."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return {str(name): int(port) for name, port in found.items()} if isinstance(found, dict) else {}


def save(path: Path, ports: dict[str, int]) -> None:
    """Remembers the ports."""
    path.write_text(json.dumps(ports))


def listen(name: str, wanted: int, path: Path) -> socket.socket:
    """A loopback listener on a port (0: any); raises PortTakenError with the way out."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted connections inherit it. Without, each answer waits some 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind(("127.0.0.1", wanted))
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise PortTakenError(taken(name, wanted, path)) from None
    listener.setblocking(False)
    return listener


def taken(name: str, port: int, path: Path) -> str:
    """What to tell when a port cannot be had."""
    return (
        f"port {port} on 127.0.0.1, which the local cloud's {name} had before, is used by another process. "
        f"End that process, or remove {path} to choose new ports "
        "(images already named by the old one must be pushed again)."
    )
