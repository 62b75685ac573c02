"""The refusals of Google's APIs, once for gRPC and HTTP."""

from __future__ import annotations

from typing import NoReturn

# google.rpc.Code → its number and the HTTP status the REST face uses (google/rpc/code.proto).
CODES: dict[str, tuple[int, int]] = {
    "OK": (0, 200),
    "CANCELLED": (1, 499),
    "UNKNOWN": (2, 500),
    "INVALID_ARGUMENT": (3, 400),
    "DEADLINE_EXCEEDED": (4, 504),
    "NOT_FOUND": (5, 404),
    "ALREADY_EXISTS": (6, 409),
    "PERMISSION_DENIED": (7, 403),
    "RESOURCE_EXHAUSTED": (8, 429),
    "FAILED_PRECONDITION": (9, 400),
    "ABORTED": (10, 409),
    "OUT_OF_RANGE": (11, 400),
    "UNIMPLEMENTED": (12, 501),
    "INTERNAL": (13, 500),
    "UNAVAILABLE": (14, 503),
    "DATA_LOSS": (15, 500),
    "UNAUTHENTICATED": (16, 401),
}


class ServiceError(Exception):
    """A refusal with its google.rpc.Code name; the service faces turn it into a gRPC status or an HTTP answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def number(self) -> int:
        """The code's number in google.rpc.Status."""
        return CODES[self.code][0]

    @property
    def http_status(self) -> int:
        """The status of the REST face."""
        return CODES[self.code][1]


def invalid(message: str) -> NoReturn:
    """Refuses a malformed request (INVALID_ARGUMENT)."""
    raise ServiceError("INVALID_ARGUMENT", message)


def not_found(message: str) -> NoReturn:
    """Says that a resource does not exist (NOT_FOUND)."""
    raise ServiceError("NOT_FOUND", message)


def unserved(message: str) -> NoReturn:
    """Refuses what the real service has and the local cloud has not (UNIMPLEMENTED)."""
    raise ServiceError("UNIMPLEMENTED", f"The local cloud does not serve this: {message}")
