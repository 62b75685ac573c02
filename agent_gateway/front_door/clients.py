"""Who a front door's client is, as a TLS proxy says, and how the control plane is told.

Two ways. A proxy that speaks HTTP writes the subject of a verified certificate into a header, with the secret that
proves it is the proxy. One that passes bytes on (TCP mode) says it in the PROXY protocol, before HTTP begins; then this
gateway vouches for it with a token of a minute. Anybody can write headers, so those about certificates are refused
where no proof comes with them.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Set
from functools import partial

from agent_gateway.asgi import App, Receive, Scope, Send
from agent_gateway.control_plane_client import Refused
from agent_gateway.forwarding.connections import Headers
from agent_gateway.forwarding.exchange import forwarded_headers
from agent_gateway.front_door.proxy_protocol import Proxied
from agent_gateway.tickets import ATTESTED, mint_attestation

_SUBJECT = b"x-sockerless-client-certificate"
_PROOF = b"x-sockerless-proxy"
_NOBODY = Proxied()
_VIA = (b"via", b"1.1 sockerless-gateway")
"""Tells a control plane on the same machine that the request is not this machine's own."""


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

    def attestation(self, scope: Scope) -> Headers:
        """This gateway's word for whoever sent this request, for one request to the control plane; it lasts a minute.

        Nothing where no proxy has said who that is.
        """
        client: Proxied | None = scope.get("extensions", {}).get("proxied")
        if client is None or not (client.address or client.subject):
            return []
        return [(ATTESTED, mint_attestation(self._key, self._gateway, client.address, client.subject).encode())]

    def vouched(self, app: App) -> App:
        """A control plane in this process, told who its clients are."""

        async def told(scope: Scope, receive: Receive, send: Send) -> None:
            attestation = self.attestation(scope)
            if attestation:
                scope = {**scope, "headers": [*scope["headers"], *attestation]}
            await app(scope, receive, send)

        return told

    def credentials(self, scope: Scope) -> ClientCredentials:
        """Of whoever sent this request, for a control plane elsewhere."""
        return ClientCredentials(forwarded_headers(scope["headers"]), partial(self.attestation, scope))

    def _is_proxy(self, shown: dict[bytes, bytes]) -> bool:
        return bool(self._secret) and hmac.compare_digest(shown.get(_PROOF, b""), self._secret)


class ClientCredentials:
    """What a client showed, as it is, and this gateway's word for them: a new one each time, since it soon expires."""

    names: Set[bytes] = frozenset({b"authorization", _SUBJECT, _PROOF, ATTESTED, b"traceparent", b"tracestate"})

    def __init__(self, headers: Headers, attestation: Callable[[], Headers]) -> None:
        """`headers`: of the client's request."""
        self._headers = [header for header in headers if header[0] in self.names]
        self._attestation = attestation

    async def shown(self) -> Headers:
        """For the next request on the client's behalf. The trace is one for all."""
        return [*self._headers, *self._attestation(), _VIA]

    async def after_refusal(self, refused: Headers) -> None:
        """Only the client has others."""
        return
