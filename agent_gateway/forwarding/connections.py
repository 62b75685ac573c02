"""Connections to one control plane. Any number of clients share them: nothing of a request stays behind."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

from agent_gateway.control_plane_client import Refused
from agent_gateway.faults import Lost, reason
from agent_gateway.forwarding.address import Address, proxy_for

if TYPE_CHECKING:
    import httpx

Headers = list[tuple[bytes, bytes]]
Content = AsyncIterator[bytes] | bytes | None

_CONNECT_SECONDS = 10.0
_KEEP_IDLE_SECONDS = 120.0
_IDLE = 128
"""Connections that are kept at most."""
_KEEP_ALIVE = [
    # A connection that is silent for hours (`wait`) must notice that its other end is gone, and keep NATs awake.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_NODELAY", 1))
        if hasattr(socket, name)
    ),
]


class Connections:
    """HTTP/1.1 from a pool, and HTTP/2 for bodies that HTTP/1.1 front ends do not take."""

    def __init__(self, address: Address, *, idle_seconds: float = _KEEP_IDLE_SECONDS) -> None:
        """`idle_seconds`: so long a connection is kept that nothing uses. Raises CannotConnect."""
        self.address = address
        self.reached = False
        """Whether the endpoint was there the last time somebody looked."""
        self._idle_seconds = idle_seconds
        self._client: Any = None
        self._tls = address.tls()
        self._proxy = proxy_for(address.url)
        self._http2: ssl.SSLContext | None = None
        if address.url.startswith("https:"):
            self._http2 = address.tls()
            self._http2.set_alpn_protocols(["h2", "http/1.1"])

    @property
    def offers_http2(self) -> bool:
        """As far as is known: of an `https` endpoint it is found out by the first upload."""
        return self._http2 is not None

    def _pool(self) -> httpx.AsyncClient:
        import httpx

        transport = httpx.AsyncHTTPTransport(
            verify=self._tls,
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=_IDLE, keepalive_expiry=self._idle_seconds
            ),
            proxy=self._proxy,
            socket_options=_KEEP_ALIVE,
        )
        return httpx.AsyncClient(
            transport=transport,
            # Waits and followed logs are silent for hours.
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
            # What a front end sets for one client is not shown for another.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            follow_redirects=False,
            trust_env=False,
        )

    async def send(self, method: str, target: str, headers: Headers, content: Content) -> httpx.Response:
        """One request, as it is; the response's body is still to be read.

        Raises Lost when its connection broke, Refused (503) when the endpoint can't be reached.
        """
        import httpx

        if self._client is None:
            self._client = self._pool()
        if isinstance(content, AsyncIterator):
            uploaded = await self._upload(method, target, headers, content)
            if uploaded is not None:
                return uploaded
        request = self._client.build_request(method, self.address.url + target, headers=headers, content=content)
        try:
            answer: httpx.Response = await self._client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise Refused(503, f"{self.address.url} can't be reached: {reason(error)}") from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise Lost(reason(error)) from None
        self.reached = True
        return answer

    async def _upload(
        self, method: str, target: str, headers: Headers, content: AsyncIterator[bytes]
    ) -> httpx.Response | None:
        """The same over HTTP/2; None where that is not served."""
        from agent_gateway.uploads import NoHttp2, upload

        if self._http2 is None:
            return None
        try:
            answer = await upload(self.address.url + target, self._http2, self._proxy, method, headers, content)
        except NoHttp2:
            self._http2 = None
            return None
        except OSError as error:
            raise Refused(503, f"{self.address.url} can't be reached: {reason(error)}") from None
        self.reached = True
        return answer

    async def aclose(self) -> None:
        """Closes them."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None
