"""The HTTP listener inside its host process: uvicorn without its signal handlers, and without patience at the end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Scope


class HttpServer(uvicorn.Server):
    """Serves an app. Requests for which `held` is true may last for hours: the end cuts them, and awaits the others."""

    def __init__(self, app: ASGIApp, held: Callable[[Scope], bool]) -> None:
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)
        self.listening = asyncio.Event()
        self._held = held

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's."""
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's."""
        for listener in self.servers:
            listener.close()
        connection: Any
        for connection in list(self.server_state.connections):
            cycle = connection.cycle
            if cycle is not None and not cycle.response_complete and self._held(cycle.scope):
                connection.transport.abort()  # no answer at all: any would be taken for the container's
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the host process."""
        yield
