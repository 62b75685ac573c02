"""Long-running operations of Google's APIs, asked after soon at first (the SDK's own waiting begins with a second)."""

from __future__ import annotations

import asyncio
from typing import Any

from control_plane.backends.calls import CloudError, call

_FIRST_POLL = 0.02
_LONGEST_POLL = 2.0


async def finished(operation: Any, doing: str, *, total: float) -> Any:
    """Waits for a `google.api_core.operation_async.AsyncOperation`; returns the raw `longrunning.Operation`.

    Raises CloudError: what the operation ended with, or DEADLINE_EXCEEDED after `total` seconds.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + total
    pause = _FIRST_POLL
    while not await call(doing, lambda timeout: asyncio.wait_for(operation.done(retry=None), timeout)):
        if loop.time() + pause > ends:
            raise CloudError("DEADLINE_EXCEEDED", "it is not ready", doing)
        await asyncio.sleep(pause)
        pause = min(pause * 1.6, _LONGEST_POLL)
    status = operation.operation.error
    if status.code:
        await operation.exception()  # the SDK keeps it too, and complains when nobody asks for it
        raise CloudError(_code_name(status.code), status.message, doing)
    return operation.operation


def _code_name(number: int) -> str:
    """gRPC's name of a `google.rpc.Code` number."""
    import grpc

    return next((code.name for code in grpc.StatusCode if code.value[0] == number), "UNKNOWN")
