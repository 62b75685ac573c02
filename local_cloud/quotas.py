"""The services' quotas. In the embedded default none is enforced; `Quotas.documented()` has the real ones."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from local_cloud.errors import ServiceError

_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Quotas:
    """Upper limits; None enforces nothing. Rates are calls a minute."""

    jobs: int | None = None
    running_executions: int | None = None
    run_writes_per_minute: int | None = None
    log_reads_per_minute: int | None = None
    log_tail_sessions: int | None = None
    log_writes_per_minute: int | None = None
    arm_reads: int | None = None
    """Resource Manager's buckets of a subscription: how many calls at once, and how many more a second."""
    arm_reads_per_second: float = 25.0
    arm_writes: int | None = None
    arm_deletes: int | None = None
    arm_writes_per_second: float = 10.0

    services: int | None = None
    """Cloud Run services of a region; functions are services, too."""
    function_writes_per_minute: int | None = None

    @classmethod
    def documented(cls) -> Quotas:
        """The defaults of a real project (the quota pages of Cloud Run, Cloud Functions and Cloud Logging)."""
        return cls(
            jobs=1000,
            running_executions=1000,
            run_writes_per_minute=180,
            log_reads_per_minute=60,
            log_tail_sessions=10,
            log_writes_per_minute=120_000,
            services=1000,
            function_writes_per_minute=60,
            arm_reads=250,
            arm_writes=200,
            arm_deletes=200,
        )


class Rate:
    """A sliding minute of one quota metric."""

    def __init__(self, limit: int | None, metric: str, service: str, project: str) -> None:
        self._limit = limit
        self._text = (
            f"Quota exceeded for quota metric '{metric}' and limit '{metric} per minute' "
            f"of service '{service}' for consumer 'project_number:{project}'."
        )
        self._times: deque[float] = deque()

    def take(self) -> None:
        """Counts one call; raises ServiceError RESOURCE_EXHAUSTED above the limit."""
        if self._limit is None:
            return
        now = time.monotonic()
        while self._times and self._times[0] <= now - _MINUTE:
            self._times.popleft()
        if len(self._times) >= self._limit:
            raise ServiceError("RESOURCE_EXHAUSTED", self._text)
        self._times.append(now)
