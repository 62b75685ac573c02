"""One cloud call: a deadline, retries with jitter, and the cloud's errors told apart.

The SDKs' own retries are switched off (`retry=None`) so that one place decides what may be sent twice.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from control_plane import trouble
from control_plane.errors import DockerError, GatewayTimeout, InvalidParameter, ServerError, Unavailable
from control_plane.telemetry import hooks

T = TypeVar("T")

TRANSIENT = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED", "DEADLINE_EXCEEDED"})
"""Worth another try where the call may be sent twice."""
UNSENT = frozenset({"RESOURCE_EXHAUSTED"})
"""Certainly not carried out: may be sent again even where twice would do harm."""
AMBIGUOUS = frozenset({"UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "CANCELLED"})
"""The call may or may not have been carried out; the answer was lost."""

_FIRST_PAUSE = 0.05
_FIRST_QUOTA_PAUSE = 1.0
_LONGEST_PAUSE = 8.0
_HTTP_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_AZURE_CODES = {
    "TooManyRequests": "RESOURCE_EXHAUSTED",
    "SubscriptionRequestsThrottled": "RESOURCE_EXHAUSTED",
    "QuotaExceeded": "RESOURCE_EXHAUSTED",
    "AuthorizationFailed": "PERMISSION_DENIED",
    "Conflict": "ABORTED",
    "OperationNotAllowed": "FAILED_PRECONDITION",
}
"""Azure Resource Manager's error codes where they say more than the HTTP status."""
_QUOTA_TEXT = re.compile(r"[Qq]uota exceeded for quota metric '([^']+)'(?: and limit '([^']+)')?")


class CloudError(Exception):
    """A cloud call failed: `code` is gRPC's name of the status, `doing` what we were about."""

    def __init__(self, code: str, text: str, doing: str, quota: str = "") -> None:
        super().__init__(f"{doing}: {code}: {text}")
        self.code = code
        self.text = text
        self.doing = doing
        self.quota = quota

    def docker(self) -> DockerError:
        """The same in Docker's terms. Texts that may name cloud resources of ours stay in `internal`."""
        internal = str(self)
        if self.code == "RESOURCE_EXHAUSTED":
            what = self.quota or self.text or "unnamed quota"
            return Unavailable(
                f"cloud quota exhausted while {self.doing}: {what}; try again later or have the quota raised",
                internal=internal,
            )
        if self.code == "DEADLINE_EXCEEDED":
            return GatewayTimeout(f"the cloud did not answer in time while {self.doing}", internal=internal)
        if self.code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            return ServerError(
                f"the cloud refused {self.doing}: the endpoint's own credentials do not allow it ({self.code}); "
                "tell the operator of this endpoint",
                internal=internal,
            )
        if self.code in ("INVALID_ARGUMENT", "OUT_OF_RANGE"):
            return InvalidParameter(f"the cloud refused {self.doing}: {self.text}", internal=internal)
        if self.code in ("NOT_FOUND", "FAILED_PRECONDITION", "ALREADY_EXISTS", "UNIMPLEMENTED"):
            return ServerError(f"the cloud refused {self.doing}: {self.text}", internal=internal)
        return Unavailable(f"the cloud is not available while {self.doing} ({self.code})", internal=internal)


@contextmanager
def docker_errors() -> Iterator[None]:
    """Turns a CloudError that leaves the block into a DockerError."""
    try:
        yield
    except CloudError as error:
        raise error.docker() from error


