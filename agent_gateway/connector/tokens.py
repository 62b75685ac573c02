"""The user's token: given, from the environment, a file, a command, or a CI system that signs identity tokens.

A token that says when it expires (a JWT) is fetched again before; any other when the endpoint refuses it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from agent_gateway.faults import CannotConnect
from agent_gateway.forwarding.connections import Headers

Fetch = Callable[[], Awaitable[str]]
_MARGIN_SECONDS = 120.0
"""Before its expiry a token is replaced, or after half of what is left of a shorter life."""
_COMMAND_SECONDS = 60.0
_FETCH_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """Where the token comes from; the first that is there counts, in this order."""

    token: str = ""
    file: str = ""
    command: str = ""
    audience: str = ""
    """Of the identity token asked of GitHub Actions; empty is the endpoint's URL."""


class Tokens:
    """The current token, empty without a source."""

    def __init__(self, fetch: Fetch | None, *, fixed: bool) -> None:
        self._fetch = fetch
        self._fixed = fixed
        self._token = ""
        self._until = 0.0
        self._lock = asyncio.Lock()

    async def current(self) -> str:
        """A token that is not about to expire. Raises CannotConnect."""
        if self._fetch is None or (self._token and time.time() < self._until):
            return self._token
        async with self._lock:
            if not self._token or time.time() >= self._until:
                self._token = _checked(await self._fetch())
                self._until = _renewal(self._token)
        return self._token

    async def after_refusal(self, refused: str) -> str | None:
        """Another token than the one that was refused; None when there is no other."""
        if self._fetch is None or self._fixed:
            return None
        async with self._lock:
            if self._token == refused:
                self._until = 0.0
        token = await self.current()
        return token if token != refused else None


class UserCredentials:
    """The user's token in every request; what Docker clients send themselves is not passed on."""

    names: Set[bytes] = frozenset({b"authorization"})

    def __init__(self, source: Tokens) -> None:
        self._tokens = source

    async def shown(self) -> Headers:
        """The current token, if there is one. Raises CannotConnect."""
        return _authorization(await self._tokens.current())

    async def after_refusal(self, refused: Headers) -> Headers | None:
        """Another token's. Raises CannotConnect."""
        shown = dict(refused).get(b"authorization", b"").decode().removeprefix("Bearer ")
        other = await self._tokens.after_refusal(shown)
        return None if other is None else _authorization(other)


def _authorization(token: str) -> Headers:
    return [(b"authorization", b"Bearer " + token.encode())] if token else []


def tokens(options: TokenOptions, url: str, environment: Mapping[str, str] = os.environ) -> Tokens:
    """Chooses the source: options, then `SOCKERLESS_TOKEN`, `_FILE`, `_COMMAND`, then GitLab's identity token, what
    `sockerless login` remembers, and GitHub's identity token."""
    given = options.token or (not (options.file or options.command) and environment.get("SOCKERLESS_TOKEN", ""))
    if given:
        return Tokens(_always(given), fixed=True)
    file = options.file or (not options.command and environment.get("SOCKERLESS_TOKEN_FILE", ""))
    if file:
        return Tokens(_from_file(Path(file)), fixed=False)
    command = options.command or environment.get("SOCKERLESS_TOKEN_COMMAND", "")
    if command:
        return Tokens(_from_command(command), fixed=False)
    # GitLab writes the tokens that a job declares under `id_tokens` into variables of the job's choice.
    if signed := environment.get("SOCKERLESS_ID_TOKEN", ""):
        return Tokens(_always(signed), fixed=True)
    if remembered := _remembered(url, environment):
        return Tokens(_always(remembered), fixed=True)
    request_url = environment.get("ACTIONS_ID_TOKEN_REQUEST_URL", "")
    request_token = environment.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "")
    if request_url and request_token:
        return Tokens(_from_github(request_url, request_token, options.audience or url), fixed=False)
    return Tokens(None, fixed=True)


def _remembered(url: str, environment: Mapping[str, str]) -> str:
    """What `sockerless login` has written for the endpoint, or nothing."""
    home = environment.get("HOME", "")
    config = environment.get("XDG_CONFIG_HOME", "") or (f"{home}/.config" if home else "")
    try:
        hosts = json.loads(Path(config, "sockerless", "hosts.json").read_text())
        token = hosts[url]["token"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return token if isinstance(token, str) else ""


def _always(token: str) -> Fetch:
    async def fetch() -> str:
        return token

    return fetch


def _from_file(path: Path) -> Fetch:
    async def fetch() -> str:
        try:
            return await asyncio.to_thread(path.read_text)
        except (OSError, UnicodeDecodeError) as error:
            raise CannotConnect(f"the token file {path} cannot be read: {getattr(error, 'strerror', error)}") from None

    return fetch


def _from_command(command: str) -> Fetch:
    async def fetch() -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                *shlex.split(command), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
            )
        except (OSError, ValueError) as error:
            raise CannotConnect(f"the token command cannot be run: {error}") from None
        try:
            async with asyncio.timeout(_COMMAND_SECONDS):
                out, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            raise CannotConnect(f"the token command did not end within {_COMMAND_SECONDS:.0f} seconds") from None
        if process.returncode != 0:
            raise CannotConnect(f"the token command failed with exit code {process.returncode}")
        return out.decode(errors="replace")

    return fetch


def _from_github(request_url: str, request_token: str, audience: str) -> Fetch:
    """GitHub's documented request: `GET …&audience=…` with the job's bearer token; the answer is `{"value": JWT}`."""

    async def fetch() -> str:
        import httpx

        try:
            async with httpx.AsyncClient(timeout=_FETCH_SECONDS) as client:
                answer = await client.get(
                    httpx.URL(request_url).copy_merge_params({"audience": audience}),
                    headers={"authorization": f"bearer {request_token}"},
                )
            value = answer.json().get("value") if answer.status_code == 200 else None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError):
            value = None
        if not isinstance(value, str):
            raise CannotConnect("GitHub gave no identity token; the job needs `permissions: id-token: write`")
        return value

    return fetch


def _checked(token: str) -> str:
    token = token.strip()
    if not token:
        raise CannotConnect("the token is empty")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise CannotConnect("the token has characters that no token has")
    return token


def _renewal(token: str) -> float:
    """When a token is to be replaced; never for one that does not tell."""
    expiry = _expiry(token)
    if expiry is None:
        return float("inf")
    left = expiry - time.time()
    return expiry - min(_MARGIN_SECONDS, max(left / 2, 0.0))


def _expiry(token: str) -> float | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expiry = claims["exp"]
    except (binascii.Error, ValueError, KeyError, TypeError):
        return None
    return float(expiry) if type(expiry) in (int, float) else None
