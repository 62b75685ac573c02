"""Counts the API calls per method, and delays or fails them when told to.

A method is named `Service.Method`: `Jobs.CreateJob`, `LoggingServiceV2.ListLogEntries`, `Registry.GetBlob`,
`Storage.InsertObject`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from local_cloud.errors import CODES, ServiceError

T = TypeVar("T")
_KEYS = {"delay", "status", "probability", "lost_response"}


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to calls of a method: a delay (seconds), then a refusal, or the loss of the answer."""

    delay: float = 0.0
    status: str = ""
    """A google.rpc.Code name, or empty for none."""
    probability: float = 1.0
    lost_response: bool = False
    """The call takes effect at once, but after the delay its caller gets `status` (UNAVAILABLE when empty)."""

    @classmethod
    def parse(cls, value: Any) -> Fault:
        """Reads one entry of `PUT /_local/faults`; raises ServiceError INVALID_ARGUMENT."""
        if not isinstance(value, dict) or set(value) - _KEYS:
            raise ServiceError("INVALID_ARGUMENT", f"a fault is an object with {', '.join(sorted(_KEYS))}")
        status = str(value.get("status") or "")
        if status and status not in CODES:
            raise ServiceError("INVALID_ARGUMENT", f"unknown status {status!r}: name a google.rpc.Code")
        try:
            delay, probability = float(value.get("delay", 0)), float(value.get("probability", 1))
        except (TypeError, ValueError):
            raise ServiceError("INVALID_ARGUMENT", "delay and probability are numbers") from None
        if not 0 <= delay <= 3600 or not 0 <= probability <= 1:
            raise ServiceError("INVALID_ARGUMENT", "delay is 0 to 3600 seconds, probability 0 to 1")
        return cls(delay, status, probability, bool(value.get("lost_response", False)))


class Calls:
    """The counts and faults of one local cloud."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._faults: dict[str, Fault] = {}

    def counts(self) -> dict[str, int]:
        """Calls per method since the last reset."""
        return dict(self._counts)

    def reset(self) -> None:
        """Starts counting afresh."""
        self._counts.clear()

    def set_faults(self, faults: Mapping[str, Fault]) -> None:
        """Replaces all faults: method glob → fault; the first glob that matches counts."""
        self._faults = dict(faults)

    async def before(self, method: str) -> Fault | None:
        """Counts a call, waits its delay, raises its refusal; returns a fault whose answer is to be lost."""
        self._counts[method] += 1
        if not self._faults:
            return None
        fault = next((fault for glob, fault in self._faults.items() if fnmatchcase(method, glob)), None)
        if fault is None or random.random() >= fault.probability:
            return None
        if fault.lost_response:
            return fault
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.status:
            raise ServiceError(fault.status, f"{method} fails because the local cloud was told to.")
        return None

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
