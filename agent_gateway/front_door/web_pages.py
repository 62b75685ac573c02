"""Keeps web pages away from listeners that ask for no token.

A page in the user's browser can send requests to this machine's ports: across origins (they carry `Origin`, and the
browser only keeps the answer from the page), or as its own after its name was made to resolve to 127.0.0.1 (they carry
that name as `Host`). No Docker client sends an `Origin`, or a public name to a loopback listener.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal")


def refusal(scope: Any) -> str | None:
    """Why a request is not served; None for one that no page can have sent. Unix sockets are out of pages' reach."""
    server = scope.get("server")
    if server is None or server[1] is None:
        return None
    host = b""
    for name, value in _named(scope["headers"]):
        if name == b"origin":
            return "requests of web pages are not served (the request has an Origin header)"
        host = value
    if not _private(host.decode("latin-1")):
        return "requests to a public host name are not served: name this machine localhost, or by its address"
    return None


def _named(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    return (header for header in headers if header[0] in (b"origin", b"host"))


def _private(host: str) -> bool:
    """An address, or a name that the public DNS cannot have."""
    if host.startswith("["):
        return True
    name = host.rpartition(":")[0] if ":" in host else host
    name = name.rstrip(".").lower()
    if "." not in name or name.endswith(_PRIVATE_SUFFIXES):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
