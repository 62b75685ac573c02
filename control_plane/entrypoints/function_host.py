"""The control plane inside a functions framework: composed at the first call, in the loop that calls.

A function has the processor only while it answers: it runs no reconciler of its own, and a call ends when what it
began has.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from control_plane.entrypoints.short_calls import ShortCalls

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from control_plane.compose import ControlPlane
    from control_plane.entrypoints.hosted import Hosted


class FunctionHost:
    """One per process."""

    def __init__(self) -> None:
        self._hosted: Hosted | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._making: asyncio.Lock | None = None

    async def hosted(self) -> Hosted:
        """Started in the running loop. Raises SettingsError."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # a framework that runs each call in a loop of its own
            self._loop, self._hosted, self._making = loop, None, asyncio.Lock()
        assert self._making is not None
        async with self._making:
            if self._hosted is None:
                from control_plane.entrypoints.hosted import Hosted
                from control_plane.entrypoints.hosted_settings import load_settings
                from control_plane.telemetry import logs

                logs.set_up()
                made = Hosted(load_settings())
                await made.start(reconcile=False)
                self._hosted = made
            return self._hosted

    async def control_plane(self) -> ControlPlane:
        """What `hosted` has composed."""
        found = (await self.hosted()).control_plane
        assert found is not None
        return found

    async def api(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The Docker API for short calls, as an ASGI app."""
        hosted = await self.hosted()
        await ShortCalls(hosted, hosted.gateway)(scope, receive, send)

    async def close(self) -> None:
        """For tests: frees what the process's end would."""
        if self._hosted is not None:
            await self._hosted.stop()
            self._hosted = None
