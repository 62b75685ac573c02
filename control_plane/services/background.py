"""Work that outlives the request that asked for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from control_plane.errors import DockerError

_log = logging.getLogger(__name__)


class Background:
    """Tasks of one process. What a crash loses of them the reconciler finds in the store."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def spawn(self, work: Coroutine[Any, Any, Any], what: str) -> None:
        """Runs `work`; failures are logged under `what`."""
        if self._closed:
            work.close()
            return
        task = asyncio.create_task(self._run(work, what), name=what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # one that was cancelled before its first step

    def later(self, delay: float, work: Callable[[], Coroutine[Any, Any, Any]], what: str) -> None:
        """Runs `work()` after `delay` seconds, unless the process ends before: the reconciler must find it too."""
        asyncio.get_running_loop().call_later(delay, lambda: self.spawn(work(), what))

    async def _run(self, work: Coroutine[Any, Any, Any], what: str) -> None:
        try:
            await work
        except DockerError as error:
            _log.warning("%s failed: %s (%s)", what, error.message, error.internal)
        except Exception:
            _log.exception("%s failed", what)

    async def settle(self) -> None:
        """Waits until nothing is left to do."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Cancels what is under way."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
