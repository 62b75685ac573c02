"""Answers for the names that the clouds give to functions, services and sites, at this one address.

None of these names resolves to this machine: clients connect to the local cloud and name them as `Host`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from local_cloud.instances import ClientGone


class FrontEnd:
    """An ASGI app. `hosts`: suffix of the host name (`.a.run.app`) → the app that answers there; `inner` the rest."""

    def __init__(self, inner: ASGIApp, hosts: Mapping[str, ASGIApp]) -> None:
        self._inner = inner
        self._hosts = dict(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request to the app of its host; one whose client has gone needs no answer."""
        with suppress(ClientGone):
            await (self._app(scope) or self._inner)(scope, receive, send)

    def holds(self, scope: Scope) -> bool:
        """Whether a request is for one of the names, and so may last as long as the container that answers it."""
        return self._app(scope) is not None

    def _app(self, scope: Scope) -> ASGIApp | None:
        if scope["type"] != "http":
            return None
        host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
        name = host.partition(":")[0].rstrip(".").lower()
        for suffix, app in self._hosts.items():
            if name.endswith(suffix) and name != suffix:
                return app
        return None
