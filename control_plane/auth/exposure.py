"""No listener beyond loopback without authentication: the rule every entry point asks before it binds."""

from __future__ import annotations

import ipaddress

from control_plane.auth.caller import Authenticate, single_tenant


class Exposed(Exception):
    """The listener would let anyone run containers. The message is one line for the user."""


def require_authentication(host: str, authenticate: Authenticate | None) -> None:
    """Raises Exposed when whoever reaches `host` would not be asked who they are.

    An empty host, `*` and wildcard addresses are every interface.
    """
    if authenticate is not None and authenticate is not single_tenant:
        return
    if not is_loopback(host):
        raise Exposed(
            f"{host or '*'}: refused, because whoever reaches it could run containers here without authentication; "
            "listen on 127.0.0.1 or a unix socket, or configure access"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
