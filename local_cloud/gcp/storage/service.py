"""Cloud Storage's JSON API, as much of it as google-cloud-storage needs for buckets and objects."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from local_cloud.calls import Calls
from local_cloud.errors import ServiceError, invalid
from local_cloud.gcp.storage.model import Bucket, Buckets, Stored
from local_cloud.gcp.storage.uploads import Session, Uploads, describe, split_multipart

Work = Callable[[Request], Awaitable[Response]]
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_MAX_JSON = 1 << 20
_RESUME = 308


class StorageFace:
    """The HTTP face of the storage stand-in."""

    def __init__(self, buckets: Buckets, uploads: Uploads, calls: Calls) -> None:
        self._buckets = buckets
        self._uploads = uploads
        self._calls = calls

    def routes(self) -> list[Route]:
        """The routes under `/storage/v1`, `/upload/storage/v1` and `/download/storage/v1`."""
        bucket, objects = "/storage/v1/b/{bucket}", "/storage/v1/b/{bucket}/o"
        return [
            self._route("/storage/v1/b", "InsertBucket", self.insert_bucket, "POST"),
            self._route("/storage/v1/b", "ListBuckets", self.list_buckets, "GET"),
            self._route(bucket, "GetBucket", self.get_bucket, "GET"),
            self._route(bucket, "DeleteBucket", self.delete_bucket, "DELETE"),
            self._route(objects, "ListObjects", self.list_objects, "GET"),
            self._route(f"{objects}/{{name:path}}", "GetObject", self.get_object, "GET"),
            self._route(f"{objects}/{{name:path}}", "DeleteObject", self.delete_object, "DELETE"),
            self._route(f"/download{objects}/{{name:path}}", "ReadObject", self.read_object, "GET"),
            self._route(f"/upload{objects}", "InsertObject", self.insert_object, "POST"),
            self._route(f"/upload{objects}", "ResumeUpload", self.resume, "PUT"),
            self._route(f"/upload{objects}", "CancelUpload", self.cancel, "DELETE"),
        ]

    def _route(self, path: str, name: str, work: Work, method: str) -> Route:
        async def handle(request: Request) -> Response:
            try:
                return await self._calls.call(f"Storage.{name}", lambda: work(request))
            except ServiceError as error:
                return _refusal(error)

        return Route(path, handle, methods=[method])

    # --- buckets

    async def insert_bucket(self, request: Request) -> Response:
        """`buckets.insert`."""
        body = await _read_json(request)
        bucket = self._buckets.create(str(body.get("name", "")), str(body.get("location") or "US"))
        return JSONResponse(_bucket(request, bucket))

    async def get_bucket(self, request: Request) -> Response:
        """`buckets.get`."""
        return JSONResponse(_bucket(request, self._buckets.bucket(request.path_params["bucket"])))

    async def list_buckets(self, request: Request) -> Response:
        """`buckets.list`; all on one page."""
        found = self._buckets.buckets(request.query_params.get("prefix", ""))
        return JSONResponse({"kind": "storage#buckets", "items": [_bucket(request, bucket) for bucket in found]})

    async def delete_bucket(self, request: Request) -> Response:
        """`buckets.delete`."""
        self._buckets.delete_bucket(request.path_params["bucket"])
        return Response(status_code=204)

    # --- objects

    async def list_objects(self, request: Request) -> Response:
        """`objects.list` with prefix, delimiter and pages."""
        query = request.query_params
        size = query.get("maxResults", "1000")
        if not size.isdecimal() or int(size) < 1:
            invalid("maxResults must be a positive number.")
        found, prefixes, following = self._buckets.list(
            request.path_params["bucket"],
            query.get("prefix", ""),
            query.get("delimiter", ""),
            query.get("pageToken", ""),
            min(int(size), 1000),
        )
        body: dict[str, Any] = {"kind": "storage#objects", "items": [_object(request, stored) for stored in found]}
        if prefixes:
            body["prefixes"] = prefixes
        if following:
            body["nextPageToken"] = following
        return JSONResponse(body)

    async def get_object(self, request: Request) -> Response:
        """`objects.get`: metadata, or with `alt=media` the content."""
        if request.query_params.get("alt") == "media":
            return await self.read_object(request)
        return JSONResponse(_object(request, self._find(request)))

    async def read_object(self, request: Request) -> Response:
        """An object's content, or a range of it."""
        stored = self._find(request)
        headers = {
            "X-Goog-Generation": str(stored.generation),
            "X-Goog-Stored-Content-Length": str(stored.size),
            "Accept-Ranges": "bytes",
        }
        if stored.md5 and "range" not in request.headers:
            headers["X-Goog-Hash"] = f"crc32c={stored.crc32c},md5={stored.md5}"
        if stored.name.endswith("/"):
            return Response(b"", headers=headers, media_type=stored.content_type)
        path = self._buckets.path(stored.bucket, stored.name)
        return FileResponse(path, headers=headers, media_type=stored.content_type)

    async def delete_object(self, request: Request) -> Response:
        """`objects.delete`."""
        params = request.path_params
        self._buckets.delete(params["bucket"], params["name"], _generation(request, "ifGenerationMatch"))
        return Response(status_code=204)

    def _find(self, request: Request) -> Stored:
        bucket, name = request.path_params["bucket"], request.path_params["name"]
        self._buckets.check_generation(bucket, name, _generation(request, "ifGenerationMatch"))
        stored = self._buckets.get(bucket, name)
        if _generation(request, "generation") not in (None, stored.generation):
            raise ServiceError("NOT_FOUND", f"No such object: {bucket}/{name}")
        return stored

    # --- uploads

    async def insert_object(self, request: Request) -> Response:
        """`objects.insert`: media, multipart, or the beginning of a resumable upload."""
        bucket, kind = request.path_params["bucket"], request.query_params.get("uploadType")
        condition = _generation(request, "ifGenerationMatch")
        content_type = request.headers.get("content-type", "")
        if kind == "resumable":
            return await self._begin(request, bucket, condition)
        if kind not in ("media", "multipart"):
            invalid("uploadType must be media, multipart or resumable.")
        part = await self._uploads.spool(request.stream())
        try:
            description: dict[str, Any] = {}
            if kind == "multipart":
                description, content_type = split_multipart(part, content_type)
            name = str(request.query_params.get("name") or description.get("name") or "")
            stored = self._buckets.put(part, describe(part, bucket, name, description, content_type), condition)
        finally:
            part.unlink(missing_ok=True)
        return JSONResponse(_object(request, stored))

    async def _begin(self, request: Request, bucket: str, condition: int | None) -> Response:
        description = await _read_json(request)
        name = str(request.query_params.get("name") or description.get("name") or "")
        self._buckets.path(bucket, name)
        self._buckets.check_generation(bucket, name, condition)
        description.setdefault("contentType", request.headers.get("x-upload-content-type"))
        upload = self._uploads.begin(Session(uuid.uuid4().hex, bucket, name, description, condition))
        location = f"{_base(request)}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={upload}"
        return Response(status_code=200, headers={"Location": location, "X-GUploader-UploadID": upload})

    async def resume(self, request: Request) -> Response:
        """A chunk of a resumable upload, or the question how much has arrived (`bytes */N`)."""
        session = self._uploads.session(request.query_params.get("upload_id", ""))
        part, header = self._uploads.part(session.id), request.headers.get("content-range")
        match = _RANGE.fullmatch(header) if header else None
        if header and match is None:
            invalid(f"Malformed Content-Range: {header}")
        if match is None or match[1] is not None:
            size = await self._uploads.append(session.id, int(match[1]) if match else 0, request.stream())
        else:
            size = part.stat().st_size
        if match is not None and (match[3] == "*" or int(match[3]) != size):
            return Response(status_code=_RESUME, headers={"Range": f"bytes=0-{size - 1}"} if size else {})
        wanted = describe(part, session.bucket, session.name, session.description, "")
        stored = self._buckets.put(part, wanted, session.if_generation)
        self._uploads.end(session.id)
        return JSONResponse(_object(request, stored))

    async def cancel(self, request: Request) -> Response:
        """Cancels a resumable upload (499, as the service answers)."""
        self._uploads.end(self._uploads.session(request.query_params.get("upload_id", "")).id)
        return Response(status_code=499)


