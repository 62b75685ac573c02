"""A small image registry on loopback for tests: uploads, mounts, ranges, tokens, and faults on demand."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"errors": [{"code": code, "message": message}]}, status)


class RegistryServer:
    """`auth` is "", "basic" or "bearer"; the login is `user` / `secret`."""

    def __init__(self, auth: str = "") -> None:
        self.auth = auth
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, tuple[bytes, str]]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.requests: list[str] = []
        self.token_requests: list[str] = []
        self.break_after: dict[str, int] = {}
        """Digest → bytes after which its next download breaks off."""
        self.fail_next: list[int] = []
        """Statuses that the next requests for manifests get."""
        self.corrupt: set[str] = set()
        self.redirect_blobs_to = ""
        self.realm = ""
        self.tokens: set[str] = set()
        self.refresh_tokens = {"refresh-me"}
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    # What tests put in.
    def add_blob(self, repository: str, data: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs.setdefault(repository, {})[digest] = data
        return {"digest": digest, "size": len(data)}

    def add_manifest(self, repository: str, document: dict[str, Any], *names: str) -> str:
        raw = orjson.dumps(document)
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        for name in (*names, digest):
            self.manifests.setdefault(repository, {})[name] = (raw, document.get("mediaType", ""))
        return digest

    # The protocol.
    async def handle(self, request: Request) -> Response:
        path = request.url.path
        self.requests.append(f"{request.method} {path}")
        if path == "/token":
            return await self._token(request)
        if (refused := self._refused(request)) is not None:
            return refused
        if path == "/v2/":
            return JSONResponse({})
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs|tags)/(.*)", path)
        if match is None:
            return _error(404, "NAME_UNKNOWN", "repository name not known to registry")
        repository, kind, rest = match.groups()
        if kind == "tags":
            return self._tags(repository, request)
        if kind == "manifests":
            return await self._manifest(request, repository, rest)
        if rest.startswith("uploads/") or rest == "uploads":
            repository = match[1]
            return await self._upload(request, repository, rest.partition("/")[2])
        return self._blob(request, repository, rest)

    def _refused(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", "")
        if not self.auth:
            return None
        if self.auth == "basic":
            if given == "Basic " + base64.b64encode(b"user:secret").decode():
                return None
            challenge = 'Basic realm="test"'
        else:
            token = given.removeprefix("Bearer ")
            if token in self.tokens:
                return None
            realm = self.realm or f"{self.url}/token"
            match = re.match(r"/v2/(.+)/(?:manifests|blobs|tags)/", request.url.path)
            scope = f',scope="repository:{match[1]}:pull"' if match else ""
            broken = ',error="insufficient_scope"' if token else ""
            challenge = f'Bearer realm="{realm}",service="test"{scope}{broken}'
        response = _error(401, "UNAUTHORIZED", "authentication required")
        response.headers["www-authenticate"] = challenge
        return response

    async def _token(self, request: Request) -> Response:
        self.token_requests.append(f"{request.method} {request.url.query}")
        if request.method == "POST":
            form = dict(pair.split("=", 1) for pair in (await request.body()).decode().split("&"))
            allowed = form.get("refresh_token") in self.refresh_tokens
        else:
            given = request.headers.get("authorization", "")
            allowed = given == "Basic " + base64.b64encode(b"user:secret").decode()
        if not allowed:
            if request.method == "GET" and "authorization" not in request.headers:
                # As Docker Hub does: an anonymous token that opens nothing.
                return JSONResponse({"token": "anonymous"})
            return _error(401, "UNAUTHORIZED", "incorrect username or password")
        token = secrets.token_hex(8)
        self.tokens.add(token)
        return JSONResponse({"token": token, "expires_in": 300})

    def _tags(self, repository: str, request: Request) -> Response:
        if repository not in self.manifests:
            return _error(404, "NAME_UNKNOWN", "repository name not known to registry")
        tags = sorted(name for name in self.manifests[repository] if ":" not in name)
        last = request.query_params.get("last", "")
        page = [tag for tag in tags if tag > last][:2]
        headers = {}
        if page and page[-1] != tags[-1]:
            headers["link"] = f'</v2/{repository}/tags/list?last={page[-1]}>; rel="next"'
        return JSONResponse({"name": repository, "tags": page}, headers=headers)

    async def _manifest(self, request: Request, repository: str, name: str) -> Response:
        if self.fail_next:
            return Response("try again", self.fail_next.pop(0))
        known = self.manifests.get(repository, {})
        if request.method == "PUT":
            known = self.manifests.setdefault(repository, known)
            raw = await request.body()
            document = orjson.loads(raw)
            blobs = self.blobs.get(repository, {})
            for one in [document.get("config"), *document.get("layers", [])]:
                if one and one["digest"] not in blobs:
                    return _error(400, "MANIFEST_BLOB_UNKNOWN", f"blob unknown to registry: {one['digest']}")
            digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
            for one in {name, digest}:
                known[one] = (raw, request.headers["content-type"])
            return Response(status_code=201, headers={"docker-content-digest": digest})
        if request.method == "DELETE":
            return Response(status_code=202 if known.pop(name, None) else 404)
        if name not in known:
            return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        raw, media_type = known[name]
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        headers = {"docker-content-digest": digest, "content-type": media_type or "application/json"}
        return Response(raw, headers=headers)

    def _blob(self, request: Request, repository: str, digest: str) -> Response:
        data = self.blobs.get(repository, {}).get(digest)
        if data is None:
            return _error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        if self.redirect_blobs_to and request.method == "GET":
            return Response(status_code=307, headers={"location": f"{self.redirect_blobs_to}{request.url.path}"})
        if request.method == "HEAD":
            return Response(headers={"content-length": str(len(data))})
        if digest in self.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = 0
        status = 200
        if (ranged := request.headers.get("range")) is not None:
            start = int(ranged.removeprefix("bytes=").rstrip("-"))
            status = 206
        headers = {"content-length": str(len(data) - start)}
        if status == 206:
            headers["content-range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        broken = self.break_after.pop(digest, None)
        if broken is None:
            return Response(data[start:], status, headers=headers)

        async def part() -> AsyncIterator[bytes]:
            yield data[start : start + broken]

        # Fewer bytes than announced: the connection is cut.
        return StreamingResponse(part(), status, headers=headers)

    async def _upload(self, request: Request, repository: str, upload: str) -> Response:
        if request.method == "POST":
            mount, source = request.query_params.get("mount"), request.query_params.get("from", "")
            if mount and mount in self.blobs.get(source, {}):
                self.blobs.setdefault(repository, {})[mount] = self.blobs[source][mount]
                return Response(status_code=201, headers={"docker-content-digest": mount})
            upload = secrets.token_hex(8)
            self.uploads[upload] = bytearray()
            location = f"/v2/{repository}/blobs/uploads/{upload}?state=x"
            return Response(status_code=202, headers={"location": location})
        if upload not in self.uploads:
            return _error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        if request.method == "DELETE":
            del self.uploads[upload]
            return Response(status_code=204)
        async for chunk in request.stream():
            self.uploads[upload] += chunk
        if request.method == "PATCH":
            location = f"{self.url}/v2/{repository}/blobs/uploads/{upload}?state=y"
            return Response(status_code=202, headers={"location": location})
        data = bytes(self.uploads.pop(upload))
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if request.query_params.get("digest") != digest:
            return _error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self.blobs.setdefault(repository, {})[digest] = data
        return Response(status_code=201)


@asynccontextmanager
async def registry_server(auth: str = "") -> AsyncIterator[RegistryServer]:
    """A running registry on a free port."""
    state = RegistryServer(auth)
    methods = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", state.handle, methods=methods)])
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    state.port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.should_exit = True
        await task


def repository_path(repository: str) -> str:
    """`host/path` without the host, as the server knows it."""
    return urlsplit(f"//{repository}").path.lstrip("/")
