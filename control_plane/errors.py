"""What can go wrong, in Docker's terms: each error is a status and a `{"message": …}`.

Two parts, kept apart: `message` goes to the user; `internal` goes to our log only and never
leaves the process (it may name cloud resources, paths or other tenants).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class DockerError(Exception):
    """An answer in Docker's error form. `status` is the HTTP status, `message` the user's text."""

    status = 500
    headers: ClassVar[Mapping[str, str]] = {}
    """Of the answer, besides the usual ones."""

    def __init__(self, message: str, *, internal: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.internal = internal


class InvalidParameter(DockerError):
    """400: the request is malformed or contradicts itself."""

    status = 400


class Unauthorized(DockerError):
    """401: no valid token."""

    status = 401


class Forbidden(DockerError):
    """403: the token's scope or the tenant's policy does not allow it."""

    status = 403


class NotFound(DockerError):
    """404: no such container, image, exec, volume, network, path."""

    status = 404


class NotModified(DockerError):
    """304: start of a running container, stop of a stopped one. Sent without a body."""

    status = 304


class Conflict(DockerError):
    """409: a name in use, or a state that does not allow the operation."""

    status = 409


class TooMany(DockerError):
    """429: a quota of the tenant is used up; the message says which."""

    status = 429


class NotServed(DockerError):
    """501: a part of the Docker API that this backend or this release does not serve; the message says why."""

    status = 501


class Unavailable(DockerError):
    """503: a cloud API, gateway or quota is (for now) not available; a retry may work."""

    status = 503


class GatewayTimeout(DockerError):
    """504: a cloud operation or agent did not answer within its deadline."""

    status = 504


class ServerError(DockerError):
    """500 with a text fit for users (moby answers many command failures so)."""

    status = 500
