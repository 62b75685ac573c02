"""The metadata server: what a program on Google's machines asks about itself, and where it gets its tokens.

Facts: cloud.google.com/compute/docs/metadata/{overview,querying-metadata,predefined-metadata-keys} and what google-auth
asks (`GCE_METADATA_HOST` names the server).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from local_cloud.calls import Calls
from local_cloud.errors import ServiceError
from local_cloud.gcp.metadata.tokens import Tokens
from local_cloud.options import PROJECT_NUMBER

_FLAVOR = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
_ROOT = "/computeMetadata/v1"
_INSTANCE_ID = "1000000000000000001"
_SCOPES = "https://www.googleapis.com/auth/cloud-platform"
Tree = dict[str, Any]


class MetadataServer:
    """The HTTP face of the metadata server."""

    def __init__(self, tokens: Tokens, calls: Calls, project: str, region: str) -> None:
        self._tokens = tokens
        self._calls = calls
        self._email = f"{PROJECT_NUMBER}-compute@developer.gserviceaccount.com"
        self._tree = _tree(project, region, self._email)

    def routes(self) -> list[Route]:
        """The routes under `/computeMetadata/v1`, `/` for detection, and the tokens' public keys."""
        accounts = f"{_ROOT}/instance/service-accounts/{{account}}"
        return [
            Route("/", self._detect, methods=["GET"]),
            Route("/oauth2/v3/certs", self._keys, methods=["GET"]),
            self._route(f"{accounts}/identity", "IdentityToken", self.identity),
            self._route(f"{accounts}/token", "AccessToken", self.token),
            self._route(f"{_ROOT}{{path:path}}", "Get", self.get),
        ]

    def _route(self, path: str, name: str, work: Callable[[Request], Awaitable[Response]]) -> Route:
        async def handle(request: Request) -> Response:
            refused = _refused(request)
            if refused is not None:
                return refused
            try:
                response = await self._calls.call(f"Metadata.{name}", lambda: work(request))
            except ServiceError as error:
                response = PlainTextResponse(error.message, error.http_status)
            response.headers.update(_FLAVOR)
            return response

        return Route(path, handle, methods=["GET"])

    async def _detect(self, _request: Request) -> Response:
        return PlainTextResponse("computeMetadata/\n", headers=_FLAVOR)

    async def _keys(self, _request: Request) -> Response:
        return JSONResponse(await self._tokens.public_keys())

    async def identity(self, request: Request) -> Response:
        """An identity token for the `audience`."""
        audience = request.query_params.get("audience", "")
        if not self._known(request):
            return _missing()
        if not audience:
            return PlainTextResponse("non-empty audience parameter required", 400)
        full = request.query_params.get("format") == "full"
        return PlainTextResponse(await self._tokens.identity(audience, self._email, full=full))

    async def token(self, request: Request) -> Response:
        """An access token."""
        if not self._known(request):
            return _missing()
        token, lifetime = self._tokens.access()
        return JSONResponse({"access_token": token, "expires_in": lifetime, "token_type": "Bearer"})

    def _known(self, request: Request) -> bool:
        return request.path_params["account"] in ("default", self._email)

    async def get(self, request: Request) -> Response:
        """A value, a directory's names, or with `recursive=true` everything below as JSON."""
        path = request.path_params["path"]
        node: Any = self._tree
        for part in [part for part in path.split("/") if part]:
            node = node.get(part) if isinstance(node, dict) else None
            if node is None:
                return _missing()
        if not isinstance(node, dict):
            return JSONResponse(node) if request.query_params.get("alt") == "json" else PlainTextResponse(str(node))
        if request.query_params.get("recursive", "").lower() == "true":
            return JSONResponse(_camel(node))
        if not path.endswith("/"):
            return RedirectResponse(f"{request.url.path}/", 301)
        return PlainTextResponse(
            "".join(f"{name}/\n" if isinstance(node[name], dict) else f"{name}\n" for name in node)
        )


def _refused(request: Request) -> Response | None:
    """Refuses what a web page or a proxy may have sent."""
    if "x-forwarded-for" in request.headers or request.headers.get("metadata-flavor", "").lower() != "google":
        return PlainTextResponse("Missing required header: Metadata-Flavor: Google\n", 403, headers=_FLAVOR)
    return None


def _missing() -> Response:
    return PlainTextResponse("Not Found\n", 404)


def _tree(project: str, region: str, email: str) -> Tree:
    account = {"aliases": "default", "email": email, "scopes": _SCOPES}
    place = f"projects/{PROJECT_NUMBER}"
    return {
        "instance": {
            "id": _INSTANCE_ID,
            "region": f"{place}/regions/{region}",
            "service-accounts": {email: account, "default": account},
            "zone": f"{place}/zones/{region}-1",
        },
        "project": {"numeric-project-id": PROJECT_NUMBER, "project-id": project},
        "universe": {"universe-domain": "googleapis.com"},
    }


def _camel(node: Tree) -> Tree:
    """A directory as JSON: names in camel case, lists where the service has lists."""
    found: Tree = {}
    for name, value in node.items():
        key = name if "@" in name else re.sub(r"-([a-z])", lambda match: match[1].upper(), name)
        if isinstance(value, dict):
            found[key] = _camel(value)
        else:
            found[key] = [value] if name in ("aliases", "scopes") else value
    return found
