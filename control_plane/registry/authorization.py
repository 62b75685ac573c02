"""Authorisation at registries: challenges, bearer tokens (with basic or identity token), basic.

Fact source: the distribution project's token specification, and the order in which moby tries the schemes.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import orjson

from control_plane.registry.base import Credentials, RegistryError
from control_plane.registry.transport import Transport

if TYPE_CHECKING:
    import httpx

_ERROR_LIMIT = 64 * 1024
_TOKEN_LIMIT = 1024 * 1024
_MINIMUM_LIFETIME = 60
_CLIENT_ID = "docker"
_parameter = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_MESSAGES = {
    "UNAUTHORIZED": "authentication required",
    "DENIED": "requested access to the resource is denied",
}
_STATUS_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 429: "TOOMANYREQUESTS"}


@dataclass(frozen=True, slots=True)
class Challenge:
    """One `WWW-Authenticate` value."""

    scheme: str
    parameters: Mapping[str, str]


def challenges(response: httpx.Response) -> list[Challenge]:
    """The challenges of a 401, parsed leniently."""
    found = []
    for value in response.headers.get_list("www-authenticate"):
        scheme, _, rest = value[:8192].strip().partition(" ")
        parameters = {
            match[1].lower(): re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
            for match in _parameter.finditer(rest)
        }
        found.append(Challenge(scheme.lower(), parameters))
    return found


async def failure(transport: Transport, response: httpx.Response) -> RegistryError:
    """The registry's error in a refused response: from the challenge, else from the JSON body, else from the status."""
    status = response.status_code
    if not 400 <= status < 500:
        return RegistryError(f"received unexpected HTTP status: {status} {response.reason_phrase}", status=status)
    for challenge in challenges(response):
        code = {"invalid_token": "UNAUTHORIZED", "insufficient_scope": "DENIED"}.get(
            challenge.parameters.get("error", "")
        )
        if challenge.scheme == "bearer" and code is not None:
            message = challenge.parameters.get("error_description") or _MESSAGES[code]
            return RegistryError(_clean(message), code, status)
    body = b"" if response.request.method == "HEAD" else await transport.read(response, _ERROR_LIMIT, "error response")
    first = _first_error(body)
    if first is not None:
        code = str(first.get("code") or "UNKNOWN")[:64]
        message = str(first.get("message") or _MESSAGES.get(code) or "unknown error")
        return RegistryError(_clean(message), code, status)
    code = _STATUS_CODES.get(status, "UNKNOWN")
    return RegistryError(
        _MESSAGES.get(code) or _clean(body.decode(errors="replace")) or response.reason_phrase, code, status
    )


def _first_error(body: bytes) -> Mapping[str, Any] | None:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict):
        return None
    if isinstance(document.get("details"), str) and document["details"]:
        return {"code": "", "message": document["details"]}
    errors = document.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        return errors[0]
    return None


def _clean(text: str) -> str:
    """One line of printable text: registries' words end up on users' terminals."""
    return "".join(letter for letter in text[:1024] if letter.isprintable()).strip()


def basic(username: str, password: str) -> str:
    """The `Authorization` value of user and password."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


@dataclass(slots=True)
class Authorizer:
    """Answers the challenges of one registry for one scope with one user's credentials."""

    transport: Transport
    credentials: Credentials
    insecure: bool
    scopes: tuple[str, ...] = ()
    identity_token: str = field(default="", repr=False)
    """A refresh token the registry issued at login."""
    offline: bool = False
    _header: str = field(default="", repr=False)
    _expires: float = 0.0

    def header(self) -> dict[str, str]:
        """The header that worked last, while it is valid."""
        if self._header and (not self._expires or time.monotonic() < self._expires):
            return {"Authorization": self._header}
        return {}

    def use(self, header: str) -> None:
        """Sends this header from now on."""
        self._header, self._expires = header, 0.0

    async def answer(self, response: httpx.Response) -> bool:
        """Prepares the next attempt after a 401; False when there is nothing to answer with.

        Raises RegistryError when the token service refuses.
        """
        offered = {challenge.scheme: challenge for challenge in reversed(challenges(response))}
        if "bearer" in offered:
            if self.credentials.registry_token:
                header = f"Bearer {self.credentials.registry_token}"
                known, self._header, self._expires = self._header, header, 0.0
                return known != header
            self._header = f"Bearer {await self._token(offered['bearer'].parameters)}"
            return True
        if "basic" in offered:
            username, password = self.credentials.username, self.credentials.password
            if not username or not password:
                request = response.request
                raise RegistryError(
                    f'{request.method.capitalize()} "{request.url}": no basic auth credentials', status=401
                )
            header = basic(username, password)
            known, self._header, self._expires = self._header, header, 0.0
            return known != header
        return False

    async def _token(self, parameters: Mapping[str, str]) -> str:
        realm = parameters.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme not in {"https", "http"} or not parts.netloc or parts.username is not None:
            raise RegistryError("invalid token auth challenge realm")
        plain = await self.transport.judge(parts.netloc)
        if parts.scheme == "http" and not (plain and self.insecure):
            raise RegistryError(f"token auth challenge realm of {parts.netloc} is not https")
        service = parameters.get("service", "")
        if self.credentials.identity_token:
            document = await self._refresh(realm, service, plain)
        else:
            document = await self._fetch(realm, service, plain)
        token = document.get("access_token") or document.get("token")
        if not isinstance(token, str) or not token or not token.isprintable():
            raise RegistryError("authorization server did not include a token in the response")
        refresh = document.get("refresh_token")
        if isinstance(refresh, str):
            self.identity_token = refresh
        lifetime = document.get("expires_in")
        seconds = lifetime if isinstance(lifetime, int) and lifetime > _MINIMUM_LIFETIME else _MINIMUM_LIFETIME
        # A little early, so that a token does not run out on the way.
        self._expires = time.monotonic() + seconds * 0.9
        return token

    async def _fetch(self, realm: str, service: str, plain: bool) -> dict[str, Any]:
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in self.scopes]
        headers = {}
        if self.offline:
            query += [("offline_token", "true"), ("client_id", _CLIENT_ID)]
        if self.credentials.username and self.credentials.password:
            query.append(("account", self.credentials.username))
            headers["Authorization"] = basic(self.credentials.username, self.credentials.password)
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        async with self.transport.open("GET", url, headers=headers, insecure=plain) as response:
            return await self._document(response)

    async def _refresh(self, realm: str, service: str, plain: bool) -> dict[str, Any]:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": self.credentials.identity_token,
            "service": service,
            "client_id": _CLIENT_ID,
            "scope": " ".join(self.scopes),
        }
        async with self.transport.open(
            "POST",
            realm,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            content=urlencode(form).encode(),
            insecure=plain,
        ) as response:
            return await self._document(response)

    async def _document(self, response: httpx.Response) -> dict[str, Any]:
        if not 200 <= response.status_code < 400:
            raise await failure(self.transport, response)
        try:
            document = orjson.loads(await self.transport.read(response, _TOKEN_LIMIT, "token response"))
        except orjson.JSONDecodeError:
            raise RegistryError("unable to decode token response") from None
        if not isinstance(document, dict):
            raise RegistryError("unable to decode token response")
        return document
