"""A client's request as a server of ASGI apps hands it over."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request


class Client:
    """Sends a request in the given pieces, then waits for its answer until it leaves."""

    def __init__(
        self,
        method: str,
        target: str,
        pieces: list[bytes] | None = None,
        headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    ) -> None:
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for piece in pieces or []:
            self.send(piece)
        self.end()
        path, _, query = target.partition("?")
        given = list(headers.items()) if isinstance(headers, Mapping) else list(headers or [])
        if not any(name == "host" for name, _ in given):
            given.append(("host", "name.example"))
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": path,
            "raw_path": path.encode(), "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given],
        }  # fmt: skip
        self.request = Request(scope, self._receive)

    def send(self, piece: bytes) -> None:
        self._messages.put_nowait({"type": "http.request", "body": piece, "more_body": True})

    def end(self) -> None:
        self._messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})

    def leave(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})

    async def _receive(self) -> dict[str, Any]:
        return await self._messages.get()