async def _read_json(request: Request) -> dict[str, Any]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_JSON:
            invalid("the request's JSON is too long.")
    try:
        value = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        invalid("the request is not a JSON object.")
    return value


def _generation(request: Request, key: str) -> int | None:
    text = request.query_params.get(key)
    if text is None:
        return None
    if not text.isdecimal():
        invalid(f"{key} must be a number.")
    return int(text)


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _bucket(request: Request, bucket: Bucket) -> dict[str, Any]:
    return {
        "kind": "storage#bucket",
        "id": bucket.name,
        "name": bucket.name,
        "selfLink": f"{_base(request)}/storage/v1/b/{bucket.name}",
        "location": bucket.location.upper(),
        "storageClass": "STANDARD",
        "timeCreated": _time(bucket.created),
        "metageneration": "1",
    }


def _object(request: Request, stored: Stored) -> dict[str, Any]:
    path = f"/storage/v1/b/{stored.bucket}/o/{quote(stored.name, safe='')}"
    body: dict[str, Any] = {
        "kind": "storage#object",
        "id": f"{stored.bucket}/{stored.name}/{stored.generation}",
        "selfLink": _base(request) + path,
        "mediaLink": f"{_base(request)}/download{path}?generation={stored.generation}&alt=media",
        "name": stored.name,
        "bucket": stored.bucket,
        "generation": str(stored.generation),
        "metageneration": "1",
        "contentType": stored.content_type,
        "storageClass": "STANDARD",
        "size": str(stored.size),
        "timeCreated": _time(stored.updated),
        "updated": _time(stored.updated),
        "etag": str(stored.generation),
    }
    if stored.md5:
        body |= {"md5Hash": stored.md5, "crc32c": stored.crc32c}
    if stored.metadata:
        body["metadata"] = stored.metadata
    return body


def _refusal(error: ServiceError) -> Response:
    # A failed precondition is 412 in the JSON API, unlike elsewhere in Google's APIs.
    status = 412 if error.code == "FAILED_PRECONDITION" else error.http_status
    reasons = {404: "notFound", 409: "conflict", 412: "conditionNotMet", 400: "invalid"}
    errors = [{"message": error.message, "domain": "global", "reason": reasons.get(status, "backendError")}]
    return JSONResponse({"error": {"code": status, "message": error.message, "errors": errors}}, status_code=status)
