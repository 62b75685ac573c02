"""Where tokens come from: App Service's managed identity endpoint, and Microsoft Entra's token endpoint.

The first is what `ManagedIdentityCredential` asks when `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` are set, the second
takes `client_credentials` with the same header as the secret.
"""

from __future__ import annotations

import hmac
import uuid
from collections.abc import Awaitable, Callable
from typing import NoReturn
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local_cloud.azure import errors
from local_cloud.azure.identity.tokens import LIFETIME, Tokens
from local_cloud.azure.names import TENANT
from local_cloud.calls import Calls
from local_cloud.errors import ServiceError

METHOD = "Identity.Token"
PATH = "/msi/token"
_MAX_BODY = 64 << 10
_API_VERSIONS = ("2019-08-01", "2017-09-01")
Work = Callable[[Request], Awaitable[Response]]


class _Refused(Exception):
    """A refused token request, with its answer."""

    def __init__(self, answer: Response) -> None:
        super().__init__()
        self.answer = answer


class IdentityFace:
    """The HTTP face of the token endpoints."""

    def __init__(self, tokens: Tokens, calls: Calls) -> None:
        self._tokens = tokens
        self._calls = calls

    def routes(self) -> list[Route]:
        """`GET /msi/token` and `POST /{tenant}/oauth2/v2.0/token`."""
        return [
            Route(PATH, self._counted(self.managed), methods=["GET"]),
            Route("/{tenant}/oauth2/v2.0/token", self._counted(self.entra), methods=["POST"]),
        ]

    def _counted(self, work: Work) -> Work:
        async def handle(request: Request) -> Response:
            try:
                return await self._calls.call(METHOD, lambda: work(request))
            except _Refused as refused:
                return refused.answer
            except ServiceError as error:
                said = errors.azure_error(error)
                body = {"statusCode": said.status, "message": said.message, "correlationId": str(uuid.uuid4())}
                return JSONResponse(body, said.status, headers=said.headers)

        return handle

    async def managed(self, request: Request) -> Response:
        """A token of the managed identity for `resource`; times are Unix seconds as text."""
        shown = request.headers.get("x-identity-header", "")
        if not hmac.compare_digest(shown.encode(), self._tokens.header.encode()):
            _managed_refusal(401, "The X-IDENTITY-HEADER is missing or wrong.")
        if request.query_params.get("api-version") not in _API_VERSIONS:
            _managed_refusal(400, "The api-version is missing or is not supported.")
        resource = request.query_params.get("resource", "")
        if not resource.startswith("https://"):
            _managed_refusal(400, "The resource is missing or malformed.")
        token, end = self._tokens.issue(resource)
        return JSONResponse(
            {"access_token": token, "expires_on": str(end), "resource": resource, "token_type": "Bearer"}
        )

    async def entra(self, request: Request) -> Response:
        """The client credentials grant of the v2 token endpoint."""
        tenant = request.path_params["tenant"]
        if tenant not in (TENANT, "common", "organizations"):
            _entra_refusal(400, "invalid_request", f"AADSTS90002: Tenant '{tenant}' not found.")
        form = await _form(request)
        if form.get("grant_type") != "client_credentials":
            text = f"AADSTS70003: The app requested an unsupported grant type '{form.get('grant_type', '')}'."
            _entra_refusal(400, "unsupported_grant_type", text)
        secret = form.get("client_secret", "")
        if not hmac.compare_digest(secret.encode(), self._tokens.header.encode()):
            _entra_refusal(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        scope = form.get("scope", "")
        if not scope.startswith("https://") or not scope.endswith("/.default"):
            text = f"AADSTS1002012: The provided value for scope {scope} is not valid."
            _entra_refusal(400, "invalid_scope", text)
        token, _ = self._tokens.issue(scope.removesuffix("/.default"))
        return JSONResponse(
            {"token_type": "Bearer", "expires_in": LIFETIME, "ext_expires_in": LIFETIME, "access_token": token}
        )


async def _form(request: Request) -> dict[str, str]:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY:
            _entra_refusal(400, "invalid_request", "AADSTS900144: The request body is too long.")
    try:
        fields = parse_qs(body.decode(), max_num_fields=64)
    except ValueError:
        _entra_refusal(400, "invalid_request", "AADSTS900144: The request body is malformed.")
    return {name: values[-1] for name, values in fields.items()}


def _managed_refusal(status: int, message: str) -> NoReturn:
    body = {"statusCode": status, "message": message, "correlationId": str(uuid.uuid4())}
    raise _Refused(JSONResponse(body, status))


def _entra_refusal(status: int, error: str, description: str) -> NoReturn:
    raise _Refused(JSONResponse({"error": error, "error_description": description, "error_codes": []}, status))
