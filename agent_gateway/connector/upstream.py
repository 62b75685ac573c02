"""The endpoint over HTTPS: one request at a time is sent with the user's token, and asked again where that is safe.

Answers of the control plane carry `Api-Version`. What does not comes from a front end on the way (or from some other
server altogether), and is told to the user in Docker's form.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent_gateway.connector.tokens import Tokens
from agent_gateway.control_plane_client import Refused
from agent_gateway.faults import CannotConnect, Lost, reason
from agent_gateway.front_end import from_front_end

if TYPE_CHECKING:
    import httpx

Headers = list[tuple[bytes, bytes]]

_CONNECT_SECONDS = 10.0
_RECONNECT_SECONDS = 15.0
"""So long a request waits for an endpoint that was there before: it may be restarting."""
_SERVED_SECONDS = 2.0
"""A request whose connection stood for so long had somebody who worked at it."""
_KEEP_IDLE_SECONDS = 120.0
_FRONT_END_FAULTS = (429, 502, 503, 504)
_KEEP_ALIVE = [
    # A connection that is silent for hours (`wait`) must notice that its other end is gone, and keep NATs awake.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_NODELAY", 1))
        if hasattr(socket, name)
    ),
]


@dataclass(frozen=True, slots=True)
class Address:
    """Where the endpoint is, and how to get there."""

    url: str
    """`https://host[:port][/prefix]`, without a slash at its end."""
    ca: str = ""
    """A file of certificates that are trusted in place of the system's."""

    @classmethod
    def parse(cls, url: str, ca: str = "", *, allow_http: bool = False) -> Address:
        """Raises CannotConnect. Plain http carries the token for everybody to read: loopback only."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise CannotConnect(f"{url}: {error}") from None
        if parts.scheme not in ("https", "http") or not host or parts.query or parts.fragment or parts.username:
            raise CannotConnect(f"{url or 'no URL'}: https://HOST[:PORT][/PREFIX] is wanted")
        if parts.scheme == "http" and not allow_http and not is_loopback(host):
            raise CannotConnect(f"{url}: refused, because http:// would show your token to the network; use https://")
        return cls(url.rstrip("/"), ca)

    def tls(self) -> ssl.SSLContext:
        """A new context (HTTP libraries write their ALPN into it). Raises CannotConnect."""
        try:
            return ssl.create_default_context(cafile=self.ca or None)
        except (OSError, ssl.SSLError) as error:
            raise CannotConnect(f"the certificates in {self.ca} cannot be read: {reason(error)}") from None


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def proxy_for(url: str) -> str | None:
    """What `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` say about a URL."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    scheme = {"wss": "https", "ws": "http"}.get(parts.scheme, parts.scheme)
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or not parts.hostname or is_loopback(parts.hostname) or urllib.request.proxy_bypass(parts.netloc):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


