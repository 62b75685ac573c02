"""Where functions' sources are uploaded: a signed URL of a bucket that the service keeps.

Facts: the comments of google.cloud.functions.v2.FunctionService.GenerateUploadUrl (zip, at most 100 MB, 30 minutes, no
credentials but the URL) and storage/docs/access-control/signed-urls.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import urlencode
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local_cloud.calls import Calls
from local_cloud.errors import ServiceError
from local_cloud.gcp.storage.model import Buckets
from local_cloud.gcp.storage.uploads import Uploads, describe
from local_cloud.options import PROJECT_NUMBER

_PREFIX = "gcf-v2-uploads-"
_LIFETIME = 1800
_LARGEST = 100 << 20
_SIGNATURE = "X-Goog-Signature"
_ALGORITHM = "GOOG4-HMAC-SHA256"


class SourceUploads:
    """Makes upload URLs, and takes what is put to them."""

    def __init__(self, buckets: Buckets, uploads: Uploads, calls: Calls, key: Path, base_url: str) -> None:
        self._buckets = buckets
        self._uploads = uploads
        self._calls = calls
        self._path = key
        self._base_url = base_url

    def create(self, region: str) -> tuple[str, str, str]:
        """(URL, bucket, object) for one upload."""
        bucket = f"{_PREFIX}{PROJECT_NUMBER}.{region}.cloudfunctions.appspot.com"
        if self._buckets.directory(bucket) is None:
            self._buckets.create(bucket, region)
        name = f"{secrets.token_hex(16)}.zip"
        query = {"X-Goog-Algorithm": _ALGORITHM, "X-Goog-Date": str(int(time.time())), "X-Goog-Expires": str(_LIFETIME)}
        query[_SIGNATURE] = self._sign(bucket, name, query)
        return f"{self._base_url}/{bucket}/{name}?{urlencode(query)}", bucket, name

    def route(self) -> Route:
        """`PUT` of a signed URL."""
        return Route(f"/{_PREFIX}{{rest}}/{{name}}", self._put, methods=["PUT"])

    async def _put(self, request: Request) -> Response:
        try:
            return await self._calls.call("Storage.PutSignedObject", lambda: self._take(request))
        except ServiceError as error:
            return _refusal(error.http_status, "InternalError", error.message)

    async def _take(self, request: Request) -> Response:
        bucket, name = f"{_PREFIX}{request.path_params['rest']}", request.path_params["name"]
        refused = self._refused(bucket, name, request.query_params)
        if refused is not None:
            return refused
        too_long = _refusal(400, "EntityTooLarge", f"Your proposed upload exceeds the maximum of {_LARGEST} bytes.")
        try:
            part = await self._uploads.spool(_bounded(request.stream()))
        except _TooLong:
            return too_long
        try:
            wanted = describe(part, bucket, name, {}, request.headers.get("content-type", ""))
            stored = self._buckets.put(part, wanted, None)
        finally:
            part.unlink(missing_ok=True)
        return Response(status_code=200, headers={"x-goog-generation": str(stored.generation)})

    def _refused(self, bucket: str, name: str, query: Mapping[str, str]) -> Response | None:
        signature = query.get(_SIGNATURE, "")
        if not signature:
            who = "Anonymous caller does not have storage.objects.create access to the Google Cloud Storage object."
            return _refusal(403, "AccessDenied", "Access denied.", who)
        if not hmac.compare_digest(signature.encode(), self._sign(bucket, name, query).encode()):
            text = "The request signature we calculated does not match the signature you provided."
            return _refusal(403, "SignatureDoesNotMatch", "Access denied.", text)
        if int(query["X-Goog-Date"]) + int(query["X-Goog-Expires"]) < time.time():
            return _refusal(400, "ExpiredToken", "Invalid argument.", "The provided token has expired.")
        return None

    def _sign(self, bucket: str, name: str, query: Mapping[str, str]) -> str:
        signed = [query.get(key, "") for key in ("X-Goog-Algorithm", "X-Goog-Date", "X-Goog-Expires")]
        return hmac.new(self._key(), "\n".join(["PUT", bucket, name, *signed]).encode(), hashlib.sha256).hexdigest()

    def _key(self) -> bytes:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
            return self._path.read_bytes()


class _TooLong(Exception):
    pass


async def _bounded(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > _LARGEST:
            raise _TooLong
        yield chunk


def _refusal(status: int, code: str, message: str, details: str = "") -> Response:
    more = f"<Details>{escape(details)}</Details>" if details else ""
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{escape(message)}</Message>{more}"
    return Response(body + "</Error>", status, media_type="application/xml")
