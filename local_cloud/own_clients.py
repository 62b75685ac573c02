"""Serves this machine's programs and no web page: the APIs here ask nobody for credentials.

A page in the user's browser could send requests to a loopback port across origins (they carry `Origin`), or under its
own name after that was made to resolve to 127.0.0.1 (they carry it as `Host`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_TEXT = "The local cloud serves programs of this machine, by the name localhost or an address.\n"


class OwnClients:
    """An ASGI app around another.

    `names`: further host names it is known by. `suffixes`: ends of names (`.a.run.app`) that nobody but their owner can
    make resolve to this machine.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = (), suffixes: Iterable[str] = ()) -> None:
        self._app = app
        self._suffixes = tuple(suffixes)
        self._names = frozenset({"localhost", *(name.partition(":")[0].lower() for name in names)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """403 for what a web page may have sent."""
        if scope["type"] == "http" and not self._own(dict(scope["headers"])):
            await PlainTextResponse(_TEXT, 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _own(self, headers: dict[bytes, bytes]) -> bool:
        if b"origin" in headers:
            return False
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if host.startswith("["):
            return True
        name = host.partition(":")[0]
        if not name or name in self._names or name.endswith(self._suffixes):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
