"""Registries named by users: where Docker pulls from and logs in to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from control_plane.errors import InvalidParameter, Unauthorized
from control_plane.registry.authorization import Authorizer, failure
from control_plane.registry.base import ANONYMOUS, Credentials, Progress, RegistryError
from control_plane.registry.endpoints import Endpoint, RegistryPolicy
from control_plane.registry.manifest import CONFIG_LIMIT, Descriptor, Manifest, ManifestList, read
from control_plane.registry.platform import Platform, choose
from control_plane.registry.reference import Reference, is_digest
from control_plane.registry.session import Session
from control_plane.registry.transport import ConnectionBrokenError, Transport

T = TypeVar("T")

_LOGIN_DEFAULT = "index.docker.io"
_LIST_DEPTH = 3


class NoMatchError(RegistryError):
    """No manifest of the list fits the platform."""


class FoundImage:
    """RemoteImage: an image at the endpoint that had it."""

    def __init__(self, session: Session, digest: str, manifest: Manifest) -> None:
        self._session = session
        self.digest = digest
        self.manifest = manifest

    async def config(self) -> bytes:
        """The configuration blob, verified."""
        try:
            return await self._session.small_blob(self.manifest.config, CONFIG_LIMIT, "image configuration")
        except RegistryError as error:
            raise RegistryError(f"error pulling image configuration: {error}", status=error.status) from error

    def blob(self, descriptor: Descriptor, progress: Progress) -> AsyncIterator[bytes]:
        """A blob's bytes, resumed and verified."""
        return self._session.blob(descriptor, progress)


class UpstreamRegistries:
    """Upstreams over HTTP. Mirrors come first for Docker Hub; insecure registries fall back to plain HTTP."""

    def __init__(self, policy: RegistryPolicy) -> None:
        self._policy = policy
        self._transport = Transport(policy.insecure)
        self._schemes: dict[str, str] = {}
        """Which of an insecure registry's two endpoints answered last."""

    async def close(self) -> None:
        """Closes the connections."""
        await self._transport.close()

    async def digest(self, reference: Reference, credentials: Credentials) -> str | None:
        """What the tag names now, by a HEAD request."""

        async def ask(session: Session) -> str | None:
            return await session.manifest_digest(reference.digest or reference.tag or "latest")

        return await self._each(reference, credentials, ask)

    async def find(self, reference: Reference, platform: Platform, credentials: Credentials) -> FoundImage:
        """The image of a platform at the first endpoint that has it."""

        async def ask(session: Session) -> FoundImage:
            raw, content_type = await session.manifest(reference.digest or reference.tag or "latest")
            top = read(raw, content_type)
            return FoundImage(session, top.digest, await _manifest_for(session, top, platform, _LIST_DEPTH))

        found = await self._each(reference, credentials, ask)
        if reference.digest is not None and is_digest(reference.digest):
            # Verified against it, whatever its algorithm.
            found.digest = reference.digest
        return found

    async def tags(self, reference: Reference, credentials: Credentials) -> list[str]:
        """All tags."""
        return await self._each(reference, credentials, Session.tags)

    async def _each(self, reference: Reference, credentials: Credentials, ask: Callable[[Session], Awaitable[T]]) -> T:
        """Asks endpoint after endpoint, as moby does: a mirror's refusal or a broken connection leads to the next,
        an answer of the registry itself is final."""
        error: RegistryError | None = None
        for endpoint in await self._endpoints(reference.domain):
            # A mirror never sees the login of the registry it mirrors.
            own = ANONYMOUS if endpoint.mirror else credentials
            try:
                result = await ask(Session(self._transport, endpoint, reference.path, own))
            except ConnectionBrokenError as caught:
                error = caught
            except RegistryError as caught:
                if not endpoint.mirror:
                    raise
                error = caught
            except InvalidParameter:
                if not endpoint.mirror:
                    raise
            else:
                self._schemes[endpoint.host] = endpoint.url.partition(":")[0]
                return result
        raise error or RegistryError(f"no endpoints found for {reference.familiar}")

    async def _endpoints(self, domain: str, *, mirrors: bool = True) -> list[Endpoint]:
        found = await self._policy.endpoints(domain, mirrors=mirrors)
        known = self._schemes.get(domain)
        return (
            sorted(found, key=lambda one: not one.url.startswith(f"{known}://")) if known and len(found) > 1 else found
        )

    async def login(self, credentials: Credentials) -> str:
        """Checks credentials as `docker login` does; mirrors are not asked."""
        address = credentials.server_address or _LOGIN_DEFAULT
        host = address.removeprefix("https://").removeprefix("http://").partition("/")[0]
        if not host or any(letter in host for letter in "@?#\\ "):
            raise InvalidParameter("unable to parse server address")
        error: RegistryError | None = None
        for endpoint in await self._endpoints(host, mirrors=False):
            try:
                return await self._login(endpoint, credentials)
            except ConnectionBrokenError as caught:
                error = caught
            except RegistryError as caught:
                if caught.code == "UNAUTHORIZED":
                    raise Unauthorized(f'Get "{endpoint.url}/v2/": {caught}') from caught
                if caught.status == 401:
                    raise Unauthorized(str(caught)) from caught
                raise
        raise error or RegistryError(f"no endpoints found for {host}")

    async def _login(self, endpoint: Endpoint, credentials: Credentials) -> str:
        url = f"{endpoint.url}/v2/"
        authorizer = Authorizer(self._transport, credentials, endpoint.insecure, offline=True)
        async with self._transport.open("GET", url, insecure=endpoint.insecure) as response:
            if response.status_code == 200:
                return ""
            if response.status_code != 401 or not await authorizer.answer(response):
                raise await failure(self._transport, response)
        async with self._transport.open(
            "GET", url, headers=authorizer.header(), insecure=endpoint.insecure
        ) as response:
            if response.status_code == 200:
                return authorizer.identity_token or credentials.identity_token
            raise RegistryError(
                f"login attempt to {url} failed with status: {response.status_code} {response.reason_phrase}",
                status=response.status_code,
            )


async def _manifest_for(session: Session, top: Manifest | ManifestList, wanted: Platform, depth: int) -> Manifest:
    """The manifest that fits the platform; lists may hold lists, to a depth."""
    if isinstance(top, Manifest):
        return top
    for entry in choose(top.entries, wanted) if depth else []:
        digest = entry.get("digest")
        if not isinstance(digest, str) or not is_digest(digest):
            raise InvalidParameter("unsupported manifest format")
        raw, content_type = await session.manifest(digest)
        inner = read(raw, str(entry.get("mediaType") or content_type))
        if isinstance(inner, Manifest):
            return inner
        try:
            return await _manifest_for(session, inner, wanted, depth - 1)
        except NoMatchError:
            continue
    raise NoMatchError(f"no matching manifest for {wanted} in the manifest list entries")
