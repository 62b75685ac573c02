"""Counts the API calls per method, and delays or fails them when told to.

A method is named `Service.Method`: `Jobs.CreateJob`, `LoggingServiceV2.ListLogEntries`, `Registry.GetBlob`,
`Storage.InsertObject`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from local_cloud.errors import ServiceError
from local_cloud.faults import Fault, drawn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OperationFault:
    """What goes wrong with the operation that the present call begins."""

    delay: float = 0.0
    """Seconds more that it takes."""
    error: str = ""
    """The google.rpc.Code name it ends with, its work not done; empty for none."""

    @property
    def refusal(self) -> ServiceError | None:
        """The error it ends with, or None."""
        return (
            ServiceError(self.error, "The operation fails because the local cloud was told to.") if self.error else None
        )


_operation: ContextVar[OperationFault | None] = ContextVar("operation", default=None)


def operation_fault() -> OperationFault | None:
    """What the call being served (it has passed `Calls.before`) does to the operation it begins; mostly None."""
    return _operation.get()


class Calls:
    """The counts and faults of one local cloud."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._faults: dict[str, tuple[Fault, ...]] = {}

    def counts(self) -> dict[str, int]:
        """Calls per method since the last reset."""
        return dict(self._counts)

    def reset(self) -> None:
        """Starts counting afresh."""
        self._counts.clear()

    def set_faults(self, faults: Mapping[str, Fault | Iterable[Fault]]) -> None:
        """Replaces all faults: method glob → fault, or several that are drawn on their own. The first glob that
        matches a method counts."""
        self._faults = {glob: (fault,) if isinstance(fault, Fault) else tuple(fault) for glob, fault in faults.items()}

    @staticmethod
    def operation_fault() -> OperationFault | None:
        """See `operation_fault` of this module."""
        return _operation.get()

    async def before(self, method: str) -> Fault | None:
        """Counts a call, waits its delays, raises its refusal; returns a fault whose answer is to be lost.

        From here to the end of the task (and in those it starts) `operation_fault` tells what was drawn.
        """
        self._counts[method] += 1
        if _operation.get() is not None:
            _operation.set(None)
        if not self._faults:
            return None
        hit = drawn(self._faults, method)
        if not hit:
            return None
        delay = sum(fault.delay for fault in hit if not fault.lost_response)
        if delay:
            await asyncio.sleep(delay)
        for fault in hit:
            if fault.status and not fault.lost_response:
                raise ServiceError(fault.status, f"{method} fails because the local cloud was told to.")
        slower = sum(fault.operation_delay for fault in hit)
        error = next((fault.operation_error for fault in hit if fault.operation_error), "")
        if slower or error:
            _operation.set(OperationFault(slower, error))
        return next((fault for fault in hit if fault.lost_response), None)

    @staticmethod
    async def after(method: str, fault: Fault | None) -> None:
        """Loses the answer of a call that took effect."""
        if fault is not None:
            await asyncio.sleep(fault.delay)
            raise ServiceError(
                fault.status or "UNAVAILABLE", f"The answer of {method} is lost because the local cloud was told to."
            )

    async def call(self, method: str, work: Callable[[], Awaitable[T]]) -> T:
        """One counted call: the delay or refusal set for it, then the work, then perhaps the loss of its answer."""
        fault = await self.before(method)
        answer = await work()
        await self.after(method, fault)
        return answer
