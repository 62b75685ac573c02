"""The control plane as a service: hypercorn with HTTP/2 in clear text, on Cloud Run or in any container.

`python -m control_plane.entrypoints.cloud_run` listens on `$PORT`; `app` is for a hypercorn started otherwise. HTTP/2
from end to end (`--use-http2`) lifts Cloud Run's limit of 32 MiB for a request's body; HTTP/1.1 is served as well.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypercorn.config import Config
    from starlette.types import Receive, Scope, Send

    from control_plane.entrypoints.hosted import Hosted
    from control_plane.entrypoints.hosted_settings import HostedSettings

_KEEP_ALIVE = 650.0
"""Seconds: Google's front ends keep idle connections for 600, and must not find one closed."""
_STREAMS = 250
"""At once on one connection; a front end opens another connection for more."""
_EXIT_SETTINGS = 78
_ALLOCATIONS = 20_000
"""Objects between two looks of Python's garbage collector, in place of 700: a list of 10,000 containers makes so many,
and none of them garbage, that half the time it took was the collector's."""


class _Lazy:
    """The application of this process, composed when the server's lifespan begins."""

    def __init__(self) -> None:
        self._hosted: Hosted | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._hosted is None:
            from control_plane.entrypoints import http2
            from control_plane.entrypoints.hosted import Hosted
            from control_plane.entrypoints.hosted_settings import load_settings

            http2.install()
            self._hosted = Hosted(load_settings())
        await self._hosted(scope, receive, send)


app = _Lazy()
"""For `hypercorn control_plane.entrypoints.cloud_run:app`."""


def config(settings: HostedSettings) -> Config:
    """How hypercorn is to serve."""
    from hypercorn.config import Config

    found = Config()
    found.bind = [f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"]
    found.workers = 1
    found.backlog = 1024
    found.keep_alive_timeout = _KEEP_ALIVE
    found.h2_max_concurrent_streams = _STREAMS
    found.graceful_timeout = settings.graceful + 1.0  # requests are cut before that
    found.include_server_header = False  # the application has its own
    found.accesslog = None
    found.errorlog = None
    return found


async def serve(settings: HostedSettings) -> None:
    """Serves until SIGTERM or SIGINT. Raises SettingsError, OSError."""
    from hypercorn.asyncio import serve as hypercorn_serve

    from control_plane.entrypoints import http2
    from control_plane.entrypoints.hosted import Hosted

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    hosted = Hosted(settings)
    http2.install()

    async def until_ended() -> None:
        await ended.wait()
        hosted.drain()

    application: Any = hosted  # hypercorn has types of its own for ASGI
    await hypercorn_serve(application, config(settings), shutdown_trigger=until_ended)


def main() -> int:
    """The exit code; settings that do not allow a start are one line on stderr."""
    from control_plane.backends.settings_error import SettingsError
    from control_plane.entrypoints.hosted_settings import load_backends, load_settings

    try:
        settings = load_settings()
        settings.signing_key()
        load_backends(settings)
        from control_plane.telemetry import logs

        logs.set_up()
        gc.set_threshold(_ALLOCATIONS)
        asyncio.run(serve(settings))
    except (SettingsError, OSError) as error:
        print(f"sockerless: {error}", file=sys.stderr)
        return _EXIT_SETTINGS
    return 0


if __name__ == "__main__":
    sys.exit(main())
