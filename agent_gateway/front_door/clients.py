"""Who a front door's client is, as a TLS proxy says, and how the control plane is told.

Two ways. A proxy that speaks HTTP writes the subject of a verified certificate into a header, with the secret that
proves it is the proxy. One that passes bytes on (TCP mode) says it in the PROXY protocol, before HTTP begins; then this
gateway vouches for it with a token of a minute. Anybody can write headers, so those about certificates are refused
where no proof comes with them.
"""

from __future__ import annotations

import hmac
from typing import Any

from agent_gateway.asgi import Scope
from agent_gateway.control_plane_client import Refused
from agent_gateway.front_door.proxy_protocol import Proxied
from agent_gateway.tickets import ATTESTED, mint_attestation

_SUBJECT = b"x-sockerless-client-certificate"
_PROOF = b"x-sockerless-proxy"
_NOBODY = Proxied()


class Clients:
    """Of one front door."""

    def __init__(self, key: bytes = b"", gateway: str = "", *, proxy_secret: str = "") -> None:
        """`key` signs what this gateway vouches for; `proxy_secret` is what a proxy that speaks HTTP shows."""
        self._key = key
        self._gateway = gateway
        self._secret = proxy_secret.encode()

    def of(self, scope: Scope) -> Proxied:
        """Whoever sent this request. Raises Refused for headers that a client must not send."""
        proxied: Proxied | None = scope["extensions"].get("proxied")
        found = [header for header in scope["headers"] if header[0] in (_SUBJECT, _PROOF, ATTESTED)]
        if not found:
            return proxied or _NOBODY
        shown = dict(found)
        if proxied is not None or ATTESTED in shown or len(shown) < len(found) or not self._is_proxy(shown):
            name = found[0][0].decode()
            raise Refused(403, f"the header {name} is for the proxies and gateways of this endpoint, not for clients")
        return Proxied(subject=shown.get(_SUBJECT, b"").decode("latin-1"))

    def attested(self, scope: Scope, client: Proxied) -> Scope:
        """The request as it goes on to the control plane, with this gateway's word for its client."""
        if scope["extensions"].get("proxied") is None or not (client.address or client.subject):
            return scope
        token = mint_attestation(self._key, self._gateway, client.address, client.subject)
        headers: list[Any] = [*scope["headers"], (ATTESTED, token.encode())]
        return {**scope, "headers": headers}

    def _is_proxy(self, shown: dict[bytes, bytes]) -> bool:
        return bool(self._secret) and hmac.compare_digest(shown.get(_PROOF, b""), self._secret)
