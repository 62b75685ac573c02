"""Our registry: where pulled and loaded images are kept (Artifact Registry, or the local cloud's stand-in).

An image of `docker.io/library/busybox` pulled by tenant `t` is kept in `<host>/<prefix>/t/docker.io/library/busybox`
and named by digest only. Repositories are per tenant; the registry deduplicates the blobs underneath.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from control_plane.pieces import in_pieces
from control_plane.registry.base import ANONYMOUS, Credentials, RegistryError
from control_plane.registry.endpoints import Endpoint, RegistryPolicy
from control_plane.registry.manifest import Descriptor, sha256
from control_plane.registry.reference import Reference
from control_plane.registry.session import Session
from control_plane.registry.transport import Transport

_PATH_LIMIT = 200
_PIECE = 1024 * 1024
_SESSIONS = 512


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """Where our registry is, and how we authorise there.

    `url` is `https://europe-docker.pkg.dev` or `http://127.0.0.1:5000`; `prefix` is the path under it
    (`project/repository` in Artifact Registry). `access_token` yields a fresh token per call (Artifact Registry takes
    a Google access token as a bearer token); `login` a user and password that may change (Azure's registry takes a
    refresh token as the password); otherwise `username` and `password` answer its challenges.
    """

    url: str
    prefix: str
    access_token: Callable[[], Awaitable[str]] | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    login: Callable[[], Awaitable[Credentials]] | None = None


_TOKEN_USER = "oauth2accesstoken"  # noqa: S105 (a name)
"""Artifact Registry's user name for a Google access token as the password (its documentation, "Authentication")."""


def own_login(settings: RegistrySettings, domain: str) -> Callable[[], Awaitable[Credentials]]:
    """How to log in where an image's reference names our own registry; anonymously anywhere else."""

    async def login() -> Credentials:
        if domain != urlsplit(settings.url).netloc:
            return ANONYMOUS
        if settings.access_token is not None:
            return Credentials(_TOKEN_USER, await settings.access_token())
        if settings.login is not None:
            return await settings.login()
        return Credentials(settings.username, settings.password) if settings.username else ANONYMOUS

    return login


