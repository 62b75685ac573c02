"""One repository at one endpoint of a registry: requests with authorisation, manifests, blobs, tags."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from control_plane.errors import InvalidParameter
from control_plane.registry.authorization import Authorizer, failure
from control_plane.registry.base import Credentials, Progress, RegistryError
from control_plane.registry.endpoints import Endpoint
from control_plane.registry.manifest import ACCEPTED, MANIFEST_LIMIT, Descriptor, sha256
from control_plane.registry.reference import is_digest
from control_plane.registry.transport import ConnectionBrokenError, Content, Transport, pause

if TYPE_CHECKING:
    import httpx

_ATTEMPTS_WITHOUT_PROGRESS = 5
_UNKNOWN_SIZE_LIMIT = 64 * 1024**3
_TAG_LIMIT = 10_000


class Session:
    """A repository at an endpoint; `path` is its name without host (`library/busybox`)."""

    def __init__(
        self,
        transport: Transport,
        endpoint: Endpoint,
        path: str,
        credentials: Credentials,
        actions: str = "pull",
    ) -> None:
        self.endpoint = endpoint
        self._transport = transport
        self._base = f"{endpoint.url}/v2/{path}"
        self._authorizer = Authorizer(
            transport, credentials, endpoint.insecure, scopes=(f"repository:{path}:{actions}",)
        )

    def bearer(self, token: str) -> None:
        """Authorises with a token got elsewhere (Artifact Registry takes Google's)."""
        self._authorizer.use(f"Bearer {token}")

    def url(self, rest: str) -> str:
        """An address below the repository's."""
        return f"{self._base}/{rest}"

    @asynccontextmanager
    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, content: Content = None
    ) -> AsyncIterator[httpx.Response]:
        """One request, with one answer to a challenge.

        Raises ConnectionBrokenError, or RegistryError from the token service.

        A streamed `content` can't be sent twice: authorise with a small request first.
        """
        streamed = content is not None and not isinstance(content, bytes)
        given = dict(headers or {})
        async with self._transport.open(
            method, url, headers={**given, **self._authorizer.header()}, content=content, insecure=self._insecure(url)
        ) as response:
            if response.status_code != 401 or streamed or not await self._authorizer.answer(response):
                yield response
                return
        async with self._transport.open(
            method, url, headers={**given, **self._authorizer.header()}, content=content, insecure=self._insecure(url)
        ) as response:
            yield response

    def _insecure(self, url: str) -> bool:
        return self.endpoint.insecure and urlsplit(url).netloc == self.endpoint.host

    async def refuse(self, response: httpx.Response) -> RegistryError:
        """The registry's error in a response, to be raised."""
        return await failure(self._transport, response)

    async def read(self, response: httpx.Response, limit: int, what: str) -> bytes:
        """A bounded body."""
        return await self._transport.read(response, limit, what)

    async def manifest_digest(self, name: str) -> str | None:
        """The digest a tag has now; None when the registry doesn't tell."""
        async with self.request(
            "HEAD", self.url(f"manifests/{name}"), headers={"Accept": ", ".join(ACCEPTED)}
        ) as found:
            digest = found.headers.get("docker-content-digest", "")
            return digest if found.status_code == 200 and is_digest(digest) else None

    async def manifest(self, name: str) -> tuple[bytes, str]:
        """A manifest's bytes and content type, by tag or digest; a digest is verified."""
        headers = {"Accept": ", ".join(ACCEPTED)}
        async with self.request("GET", self.url(f"manifests/{name}"), headers=headers) as response:
            if response.status_code != 200:
                raise await self.refuse(response)
            raw = await self.read(response, MANIFEST_LIMIT, "manifest")
            content_type = response.headers.get("content-type", "")
        if is_digest(name):
            verify(raw, name, f"manifest verification failed for digest {name}")
        return raw, content_type

    async def small_blob(self, descriptor: Descriptor, limit: int, what: str) -> bytes:
        """A blob held in memory, verified."""
        data = bytearray()
        async for chunk in self.blob(descriptor):
            data += chunk
            if len(data) > limit:
                raise RegistryError(f"{what} is larger than {limit} bytes")
        return bytes(data)

    async def blob(self, descriptor: Descriptor, progress: Progress | None = None) -> AsyncIterator[bytes]:
        """A blob's bytes. A broken connection is resumed where it stopped; the last chunk has passed only when
        the digest is right, otherwise RegistryError is raised after it."""
        hasher = hashlib.new(descriptor.digest.partition(":")[0])
        limit = descriptor.size or _UNKNOWN_SIZE_LIMIT
        received, attempt = 0, 0
        while True:
            before = received
            try:
                async for chunk in self._blob_from(descriptor.digest, received):
                    received += len(chunk)
                    if received > limit:
                        raise RegistryError(f"blob {descriptor.digest} is larger than its descriptor says")
                    hasher.update(chunk)
                    if progress is not None:
                        progress(received)
                    yield chunk
                if descriptor.size and received < descriptor.size:
                    raise ConnectionBrokenError(f"unexpected EOF in blob {descriptor.digest}")
                break
            except ConnectionBrokenError:
                attempt = 1 if received > before else attempt + 1
                if attempt >= _ATTEMPTS_WITHOUT_PROGRESS:
                    raise
            await pause(attempt)
        if hasher.hexdigest() != descriptor.digest.partition(":")[2]:
            raise RegistryError(f"filesystem layer verification failed for digest {descriptor.digest}")

    async def _blob_from(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self.request("GET", self.url(f"blobs/{digest}"), headers=headers) as response:
            if response.status_code not in {200, 206}:
                if response.status_code >= 500:
                    raise ConnectionBrokenError(f"received unexpected HTTP status: {response.status_code}")
                raise await self.refuse(response)
            skip = offset
            if response.status_code == 206:
                start = response.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
                skip = offset - int(start) if start.isdigit() else 0
                if skip < 0:
                    raise ConnectionBrokenError("the registry answered with another range than asked for")
            async for chunk in self._transport.chunks(response):
                if skip >= len(chunk):
                    skip -= len(chunk)
                    continue
                yield chunk[skip:] if skip else chunk
                skip = 0

    async def tags(self) -> list[str]:
        """All tags, page by page."""
        found: list[str] = []
        url: str | None = self.url("tags/list")
        while url is not None and len(found) < _TAG_LIMIT:
            async with self.request("GET", url) as response:
                if response.status_code != 200:
                    raise await self.refuse(response)
                page = _json_object(await self.read(response, MANIFEST_LIMIT, "list of tags"))
                found += [tag for tag in page.get("tags") or [] if isinstance(tag, str)]
                following = response.links.get("next", {}).get("url")
            after = self._same_host(following) if following else None
            url = after if after != url else None
        return found

    def _same_host(self, location: str) -> str:
        """An address the registry named, which must be its own: our authorisation goes with the request."""
        if location.startswith("/") and not location.startswith("//"):
            return self._origin() + location
        parts = urlsplit(location)
        if parts.netloc != self.endpoint.host or parts.scheme != urlsplit(self.endpoint.url).scheme:
            raise RegistryError("the registry named another host to go on at")
        return location

    def _origin(self) -> str:
        parts = urlsplit(self.endpoint.url)
        return f"{parts.scheme}://{parts.netloc}"

    def location(self, response: httpx.Response) -> str:
        """Where an upload goes on."""
        location = response.headers.get("location", "")
        if not location:
            raise RegistryError("the registry named no location for the upload")
        return self._same_host(location)


def verify(data: bytes, digest: str, message: str) -> None:
    """Raises RegistryError with the message when the data has another digest."""
    algorithm, _, encoded = digest.partition(":")
    actual = sha256(data) if algorithm == "sha256" else f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    if actual != f"{algorithm}:{encoded}":
        raise RegistryError(message)


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise InvalidParameter("the registry's answer is not a JSON object")
    return document
