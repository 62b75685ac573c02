"""Calls of a cloud's key service over HTTP: the identity's token, deadline, retries, and its errors told apart.

Wrapping and unwrapping change nothing there, so every failure that may pass is followed by the same call again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from control_plane.backends.calls import TRANSIENT, CloudError, call, failure_of

if TYPE_CHECKING:
    import httpx

Token = Callable[[bool], Awaitable[str]]
"""The identity's access token; a new one when it says so."""

_DOING = "using the key of the store"
_REPEAT = TRANSIENT | {"INTERNAL"}


class KeyService:
    """One service's HTTP API. `status` is the HTTP status of a refusal, `reason` the service's own word for it."""

    def __init__(self, token: Token, *, total: float = 30.0) -> None:
        self._token = token
        self._total = total
        self._client: httpx.AsyncClient | None = None

    async def ask(self, method: str, url: str, body: Any = None) -> dict[str, Any]:
        """The answer's body. Raises Refused where the service says no, CloudError for what did not pass in time."""
        return await call(
            _DOING, lambda timeout: self._once(method, url, body, timeout), total=self._total, repeat=_REPEAT
        )

    async def close(self) -> None:
        """Closes the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _once(self, method: str, url: str, body: Any, timeout: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(timeout):
                answer = await self._send(method, url, body, fresh=False)
                if answer.status_code == 401:  # ended before its time, or revoked: the identity may have another
                    answer = await self._send(method, url, body, fresh=True)
        except Exception as error:
            failure = failure_of(error, _DOING)
            if failure is None:
                raise
            raise failure from error
        return _read(answer)

    async def _send(self, method: str, url: str, body: Any, *, fresh: bool) -> httpx.Response:
        if self._client is None:
            import httpx

            self._client = httpx.AsyncClient(follow_redirects=False)
        headers = {"authorization": f"Bearer {await self._token(fresh)}"}
        return await self._client.request(method, url, json=body, headers=headers, timeout=None)


class Refused(CloudError):
    """The service's own no: `status` of HTTP, `reason` in its words (`FAILED_PRECONDITION`, `KeyNotFound`)."""

    def __init__(self, code: str, text: str, status: int, reason: str) -> None:
        super().__init__(code, text, _DOING)
        self.status = status
        self.reason = reason


def encoded(data: bytes, *, url_safe: bool = False) -> str:
    """Base64; `url_safe` without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode() if url_safe else base64.b64encode(data).decode()


def decoded(text: Any) -> bytes:
    """What either form of `encoded` has made. Raises CloudError: the service's answer is not one."""
    try:
        plain = str(text).translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        raise CloudError("UNKNOWN", "the key service's answer is not base64", _DOING) from None


def missing() -> CloudError:
    """An answer without what it has to hold."""
    return CloudError("UNKNOWN", "the key service's answer cannot be read", _DOING)


def _read(answer: httpx.Response) -> dict[str, Any]:
    import httpx

    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.status_code == 200:
        if not isinstance(body, dict):
            raise missing()
        return body
    error = body.get("error") if isinstance(body, dict) else None
    detail: dict[str, Any] = error if isinstance(error, dict) else {}
    inner = detail.get("innererror")
    # Google: {"code": 400, "message", "status"}; Azure: {"code": "Forbidden", "message", "innererror": {"code"}}.
    reason = (
        (inner.get("code") if isinstance(inner, dict) else None) or detail.get("status") or detail.get("code") or ""
    )
    text = str(detail.get("message") or f"HTTP {answer.status_code}")
    request = httpx.Request("GET", "http://key.service/")
    told = failure_of(httpx.HTTPStatusError(text, request=request, response=answer), _DOING)
    raise Refused(told.code if told is not None else "UNKNOWN", text, answer.status_code, str(reason))