class StorageRegistry:
    """ImageRegistry over the distribution protocol."""

    def __init__(self, settings: RegistrySettings) -> None:
        parts = urlsplit(settings.url)
        self._settings = settings
        self._host = parts.netloc
        insecure = parts.scheme == "http"
        self._endpoint = Endpoint(settings.url.rstrip("/"), insecure=insecure)
        # The operator named this one registry: redirects to its storage may be plain when it is.
        policy = RegistryPolicy(insecure=[self._host] if insecure else [])
        self._transport = Transport(policy.insecure, trust_env=not insecure)
        self._sessions: dict[str, tuple[Credentials, Session]] = {}
        self._uploads: dict[tuple[str, str], asyncio.Lock] = {}

    async def warm(self) -> None:
        """Makes the HTTP client ahead of the first request."""
        await self._transport.warm(self._endpoint.insecure)

    async def close(self) -> None:
        """Closes the connections."""
        await self._transport.close()

    def repository(self, tenant: str, reference: Reference) -> str:
        """`host/prefix/tenant/name`, every part made a valid path component."""
        path = "/".join(_component(part) for part in (tenant, *reference.name.split("/")))
        if len(path) > _PATH_LIMIT:
            path = f"{path[: _PATH_LIMIT - 65].rstrip('._-/')}/{hashlib.sha256(path.encode()).hexdigest()}"
        return f"{self._host}/{self._settings.prefix.strip('/')}/{path}"

    async def _session(self, repository: str) -> Session:
        host, _, path = repository.partition("/")
        if host != self._host:
            raise RegistryError(f"{repository} is not in this registry")
        if self._settings.access_token is not None:
            session = self._new_session(path, ANONYMOUS)
            session.bearer(await self._settings.access_token())
            return session
        credentials = await self._credentials()
        known = self._sessions.get(path)
        if known is not None and known[0] == credentials:
            return known[1]
        if len(self._sessions) >= _SESSIONS:
            self._sessions.clear()
        session = self._new_session(path, credentials)
        self._sessions[path] = (credentials, session)
        return session

    async def _credentials(self) -> Credentials:
        if self._settings.login is not None:
            return await self._settings.login()
        credentials = Credentials(self._settings.username, self._settings.password)
        return credentials if credentials.username else ANONYMOUS

    def _new_session(self, path: str, credentials: Credentials) -> Session:
        return Session(self._transport, self._endpoint, path, credentials, "pull,push,delete")

    async def has_blob(self, repository: str, digest: str) -> bool:
        """A HEAD request."""
        session = await self._session(repository)
        async with session.request("HEAD", session.url(f"blobs/{digest}")) as response:
            if response.status_code in {200, 404}:
                return response.status_code == 200
            raise await session.refuse(response)

    async def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        """A cross-repository mount."""
        session = await self._session(repository)
        origin = quote(source.partition("/")[2], safe="")
        url = session.url(f"blobs/uploads/?mount={quote(digest, safe='')}&from={origin}")
        async with session.request("POST", url, headers={"Content-Length": "0"}) as response:
            if response.status_code == 201:
                return True
            if response.status_code == 202:
                # The registry opened an upload instead; it is not needed.
                await self._cancel(session, session.location(response))
            return False

    async def put_blob(self, repository: str, digest: str, content: AsyncIterator[bytes]) -> None:
        """A streamed upload; the stream is read and verified also when the blob is there already."""
        lock = self._uploads.setdefault((repository, digest), asyncio.Lock())
        try:
            async with lock:
                if await self.has_blob(repository, digest):
                    await _drain(content)
                    return
                await self._upload(await self._session(repository), digest, content)
        finally:
            if not lock.locked():
                self._uploads.pop((repository, digest), None)

    async def _upload(self, session: Session, digest: str, content: AsyncIterator[bytes]) -> None:
        location = await self._begin(session)
        headers = {"Content-Type": "application/octet-stream"}
        try:
            pieces = in_pieces(content, _PIECE)
            async with session.request("PATCH", location, headers=headers, content=pieces) as response:
                if response.status_code not in {202, 204}:
                    raise await session.refuse(response)
                location = session.location(response)
            await self._finish(session, location, digest, b"")
        except BaseException:
            # Also when the pull is cancelled: a broken upload must not stay behind.
            await asyncio.shield(self._cancel(session, location))
            raise

    async def _begin(self, session: Session) -> str:
        url = session.url("blobs/uploads/")
        async with session.request("POST", url, headers={"Content-Length": "0"}) as response:
            if response.status_code != 202:
                raise await session.refuse(response)
            return session.location(response)

    async def _finish(self, session: Session, location: str, digest: str, data: bytes) -> None:
        url = f"{location}{'&' if '?' in location else '?'}digest={quote(digest, safe='')}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(data))}
        async with session.request("PUT", url, headers=headers, content=data) as response:
            if response.status_code not in {201, 204}:
                raise await session.refuse(response)

    async def _cancel(self, session: Session, location: str) -> None:
        try:
            async with session.request("DELETE", location):
                pass
        except RegistryError:
            # The registry drops abandoned uploads by itself.
            return

    async def put_bytes(self, repository: str, data: bytes) -> str:
        """A monolithic upload."""
        session = await self._session(repository)
        digest = sha256(data)
        if not await self.has_blob(repository, digest):
            await self._finish(session, await self._begin(session), digest, data)
        return digest

    async def put_manifest(self, repository: str, manifest: bytes, media_type: str) -> str:
        """Stores a manifest under its digest, without a tag."""
        session = await self._session(repository)
        digest = sha256(manifest)
        url = session.url(f"manifests/{digest}")
        async with session.request("PUT", url, headers={"Content-Type": media_type}, content=manifest) as response:
            if response.status_code not in {200, 201}:
                raise await session.refuse(response)
        return digest

    async def put_tagged(self, repository: str, tag: str, manifest: bytes, media_type: str) -> None:
        """Stores a manifest under a tag."""
        session = await self._session(repository)
        url = session.url(f"manifests/{tag}")
        async with session.request("PUT", url, headers={"Content-Type": media_type}, content=manifest) as response:
            if response.status_code not in {200, 201}:
                raise await session.refuse(response)

    async def tagged(self, repository: str, tag: str) -> bytes | None:
        """The manifest a tag names, None when there is no such tag."""
        try:
            return (await (await self._session(repository)).manifest(tag))[0]
        except RegistryError as error:
            if error.status == 404:
                return None
            raise

    async def delete_manifest(self, repository: str, digest: str) -> None:
        """Deletes by digest."""
        session = await self._session(repository)
        async with session.request("DELETE", session.url(f"manifests/{digest}")) as response:
            if response.status_code not in {200, 202, 204, 404}:
                raise await session.refuse(response)

    async def blob(self, repository: str, digest: str, size: int) -> AsyncIterator[bytes]:
        """A blob's bytes, resumed and verified."""
        session = await self._session(repository)
        async for chunk in session.blob(Descriptor("", digest, size)):
            yield chunk


def _component(text: str) -> str:
    """A valid path component of a repository name. Two names may fall together: images are named by digest."""
    lowered = re.sub(r"[^a-z0-9._-]", "-", text.lower())
    lowered = re.sub(r"[._-]{2,}", "-", lowered).strip("._-")
    return lowered or "x"


async def _drain(content: AsyncIterator[bytes]) -> None:
    """Reads a stream that is not needed: it verifies what it yields, and the user sees its progress."""
    async for _ in content:
        pass