async def call(
    doing: str,
    attempt: Callable[[float], Awaitable[T]],
    *,
    total: float = 30.0,
    each: float = 10.0,
    repeat: frozenset[str] = TRANSIENT,
) -> T:
    """Awaits `attempt(timeout)`, again after a pause while it fails with a code in `repeat`, for `total` seconds.

    Raises CloudError. `doing` completes the sentence "the cloud refused …" (`starting the container`); it is one of a
    few phrases, never with a name in it: metrics count by it.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + total
    tries = 0
    while True:
        began = loop.time()
        try:
            with hooks.in_span(doing):
                answer = await attempt(min(each, max(ends - began, 0.1)))
            if hooks.cloud_call is not None:
                hooks.cloud_call(doing, "ok", loop.time() - began)
            return answer
        except Exception as error:
            failure = failure_of(error, doing)
            if hooks.cloud_call is not None:
                hooks.cloud_call(doing, failure.code if failure is not None else "FAULT", loop.time() - began)
            if failure is None:
                raise
            pause = pause_before(tries, failure.code)
            if failure.code not in repeat or loop.time() + pause >= ends:
                raise failure from error
            trouble.note(failure.docker().message)
        tries += 1
        await asyncio.sleep(pause)


def pause_before(tries: int, code: str) -> float:
    """Seconds to wait: full jitter under a doubling bound; quotas are per minute, so they wait longer."""
    first = _FIRST_QUOTA_PAUSE if code == "RESOURCE_EXHAUSTED" else _FIRST_PAUSE
    bound = min(first * 2.0 ** min(tries, 16), _LONGEST_PAUSE)
    return bound / 2 + random.uniform(0, bound / 2) if code == "RESOURCE_EXHAUSTED" else random.uniform(0, bound)


def failure_of(error: BaseException, doing: str) -> CloudError | None:
    """The CloudError for what an SDK raised; None for anything that is no failure of the cloud."""
    if isinstance(error, CloudError):
        return error
    if isinstance(error, TimeoutError):
        return CloudError("DEADLINE_EXCEEDED", "no answer", doing)
    if isinstance(error, ConnectionError):
        return CloudError("UNAVAILABLE", str(error), doing)
    return _google_failure(error, doing) or _azure_failure(error, doing) or _http_failure(error, doing)


def _google_failure(error: BaseException, doing: str) -> CloudError | None:
    """Failures of the gRPC SDKs. They can only come from modules that are loaded: nothing is imported here."""
    api, auth, grpc = (
        sys.modules.get(name) for name in ("google.api_core.exceptions", "google.auth.exceptions", "grpc")
    )
    if api is not None and isinstance(error, api.GoogleAPICallError):
        grpc_code = getattr(error, "grpc_status_code", None)
        code = grpc_code.name if grpc_code is not None else _HTTP_CODES.get(int(error.code or 0), "UNKNOWN")
        text = str(error.message)
        return CloudError(code, text, doing, quota_of(text, list(error.details or [])))
    if api is not None and isinstance(error, api.RetryError):
        return failure_of(error.cause, doing) if error.cause else CloudError("DEADLINE_EXCEEDED", str(error), doing)
    if grpc is not None and isinstance(error, grpc.RpcError):
        status = getattr(error, "code", None)
        text = str(getattr(error, "details", lambda: "")())
        return CloudError(status().name if callable(status) else "UNKNOWN", text, doing, quota_of(text, []))
    if auth is not None and isinstance(error, auth.TransportError):
        return CloudError("UNAVAILABLE", str(error), doing)
    if auth is not None and isinstance(error, auth.GoogleAuthError):
        return CloudError("UNAUTHENTICATED", str(error), doing)
    return None


def _azure_failure(error: BaseException, doing: str) -> CloudError | None:
    """Failures of azure-core's pipeline: Azure Resource Manager, Log Analytics, the identity service."""
    azure = sys.modules.get("azure.core.exceptions")
    if azure is None or not isinstance(error, azure.AzureError):
        return None
    if isinstance(error, azure.ClientAuthenticationError):
        return CloudError("UNAUTHENTICATED", str(error.message), doing)
    if isinstance(error, azure.HttpResponseError) and error.status_code is not None:
        detail = getattr(error, "error", None)
        name = str(getattr(detail, "code", "") or "")
        text = str(getattr(detail, "message", "") or error.message)
        code = _AZURE_CODES.get(name) or _HTTP_CODES.get(int(error.status_code), "UNKNOWN")
        return CloudError(code, text, doing, text if code == "RESOURCE_EXHAUSTED" else "")
    if isinstance(error, azure.ServiceResponseTimeoutError | azure.ServiceRequestTimeoutError):
        return CloudError("DEADLINE_EXCEEDED", str(error.message), doing)
    return CloudError("UNAVAILABLE", str(error.message), doing)


def _http_failure(error: BaseException, doing: str) -> CloudError | None:
    """Failures of what speaks plain HTTP: the storage SDK through requests, our own calls through httpx."""
    requests, httpx = sys.modules.get("requests"), sys.modules.get("httpx")
    if requests is not None and isinstance(error, requests.exceptions.RequestException):
        timed_out = isinstance(error, requests.exceptions.Timeout)
        return CloudError("DEADLINE_EXCEEDED" if timed_out else "UNAVAILABLE", str(error), doing)
    if httpx is not None and isinstance(error, httpx.TransportError):
        timed_out = isinstance(error, httpx.TimeoutException)
        return CloudError("DEADLINE_EXCEEDED" if timed_out else "UNAVAILABLE", str(error), doing)
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(status, int):
        return CloudError(_HTTP_CODES.get(status, "UNKNOWN"), str(error), doing)
    return None


def quota_of(text: str, details: list[Any]) -> str:
    """The name of an exhausted quota, from the error's details (ErrorInfo, QuotaFailure) or its text."""
    for detail in details:
        metadata = getattr(detail, "metadata", None) or {}
        named = [str(metadata[key]) for key in ("quota_metric", "quota_limit") if key in metadata]
        if named:
            return " / ".join(named)
        for violation in getattr(detail, "violations", None) or []:
            return str(getattr(violation, "description", "") or getattr(violation, "subject", ""))
    found = _QUOTA_TEXT.search(text)
    return " / ".join(part for part in found.groups() if part) if found else ""
