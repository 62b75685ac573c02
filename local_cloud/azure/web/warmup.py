"""The platform's pings: a container is ready once it answers HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import time

from local_cloud.azure.web import settings
from local_cloud.azure.web.records import Site
from local_cloud.instances import Instance, Instances

_PING_SECONDS = 10.0
_FIRST_PAUSE, _LAST_PAUSE = 0.01, 1.0


async def warm_up(instances: Instances, instance: Instance, site: Site) -> str:
    """Pings a container until it answers: empty then, else why the site's start fails."""
    limit, began = settings.start_limit(site.settings), time.monotonic()
    pause = _FIRST_PAUSE
    listens = await instances.probe(instance, limit)
    while listens and (left := began + limit - time.monotonic()) > 0:
        if await _answers(instance, min(left, _PING_SECONDS)):
            return ""
        if (await asyncio.wait({instance.ended}, timeout=min(pause, left)))[0]:
            break
        pause = min(pause * 2, _LAST_PAUSE)
    if instance.ended.done():
        return f"Container {instance.id} for site {site.name} has exited, failing site start"
    return (
        f"Container {instance.id} for site {site.name} did not start within expected time limit of {limit:g} seconds: "
        f"it didn't respond to HTTP pings on port: {instance.port}, failing site start. See container logs for "
        "debugging."
    )


async def _answers(instance: Instance, timeout: float) -> bool:
    """Whether `GET /` gets any HTTP answer."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(instance.address, instance.port)
            try:
                writer.write(
                    b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: HealthCheck/1.0\r\nConnection: close\r\n\r\n"
                )
                return (await reader.read(5)).startswith(b"HTTP/")
            finally:
                writer.transport.abort()
    return False
