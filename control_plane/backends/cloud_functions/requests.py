"""One invocation as an HTTP request: held by the agent for as long as the container is of use."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

_MOST = 64 * 1024
"""Bytes of an answer that are read."""
_CONNECT = 15.0
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    # Networks forget a connection that is silent for ten minutes, some for four.
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes


class Requests:
    """HTTP/1.1 to functions' URLs. With `endpoint` (a local cloud) that address is dialled and the URL's name is the
    `Host`, because names do not resolve there."""

    def __init__(self, endpoint: str, longest: float) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._longest = longest
        self._client: Any = None

    async def post(self, uri: str, token: str, key: str, body: Mapping[str, Any]) -> Answer:
        """Raises httpx.HTTPError when the connection fails, or nothing has come for `longest` seconds."""
        headers = {
            "Authorization": f"Bearer {token}",
            "X-Sockerless-Invoke": key,
            "Content-Type": "application/json",
        }
        url = f"{uri.rstrip('/')}/"
        if self._endpoint:
            parts = urlsplit(url)
            headers["Host"] = parts.netloc
            url = f"{self._endpoint}{parts.path}"
        client = self._opened()
        async with client.stream("POST", url, headers=headers, content=orjson.dumps(body)) as response:
            read = b""
            async for piece in response.aiter_bytes():
                read += piece
                if len(read) >= _MOST:
                    break
            return Answer(response.status_code, read[:_MOST])

    def _opened(self) -> Any:
        if self._client is None:
            import httpx

            self._client = httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(
                    http1=True,
                    http2=False,
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
                    socket_options=_KEEPALIVE,
                ),
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(_CONNECT, read=self._longest, pool=None),
            )
        return self._client

    async def close(self) -> None:
        """Closes the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
