"""Deploying one function: the stub, then the container's image in the service below it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from control_plane.backends.calls import AMBIGUOUS, UNSENT, CloudError, pause_before
from control_plane.backends.cloud_functions.functions import Functions
from control_plane.backends.cloud_functions.plan import FunctionPlan
from control_plane.backends.cloud_functions.services import Services
from control_plane.backends.cloud_functions.source import StubSource
from control_plane.backends.gcp import labels

_DOING = "deploying the container's function"
_DEADLINE = 900.0
_TRIES = 6
_POLLS = (0.1, 3.0)


class Deployment:
    """One at a time per name in this process; one by another control plane is waited for."""

    def __init__(self, functions: Functions, services: Services, source: StubSource) -> None:
        self._functions = functions
        self._services = services
        self._source = source
        self._locks: dict[str, asyncio.Lock] = {}
        self._wanted: Counter[str] = Counter()

    def under_way(self, name: str) -> bool:
        """Whether this process deploys a function of that name now."""
        return self._wanted[name] > 0

    async def deploy(self, plan: FunctionPlan) -> str:
        """Makes the function, or finishes what was begun; returns its URI. Repeatable. Raises CloudError.

        An operation that fails for a passing reason, and a function that a failed deployment left, are begun anew.
        """
        lock = self._locks.setdefault(plan.name, asyncio.Lock())
        self._wanted[plan.name] += 1
        try:
            async with lock, asyncio.timeout(_DEADLINE):
                return await self._until_deployed(plan)
        except TimeoutError:
            raise CloudError("DEADLINE_EXCEEDED", "the function is not ready", _DOING) from None
        finally:
            self._wanted[plan.name] -= 1
            if not self._wanted[plan.name]:
                del self._wanted[plan.name], self._locks[plan.name]

    async def _until_deployed(self, plan: FunctionPlan) -> str:
        for tries in range(_TRIES):
            try:
                function = await self._made(plan)
                await self._services.put(str(function.service_config.service), plan)
                return str(function.service_config.uri or function.url)
            except CloudError as error:
                if error.code not in AMBIGUOUS | UNSENT or tries == _TRIES - 1:
                    raise
                await asyncio.sleep(pause_before(tries, error.code))
        raise AssertionError("the last try returns or raises")

    async def _made(self, plan: FunctionPlan) -> Any:
        """The function, active (`functions_v2.Function`)."""
        function = dict(plan.function)
        function["build_config"] = {**function["build_config"], "source": await self._source.source()}
        try:
            return await self._functions.create(plan.name, function)
        except CloudError as error:
            if error.code != "ALREADY_EXISTS":
                self._source.missing()
                raise
            return await self._taken_over(plan, error)

    async def _taken_over(self, plan: FunctionPlan, conflict: CloudError) -> Any:
        """The name is taken: by an earlier try of ours, another control plane, or a stranger."""
        pause = _POLLS[0]
        while True:
            try:
                found = await self._functions.get(plan.name)
            except CloudError as error:
                if error.code == "NOT_FOUND":
                    raise CloudError("ABORTED", "the function was removed meanwhile", _DOING) from error
                raise
            self._refuse_strangers(plan, found, conflict)
            state = found.state.name
            if state == "ACTIVE":
                return found
            if state in ("FAILED", "UNKNOWN", "STATE_UNSPECIFIED"):
                # What a failed build leaves has no service.
                await self._functions.delete(plan.name)
                raise CloudError("ABORTED", "an earlier deployment failed", _DOING)
            await asyncio.sleep(pause)
            pause = min(pause * 1.6, _POLLS[1])

    def _refuse_strangers(self, plan: FunctionPlan, found: Any, conflict: CloudError) -> None:
        wanted = plan.function["labels"]
        same = (labels.TENANT, labels.CONTAINER)
        theirs = dict(found.labels)
        if self._functions.is_ours(found) and all(theirs.get(label) == wanted.get(label) for label in same):
            return
        raise CloudError(
            "FAILED_PRECONDITION", f"a function {plan.name} exists that is not this container's", _DOING
        ) from conflict
