"""Calls of Azure Resource Manager: deadlines, its errors, and its long-running operations.

All of them are idempotent by the resource's name, so one that may have been carried out is simply sent again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from control_plane.backends.calls import TRANSIENT, CloudError, call, failure_of

T = TypeVar("T")

REPEAT = TRANSIENT | {"INTERNAL"}
_EACH = 30.0
_POLL_PATIENCE = 90.0
"""Seconds one poll of an operation is tried for."""

_CODES = {
    "Conflict": "ABORTED",
    "AnotherOperationInProgress": "ABORTED",
    "TooManyRequests": "RESOURCE_EXHAUSTED",
    "InternalServerError": "INTERNAL",
    "ServiceUnavailable": "UNAVAILABLE",
    "GatewayTimeout": "DEADLINE_EXCEEDED",
    "BadRequest": "INVALID_ARGUMENT",
    "NotFound": "NOT_FOUND",
    "Forbidden": "PERMISSION_DENIED",
    "AuthorizationFailed": "PERMISSION_DENIED",
    "QuotaExceeded": "RESOURCE_EXHAUSTED",
    "SubscriptionRequestsThrottled": "RESOURCE_EXHAUSTED",
    "UNAVAILABLE": "UNAVAILABLE",
    "INTERNAL": "INTERNAL",
    "ABORTED": "ABORTED",
    "DEADLINE_EXCEEDED": "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED": "RESOURCE_EXHAUSTED",
}
"""Error codes of App Service and of failed operations → ours. `Unauthorized` (with HTTP 401) is not among them: it is
what App Service calls a SKU that the subscription has no quota for; a token that does not count has other codes."""


async def arm_call(doing: str, attempt: Callable[[], Awaitable[T]], *, total: float = 60.0, each: float = _EACH) -> T:
    """Awaits `attempt()`, again while it fails with what may pass. Raises CloudError."""

    async def once(timeout: float) -> T:
        try:
            async with asyncio.timeout(timeout):
                return await attempt()
        except Exception as error:
            failure = arm_failure(error, doing)
            if failure is None:
                raise
            raise failure from error

    return await call(doing, once, total=total, each=each, repeat=REPEAT)


def arm_failure(error: BaseException, doing: str) -> CloudError | None:
    """As `calls.failure_of`, and App Service's own form of an error (`{"Code", "Message"}`), and failed operations."""
    failure = failure_of(error, doing)
    status = getattr(error, "status_code", None)
    if failure is None or isinstance(error, CloudError) or not isinstance(status, int):
        return failure
    name, text = _named(error)
    if name == "Unauthorized":
        return CloudError("FAILED_PRECONDITION", text or failure.text, doing)
    if failure.code == "UNAUTHENTICATED" or not name:
        return failure
    code = _CODES.get(name)
    if name == "Conflict" and "already exists" in text:
        code = "ALREADY_EXISTS"  # a site's name is taken by another subscription or group
    if code is None:
        # An operation that has failed is answered with 200.
        code = failure.code if status >= 400 else "FAILED_PRECONDITION"
    elif status >= 400 and name in ("NotFound", "Forbidden", "BadRequest"):
        code = failure.code
    return CloudError(code, text or failure.text, doing, (text or name) if code == "RESOURCE_EXHAUSTED" else "")


def _named(error: BaseException) -> tuple[str, str]:
    """Code and message of an error body in any of Resource Manager's forms; empty where there are none."""
    detail = getattr(error, "error", None)
    if getattr(detail, "code", None):
        return str(detail.code), str(detail.message or "")  # type: ignore[union-attr]
    try:
        body: Any = json.loads(error.response.text())  # type: ignore[attr-defined]
    except Exception:  # whatever an answer of a front end may hold
        return "", ""
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        body = body["error"]
    if not isinstance(body, dict):
        return "", ""
    return str(body.get("Code") or body.get("code") or ""), str(body.get("Message") or body.get("message") or "")


def polling(doing: str, base_url: str, *, first_pause: float, longest_pause: float) -> Any:
    """How an operation is waited for: an `AsyncARMPolling` that asks soon at first, and does not give up on a poll that
    fails for the moment. A `Retry-After` counts, where it is longer, unless the pauses are a local cloud's."""
    from azure.core.exceptions import HttpResponseError
    from azure.mgmt.core.polling.async_arm_polling import AsyncARMPolling

    class Polling(AsyncARMPolling):
        _pause = first_pause

        async def _delay(self) -> None:
            asked = float(self._extract_delay()) if longest_pause >= 1 else 0.0
            pause, self._pause = self._pause, min(self._pause * 1.6, longest_pause)
            await asyncio.sleep(max(pause, asked if self._asked_to_wait() else 0.0))

        def _asked_to_wait(self) -> bool:
            return "Retry-After" in self._pipeline_response.http_response.headers

        async def request_status(self, status_link: str) -> Any:
            async def attempt() -> Any:
                response = await super(Polling, self).request_status(status_link)
                status = response.http_response.status_code
                if status in (408, 429) or status >= 500:
                    raise HttpResponseError(response=response.http_response)
                return response

            return await arm_call(doing, attempt, total=_POLL_PATIENCE)

    return Polling(longest_pause, path_format_arguments={"endpoint": base_url})