class Upstream:
    """Requests to the endpoint: HTTP/1.1 from a pool, and HTTP/2 for bodies that HTTP/1.1 front ends do not take."""

    def __init__(self, address: Address, tokens: Tokens) -> None:
        import httpx

        self.address = address
        self._tokens = tokens
        self._client = self._pool()
        self._proxy = proxy_for(address.url)
        self._http2: ssl.SSLContext | None = None
        if address.url.startswith("https:"):
            self._http2 = address.tls()
            self._http2.set_alpn_protocols(["h2", "http/1.1"])
        self._reached = False
        self._connect_faults = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)

    @property
    def offers_http2(self) -> bool:
        """As far as is known: of an `https` endpoint it is found out by the first upload."""
        return self._http2 is not None

    def _pool(self) -> httpx.AsyncClient:
        import httpx

        transport = httpx.AsyncHTTPTransport(
            verify=self.address.tls(),
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=32, keepalive_expiry=_KEEP_IDLE_SECONDS
            ),
            proxy=proxy_for(self.address.url),
            socket_options=_KEEP_ALIVE,
        )
        # Waits and followed logs are silent for hours.
        timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)
        return httpx.AsyncClient(transport=transport, timeout=timeout, follow_redirects=False, trust_env=False)

    async def ask(
        self,
        method: str,
        target: str,
        headers: Headers | None = None,
        content: AsyncIterator[bytes] | bytes | None = None,
        *,
        again: bool = False,
        token: str = "",
    ) -> httpx.Response:
        """Sends a request; the response's body is still to be read.

        `again`: the request may be sent twice. `token` is shown in place of the user's. Raises Lost when its connection
        broke, Refused when the endpoint can't be reached at all or there is no token.
        """
        loop = asyncio.get_running_loop()
        deadline = 0.0  # set by the first failure: the request itself may take as long as it takes
        delay = 0.0
        while True:
            begun = loop.time()
            try:
                answer = await self._once(method, target, headers or [], content, token)
                if not again or not from_front_end(answer) or answer.status_code not in _FRONT_END_FAULTS:
                    return answer
                deadline = deadline or loop.time() + _RECONNECT_SECONDS
                if loop.time() > deadline:
                    return answer
                await answer.aclose()
            except Refused as refused:
                deadline = deadline or loop.time() + _RECONNECT_SECONDS
                if refused.status != 503 or self._given_up(deadline):
                    raise
            except Lost:
                if loop.time() - begun > _SERVED_SECONDS:
                    deadline = 0.0  # it was being served: the endpoint is not away
                deadline = deadline or loop.time() + _RECONNECT_SECONDS
                if not again or self._given_up(deadline):
                    raise
            if delay:
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(max(delay * 2, 0.05), 1.0)

    def _given_up(self, deadline: float) -> bool:
        """Once it was waited for in vain, nobody waits again until it is back."""
        if asyncio.get_running_loop().time() > deadline:
            self._reached = False
        return not self._reached

    async def _once(
        self, method: str, target: str, headers: Headers, content: AsyncIterator[bytes] | bytes | None, shown: str
    ) -> httpx.Response:
        try:
            token = shown or await self._tokens.current()
            answer = await self._send(method, target, headers, content, token)
            if answer.status_code == 401 and not shown and not isinstance(content, AsyncIterator):
                other = await self._tokens.after_refusal(token)
                if other is not None:
                    await answer.aclose()
                    answer = await self._send(method, target, headers, content, other)
        except CannotConnect as error:
            raise Refused(401, str(error)) from None
        return answer

    async def _send(
        self, method: str, target: str, headers: Headers, content: AsyncIterator[bytes] | bytes | None, token: str
    ) -> httpx.Response:
        import httpx

        kept = [(name, value) for name, value in headers if name != b"authorization"]
        if token:
            kept.append((b"authorization", b"Bearer " + token.encode()))
        if isinstance(content, AsyncIterator) and (answer := await self._upload(method, target, kept, content)):
            return answer
        request = self._client.build_request(method, self.address.url + target, headers=kept, content=content)
        try:
            answer = await self._client.send(request, stream=True)
        except self._connect_faults as error:
            raise Refused(503, f"{self.address.url} can't be reached: {reason(error)}") from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise Lost(reason(error)) from None
        self._reached = True
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
        self._reached = True
        return answer

    async def fetch(
        self, method: str, target: str, *, content: bytes | None = None, token: str = ""
    ) -> tuple[int, bytes, str]:
        """A small answer, whole: status, body, `Date`. The request may be sent twice. Raises Lost and Refused."""
        headers = [] if content is None else [(b"content-type", b"application/json")]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _RECONNECT_SECONDS
        while True:
            answer = await self.ask(method, target, headers, content, again=True, token=token)
            try:
                body = b"".join([chunk async for chunk in chunks(answer)])
                return answer.status_code, body, answer.headers.get("date", "")
            except Lost:
                if loop.time() > deadline:
                    raise
            finally:
                await answer.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


async def chunks(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes. Raises Lost when it ends before its end."""
    import httpx

    if answer.is_stream_consumed:
        yield answer.content
        return
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise Lost(reason(error)) from None
