"""Resource Manager's throttling: a token bucket each for reads, writes and deletes of a subscription."""

from __future__ import annotations

import math
import time

from local_cloud.azure.errors import ArmError
from local_cloud.azure.names import SUBSCRIPTION
from local_cloud.quotas import Quotas

_KINDS = {"GET": "Reads", "DELETE": "Deletes"}


class _Bucket:
    """Holds up to `size` tokens and gets `rate` of them a second."""

    def __init__(self, size: int | None, rate: float) -> None:
        self._size, self._rate = size, rate
        self._left, self._at = float(size or 0), time.monotonic()

    def take(self) -> float:
        """Takes a token: 0; or the seconds until there is one."""
        if self._size is None:
            return 0.0
        now = time.monotonic()
        self._left = min(self._size, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / self._rate
        self._left -= 1
        return 0.0


class Throttle:
    """Counts the calls of the subscription."""

    def __init__(self, quotas: Quotas) -> None:
        self._buckets = {
            "Reads": _Bucket(quotas.arm_reads, quotas.arm_reads_per_second),
            "Writes": _Bucket(quotas.arm_writes, quotas.arm_writes_per_second),
            "Deletes": _Bucket(quotas.arm_deletes, quotas.arm_writes_per_second),
        }

    def take(self, method: str) -> None:
        """Counts one call; raises ArmError 429 with Retry-After when there were too many."""
        kind = _KINDS.get(method, "Writes")
        wait = self._buckets[kind].take()
        if wait:
            seconds = math.ceil(wait)
            text = (
                f"Number of '{kind.lower()}' requests for subscription '{SUBSCRIPTION}' exceeded the limit. "
                f"Please try again after '{seconds}' seconds."
            )
            headers = {"Retry-After": str(seconds), f"x-ms-ratelimit-remaining-subscription-{kind.lower()}": "0"}
            raise ArmError(429, "SubscriptionRequestsThrottled", text, headers)
