"""The refusals of Azure Resource Manager and of Microsoft.Web, and their bodies.

Resource Manager itself answers `{"error": {"code", "message"}}`; Microsoft.Web answers with capitals, and twice as much
(seen in deployments' error texts that users have published).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from local_cloud.errors import ServiceError

_CODES = {
    "INVALID_ARGUMENT": (400, "BadRequest"),
    "FAILED_PRECONDITION": (400, "BadRequest"),
    "OUT_OF_RANGE": (400, "BadRequest"),
    "UNAUTHENTICATED": (401, "AuthenticationFailed"),
    "PERMISSION_DENIED": (403, "AuthorizationFailed"),
    "NOT_FOUND": (404, "NotFound"),
    "ALREADY_EXISTS": (409, "Conflict"),
    "ABORTED": (409, "Conflict"),
    "RESOURCE_EXHAUSTED": (429, "TooManyRequests"),
    "UNIMPLEMENTED": (501, "NotImplemented"),
    "UNAVAILABLE": (503, "ServiceUnavailable"),
    "DEADLINE_EXCEEDED": (504, "GatewayTimeout"),
}
_RETRY_AFTER = "1"


class ArmError(Exception):
    """A refusal: the HTTP status, Azure's code and text."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        return {"error": {"code": self.code, "message": self.message}}


class WebError(ArmError):
    """A refusal of Microsoft.Web: with its extended code and the template of its text."""

    def __init__(self, status: int, code: str, extended: str, template: str, *parameters: str) -> None:
        super().__init__(status, code, template.format(*parameters))
        self._extended, self._template, self._parameters = extended, template, parameters

    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        entity = {
            "ExtendedCode": self._extended,
            "MessageTemplate": self._template,
            "Parameters": list(self._parameters),
            "Code": self.code,
            "Message": self.message,
        }
        details = [{"Message": self.message}, {"Code": self.code}, {"ErrorEntity": entity}]
        return {
            "Code": self.code,
            "Message": self.message,
            "Target": None,
            "Details": details,
            "Innererror": None,
        }


def invalid_parameter(name: str) -> WebError:
    """Microsoft.Web's answer to a value that it does not take."""
    return WebError(400, "BadRequest", "01007", "The parameter {0} has an invalid value.", name)


def bad_request(message: str) -> ArmError:
    """Microsoft.Web's answer to a request that it does not understand."""
    return WebError(400, "BadRequest", "04001", "{0}", message)


def missing(kind: str, name: str, group: str) -> ArmError:
    """Resource Manager's answer when there is no such resource."""
    return ArmError(
        404,
        "ResourceNotFound",
        f"The Resource 'Microsoft.Web/{kind}/{name}' under resource group '{group}' was not found. "
        "For more details please go to https://aka.ms/ARMResourceNotFoundFix",
    )


def unserved(what: str) -> ArmError:
    """Refuses what Azure has and the local cloud has not."""
    return ArmError(501, "NotImplemented", f"The local cloud does not serve this: {what}")


def azure_error(error: ServiceError) -> ArmError:
    """A refusal of the local cloud's own (an injected fault, a full disk) in Azure's form."""
    status, code = _CODES.get(error.code, (500, "InternalServerError"))
    headers = {"Retry-After": _RETRY_AFTER} if status in (429, 503) else None
    return ArmError(status, code, error.message, headers)


def refusal(error: ArmError | ServiceError) -> Response:
    """The answer to a refused request."""
    said = azure_error(error) if isinstance(error, ServiceError) else error
    return JSONResponse(said.body(), said.status, headers=said.headers | request_headers())


def request_headers() -> dict[str, str]:
    """The headers by which Azure's support finds a request again."""
    number = str(uuid.uuid4())
    return {"x-ms-request-id": number, "x-ms-correlation-request-id": number}
