"""Functions that are kept ready: claimed by the next container of their shape, released when it is removed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from control_plane.backends.calls import CloudError
from control_plane.backends.cloud_functions.plan import Shape
from control_plane.backends.cloud_functions.records import FunctionRecords
from control_plane.errors import DockerError
from control_plane.model import CloudFunction

_log = logging.getLogger(__name__)

_PATIENCE = 10.0
"""Seconds that a claimed function is given to come back before another is deployed in its place."""

DeploySpare = Callable[[Shape], Awaitable[CloudFunction]]
"""Deploys a function for whoever comes, and records it as ready. Raises CloudError or DockerError."""


class Pool:
    """At most `size` are kept ready for a tenant and shape. A function never leaves its tenant: the shape names it."""

    def __init__(
        self, records: FunctionRecords, size: int, deploy: DeploySpare, *, patience: float = _PATIENCE
    ) -> None:
        self._records = records
        self._size = size
        self._deploy = deploy
        self._patience = patience
        self._filling: dict[str, asyncio.Task[None]] = {}

    async def claim(self, shape: Shape, container: str) -> CloudFunction | None:
        """One that is ready, now the container's. Another takes its place if it is not back soon."""
        if not self._size:
            return None
        found = await self._records.claim(shape.tenant, shape.digest, container)
        if found is not None:
            self._fill(shape, self._patience)
        return found

    def used(self, shape: Shape) -> None:
        """None was ready, and a container got a function of its own: the next of its shape is to find one."""
        self._fill(shape, 0.0)

    async def release(self, function: CloudFunction) -> bool:
        """Whether it is ready for the next container; else it is to be deleted."""
        if await self._records.ready(function.tenant, function.shape) >= self._size:
            return False
        return await self._records.release(function)

    def _fill(self, shape: Shape, patience: float) -> None:
        if self._size and shape.digest not in self._filling:
            task = asyncio.create_task(self._deploy_if_wanted(shape, patience), name=f"spare {shape.digest[:12]}")
            self._filling[shape.digest] = task
            task.add_done_callback(lambda _: self._filling.pop(shape.digest, None))

    async def _deploy_if_wanted(self, shape: Shape, patience: float) -> None:
        await asyncio.sleep(patience)
        try:
            if await self._records.ready(shape.tenant, shape.digest) < self._size:
                await self._deploy(shape)
        except CloudError as error:
            _log.warning("no function can be kept ready: %s", error)
        except DockerError as error:
            _log.warning("no function can be kept ready: %s (%s)", error.message, error.internal)
        except Exception:
            _log.exception("no function can be kept ready")

    async def close(self) -> None:
        """Gives up what is under way; what it leaves, a sweep finds."""
        tasks = list(self._filling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
