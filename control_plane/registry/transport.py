"""HTTP to registries: bounded in time and size, redirects judged hop by hop, faults in words a Docker user knows."""

from __future__ import annotations

import asyncio
import errno
import importlib
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from control_plane.registry.base import RegistryError
from control_plane.registry.endpoints import split_port

if TYPE_CHECKING:
    import httpx

_CONNECT_SECONDS = 15.0
_IDLE_SECONDS = 60.0
_REDIRECTS = 5
_ATTEMPTS = 3
_RETRIED = {500, 502, 503, 504}
_REDIRECT = {301, 302, 303, 307, 308}
_USER_AGENT = "docker/28.0.0 sockerless"

Content = bytes | AsyncIterator[bytes] | None
Judge = Callable[[str], Awaitable[bool]]
"""Whether a `host[:port]` may be spoken to in plain HTTP. Raises RegistryError for one that may not be spoken to."""


class ConnectionBrokenError(RegistryError):
    """No answer, or one that broke off: another endpoint or another attempt may help."""


async def pause(attempt: int) -> None:
    """Backoff before attempt number `attempt` (from 1), with full jitter."""
    await asyncio.sleep(random.uniform(0.05, 0.25 * 2**attempt))


class Transport:
    """A connection pool to registries, made when first used (importing httpx costs 0.2 s)."""

    def __init__(self, judge: Judge, *, trust_env: bool = True) -> None:
        self.judge = judge
        self._trust_env = trust_env
        self._clients: dict[bool, httpx.AsyncClient] = {}

    def _client(self, insecure: bool) -> httpx.AsyncClient:
        import httpx

        client = self._clients.get(insecure)
        if client is None:
            client = self._clients[insecure] = httpx.AsyncClient(
                verify=not insecure,
                trust_env=self._trust_env,
                follow_redirects=False,
                timeout=httpx.Timeout(_IDLE_SECONDS, connect=_CONNECT_SECONDS),
                limits=httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=30),
                headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"},
            )
        return client

    async def warm(self, insecure: bool) -> None:
        """Imports httpx and makes the client."""
        await asyncio.to_thread(importlib.import_module, "httpx")
        self._client(insecure)

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: Content = None,
        insecure: bool = False,
    ) -> AsyncIterator[httpx.Response]:
        """One request, its body unread. Follows redirects of GET and HEAD; repeats what is safe to repeat.

        Raises ConnectionBrokenError when there is no answer.
        """
        repeatable = content is None or isinstance(content, bytes)
        followed = method in {"GET", "HEAD"}
        response = await self._first(method, url, dict(headers or {}), content, insecure, repeatable)
        try:
            hops = 0
            while followed and response.status_code in _REDIRECT and "location" in response.headers:
                await response.aclose()
                hops += 1
                if hops > _REDIRECTS:
                    raise RegistryError(f'{_verb(method)} "{url}": stopped after {_REDIRECTS} redirects')
                target = urljoin(str(response.url), response.headers["location"])
                kept, plain = await self._judged(method, str(response.url), target, dict(headers or {}))
                response = await self._first(method, target, kept, None, plain, True)
            yield response
        finally:
            await response.aclose()

    async def _judged(
        self, method: str, source: str, target: str, headers: dict[str, str]
    ) -> tuple[dict[str, str], bool]:
        """The headers that may follow a redirect, and whether its target is an insecure one."""
        parts = urlsplit(target)
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.username is not None:
            raise RegistryError(f'{_verb(method)} "{source}": redirect to an address that is not served')
        plain = await self.judge(parts.netloc)
        if parts.scheme == "http" and not plain:
            raise RegistryError(f'{_verb(method)} "{source}": redirect from https to http refused')
        if parts.netloc != urlsplit(source).netloc:
            headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
        return headers, plain

    async def _first(
        self, method: str, url: str, headers: dict[str, str], content: Content, insecure: bool, repeatable: bool
    ) -> httpx.Response:
        import httpx

        client = self._client(insecure)
        for attempt in range(1, _ATTEMPTS + 1):
            last = attempt == _ATTEMPTS or not repeatable
            try:
                request = client.build_request(method, url, headers=headers, content=content)
                response = await client.send(request, stream=True)
            except (httpx.InvalidURL, UnicodeError) as error:
                raise RegistryError(f'{_verb(method)} "{url}": invalid URL') from error
            except httpx.HTTPError as error:
                # A refused connection or an unknown host will not mend in a second.
                if last or isinstance(error, httpx.ConnectError):
                    raise fault(error, method, url) from error
            else:
                if response.status_code not in _RETRIED or last:
                    return response
                await response.aclose()
            await pause(attempt)
        raise AssertionError("the last attempt returns or raises")

    async def read(self, response: httpx.Response, limit: int, what: str) -> bytes:
        """A bounded body. Raises RegistryError when it is larger."""
        import httpx

        body = bytearray()
        try:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > limit:
                    raise RegistryError(f"{what} is larger than {limit} bytes")
        except httpx.HTTPError as error:
            raise fault(error, response.request.method, str(response.request.url)) from error
        return bytes(body)

    async def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ConnectionBrokenError when it breaks off."""
        import httpx

        try:
            async for chunk in response.aiter_raw():
                yield chunk
        except httpx.HTTPError as error:
            raise fault(error, response.request.method, str(response.request.url)) from error

    async def close(self) -> None:
        """Closes the connections."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()


def _verb(method: str) -> str:
    return method.capitalize()


def fault(error: Exception, method: str, url: str) -> ConnectionBrokenError:
    """The fault in the words dockerd uses for it."""
    # Without its query: a redirect's may hold a signature.
    return ConnectionBrokenError(f'{_verb(method)} "{url.partition("?")[0]}": {_reason(error, urlsplit(url).netloc)}')


def _reason(error: Exception, host: str) -> str:
    import httpx

    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return f"dial tcp: lookup {split_port(host)[0]}: no such host"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"tls: failed to verify certificate: x509: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            if "WRONG_VERSION_NUMBER" in str(cause) or "RECORD_LAYER_FAILURE" in str(cause):
                return "http: server gave HTTP response to HTTPS client"
            return f"remote error: tls: {cause.reason or 'handshake failure'}"
        if isinstance(cause, OSError) and cause.errno:
            if cause.errno == errno.ECONNREFUSED:
                return f"dial tcp {host}: connect: connection refused"
            return f"dial tcp {host}: {(cause.strerror or str(cause)).lower()}"
    if isinstance(error, httpx.TimeoutException):
        return "net/http: request canceled (Client.Timeout exceeded)"
    text = str(error)
    return "EOF" if "disconnected" in text.lower() or not text else text


def _causes(error: BaseException) -> list[BaseException]:
    """The chain of causes, groups flattened, the innermost last."""
    found: list[BaseException] = []
    pending: list[BaseException] = [error]
    while pending and len(found) < 32:
        current = pending.pop(0)
        if current in found:
            continue
        found.append(current)
        if isinstance(current, BaseExceptionGroup):
            pending.extend(current.exceptions)
        for deeper in (current.__cause__, current.__context__):
            if deeper is not None:
                pending.append(deeper)
    return found
