"""The registry over HTTP: the OCI distribution API v1.1 (without referrers)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from local_cloud.calls import Calls
from local_cloud.errors import ServiceError
from local_cloud.gcp.artifact_registry.auth import RegistryAuth
from local_cloud.gcp.artifact_registry.errors import RegistryError
from local_cloud.gcp.artifact_registry.model import MAX_MANIFEST, Registry

_CONTENT_RANGE = re.compile(r"(?:bytes )?(\d+)-(\d+)")
_HEADERS = {"Docker-Distribution-API-Version": "registry/2.0"}
_NAMES = {
    ("blobs", "GET"): "GetBlob",
    ("blobs", "HEAD"): "HeadBlob",
    ("blobs", "DELETE"): "DeleteBlob",
    ("uploads", "POST"): "StartUpload",
    ("uploads", "GET"): "GetUpload",
    ("uploads", "PATCH"): "PatchUpload",
    ("uploads", "PUT"): "FinishUpload",
    ("uploads", "DELETE"): "CancelUpload",
    ("manifests", "GET"): "GetManifest",
    ("manifests", "HEAD"): "HeadManifest",
    ("manifests", "PUT"): "PutManifest",
    ("manifests", "DELETE"): "DeleteManifest",
    ("tags", "GET"): "ListTags",
}
_ALL = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class RegistryFace:
    """The HTTP face of one registry."""

    def __init__(self, registry: Registry, auth: RegistryAuth, calls: Calls) -> None:
        self._registry = registry
        self._auth = auth
        self._calls = calls

    def routes(self) -> list[Route]:
        """The routes under `/v2/`."""
        return [
            Route("/v2/", self._guard(self.version, ""), methods=["GET", "HEAD"]),
            Route("/v2/token", self.token, methods=["GET"]),
            Route("/v2/{name:path}/blobs/uploads/", self._guard(self.start, "uploads"), methods=["POST"]),
            Route("/v2/{name:path}/blobs/uploads/{upload}", self._guard(self.upload, "uploads"), methods=_ALL),
            Route("/v2/{name:path}/blobs/{digest}", self._guard(self.blob, "blobs"), methods=_ALL),
            Route("/v2/{name:path}/manifests/{reference}", self._guard(self.manifest, "manifests"), methods=_ALL),
            Route("/v2/{name:path}/tags/list", self._guard(self.tags, "tags"), methods=["GET"]),
        ]

    def _guard(
        self, work: Callable[[Request], Awaitable[Response]], kind: str
    ) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            name = request.path_params.get("name", "")
            if not self._auth.admits(request.headers.get("authorization", "")):
                scope = f"repository:{name}:pull,push" if _well_formed(name) else ""
                challenge = self._auth.challenge(str(request.base_url).rstrip("/"), scope)
                answer = _error(RegistryError("UNAUTHORIZED", "authentication required"))
                answer.headers["WWW-Authenticate"] = challenge
                return answer
            method = _NAMES.get((kind, request.method), "Version" if not kind else "Unsupported")
            try:
                if name:
                    Registry.check_name(name)
                answer = await self._calls.call(f"Registry.{method}", lambda: work(request))
            except RegistryError as error:
                return _error(error)
            except ServiceError as error:
                return _fault(error)
            answer.headers.update(_HEADERS)
            return answer

        return handle

    async def version(self, _request: Request) -> Response:
        """`GET /v2/`."""
        return JSONResponse({})

    async def token(self, request: Request) -> Response:
        """`GET /v2/token`: a bearer token for a user's basic credentials."""
        if not self._auth.knows(request.headers.get("authorization", "")):
            return _error(RegistryError("UNAUTHORIZED", "incorrect username or password"))
        token, seconds = self._auth.issue()
        return JSONResponse({"token": token, "access_token": token, "expires_in": seconds})

    async def start(self, request: Request) -> Response:
        """Starts an upload, mounts another repository's blob, or takes a whole blob at once (`?digest=`)."""
        name, query = request.path_params["name"], request.query_params
        if "mount" in query and "from" in query and self._registry.mount(name, query["mount"], query["from"]):
            return _created(f"/v2/{name}/blobs/{query['mount']}", query["mount"])
        upload = self._registry.files.begin()
        if "digest" in query:
            await self._registry.files.append(upload, request.stream())
            return self._finish(name, upload, query["digest"])
        return _accepted(name, upload, 0)

    async def upload(self, request: Request) -> Response:
        """One upload: its progress, a chunk more, its end, or its cancellation."""
        name, upload, files = request.path_params["name"], request.path_params["upload"], self._registry.files
        if request.method == "GET":
            answer = _accepted(name, upload, files.uploaded(upload))
            answer.status_code = 204
            return answer
        if request.method == "DELETE":
            files.cancel(upload)
            return Response(status_code=204)
        if request.method not in ("PATCH", "PUT"):
            raise RegistryError("UNSUPPORTED", "the operation is unsupported")
        digest = request.query_params.get("digest", "")
        if request.method == "PUT" and not digest:
            raise RegistryError("DIGEST_INVALID", "digest parameter missing")
        self._check_range(request, files.uploaded(upload))
        size = await files.append(upload, request.stream())
        return _accepted(name, upload, size) if request.method == "PATCH" else self._finish(name, upload, digest)

    @staticmethod
    def _check_range(request: Request, size: int) -> None:
        header = request.headers.get("content-range")
        if header is None:
            return
        match = _CONTENT_RANGE.fullmatch(header)
        if match is None or int(match[1]) != size:
            raise RegistryError("RANGE_INVALID", f"the chunk must begin at byte {size}", header)

    def _finish(self, name: str, upload: str, digest: str) -> Response:
        self._registry.files.finish(upload, digest)
        self._registry.link_blob(name, digest)
        return _created(f"/v2/{name}/blobs/{digest}", digest)

    async def blob(self, request: Request) -> Response:
        """A blob: its content (with ranges), its size, or its deletion."""
        name, digest = request.path_params["name"], request.path_params["digest"]
        if request.method == "DELETE":
            self._registry.delete_blob(name, digest)
            return Response(status_code=202)
        if request.method not in ("GET", "HEAD"):
            raise RegistryError("UNSUPPORTED", "the operation is unsupported")
        path = self._registry.blob(name, digest)
        headers = {"Docker-Content-Digest": digest, "ETag": f'"{digest}"'}
        return FileResponse(path, headers=headers, media_type="application/octet-stream")

    async def manifest(self, request: Request) -> Response:
        """A manifest by tag or digest."""
        name, reference = request.path_params["name"], request.path_params["reference"]
        if request.method in ("GET", "HEAD"):
            found = self._registry.manifest(name, reference)
            headers = {"Docker-Content-Digest": found.digest, "ETag": f'"{found.digest}"'}
            return Response(found.content, headers=headers, media_type=found.media_type)
        if request.method == "DELETE":
            self._registry.delete_manifest(name, reference)
            return Response(status_code=202)
        if request.method != "PUT":
            raise RegistryError("UNSUPPORTED", "the operation is unsupported")
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > MAX_MANIFEST:
                raise RegistryError("MANIFEST_INVALID", f"manifest is larger than {MAX_MANIFEST} bytes")
        media_type = request.headers.get("content-type", "")
        digest = self._registry.put_manifest(name, reference, media_type, bytes(content))
        return _created(f"/v2/{name}/manifests/{digest}", digest)

    async def tags(self, request: Request) -> Response:
        """`GET /v2/<name>/tags/list?n=&last=`."""
        name, query = request.path_params["name"], request.query_params
        count = query.get("n", "1000")
        limit = min(int(count), 1000) if count.isdecimal() else 1000
        tags = self._registry.tags(name, query.get("last", ""), limit + 1)
        answer = JSONResponse({"name": name, "tags": tags[:limit]})
        if len(tags) > limit and limit:
            answer.headers["Link"] = f'</v2/{name}/tags/list?n={limit}&last={tags[limit - 1]}>; rel="next"'
        return answer


def _well_formed(name: str) -> bool:
    try:
        Registry.check_name(name)
    except RegistryError:
        return False
    return True


def _error(error: RegistryError) -> Response:
    body = {"errors": [{"code": error.code, "message": error.message, "detail": error.detail}]}
    return JSONResponse(body, status_code=error.status, headers=_HEADERS)


def _fault(error: ServiceError) -> Response:
    code = "TOOMANYREQUESTS" if error.code == "RESOURCE_EXHAUSTED" else "UNKNOWN"
    body = {"errors": [{"code": code, "message": error.message, "detail": None}]}
    return JSONResponse(body, status_code=error.http_status, headers=_HEADERS)


def _created(location: str, digest: str) -> Response:
    return Response(status_code=201, headers={"Location": location, "Docker-Content-Digest": digest})


def _accepted(name: str, upload: str, size: int) -> Response:
    headers = {
        "Location": f"/v2/{name}/blobs/uploads/{upload}",
        "Docker-Upload-UUID": upload,
        "Range": f"0-{max(size - 1, 0)}",
    }
    return Response(status_code=202, headers=headers)
