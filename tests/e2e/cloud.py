"""The local cloud of an endpoint, as tests look at it and disturb it: `/_local/` of its plain HTTP face."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import httpx

from tests.e2e.endpoint import Endpoint

Fault = Mapping[str, Any]
TEMPLATES = "run.jobs"


class Cloud:
    """Counts, faults and resources of all its services."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def _ask(self, method: str, what: str, body: Any = None) -> httpx.Response:
        url = f"{self._endpoint.local_cloud}/_local/{what}"
        return httpx.request(method, url, json=body, timeout=20).raise_for_status()

    def calls(self) -> dict[str, int]:
        """Calls since the reset by service and method (`Jobs.RunJob`); those with none are left out."""
        return {method: n for method, n in self._ask("GET", "calls").json().items() if n}

    def reset(self) -> None:
        """Counts from here on."""
        self._ask("DELETE", "calls")

    def settled(self, seconds: float = 0.7, limit: float = 20) -> dict[str, int]:
        """The calls, once none has come for that long."""
        deadline, seen, since = time.monotonic() + limit, self.calls(), time.monotonic()
        while time.monotonic() - since < seconds:
            assert time.monotonic() < deadline, f"there is no end of calls: {seen}"
            time.sleep(0.05)
            if (now := self.calls()) != seen:
                seen, since = now, time.monotonic()
        return seen

    def until_all(self, wanted: Mapping[str, int], limit: float = 30) -> None:
        """Waits until so many calls of each method have come, or the time is over: whether they did, the test says."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            there = self.calls()
            if all(there.get(method, 0) >= count for method, count in wanted.items()):
                return
            time.sleep(0.02)

    def until_called(self, method: str, limit: float = 30) -> None:
        """Waits for a call of a method (a glob)."""
        deadline = time.monotonic() + limit
        while not any(fnmatchcase(called, method) for called in self.calls()):
            assert time.monotonic() < deadline, f"{method} was not called: {self.calls()}"
            time.sleep(0.02)

    def faults(self, wanted: Mapping[str, Fault | Sequence[Fault]]) -> None:
        """Method glob → what goes wrong with its calls, in place of what was set before."""
        self._ask("PUT", "faults", dict(wanted))

    @contextlib.contextmanager
    def failing(self, wanted: Mapping[str, Fault | Sequence[Fault]]) -> Iterator[None]:
        """The same for a while."""
        self.faults(wanted)
        try:
            yield
        finally:
            self._ask("DELETE", "faults")

    def resources(self) -> dict[str, int]:
        """How many there are of each kind that has any."""
        return {kind: n for kind, n in self._ask("GET", "resources").json().items() if n}

    def until_left(self, wanted: Mapping[str, int], limit: float = 30) -> None:
        """Waits until exactly these resources are there, and Cloud Run's templates: jobs that are no container's own,
        kept for an hour for the next container of their image and shape."""
        deadline = time.monotonic() + limit
        while (seen := {kind: n for kind, n in self.resources().items() if kind != TEMPLATES}) != wanted:
            assert time.monotonic() < deadline, f"in the cloud are {seen}, not {dict(wanted)}"
            time.sleep(0.1)
