"""One container's invocation: a request that is held, and sent again as long as the container is of use."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from control_plane.backends.base import RunOutcome
from control_plane.backends.calls import CloudError, failure_of
from control_plane.backends.cloud_functions import answers
from control_plane.backends.cloud_functions.answers import Verdict
from control_plane.backends.cloud_functions.identity import Identity
from control_plane.backends.cloud_functions.plan import invoke_key
from control_plane.backends.cloud_functions.requests import Requests
from control_plane.errors import DockerError
from control_plane.model import CloudFunction, Execution

_HELD = 30.0
"""Seconds after which a request that breaks counts as one that the agent had taken."""
_MOST_LOST = 3
"""So many of them one after another; then it is the platform that breaks them off."""
_QUICK = 1.0
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0

Renew = Callable[[], Awaitable[CloudFunction]]
"""Deploys a function that is gone once more, under its name. Raises DockerError."""


@dataclass(slots=True)
class Invocation:
    """What is asked, of which function, and how it ended."""

    function: CloudFunction
    execution: Execution
    tenant: str
    container: str
    body: Mapping[str, Any]
    patience: float
    """Seconds that the platform is given to pass a request on."""
    renew: Renew | None = None
    busy_patience: float | None = None
    """The container may run already, so that its instance has no room for another request: seconds until that is taken
    for an answer. None: nobody else has asked for it, and there is none."""
    outcome: RunOutcome | None = None
    clean: bool = False
    """The agent itself has said that it ends."""
    cancelled: bool = False
    """The function is being deleted: whatever comes is the end."""
    attempts: int = 0
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def held(self) -> bool:
        """Whether it goes on here."""
        return self.task is not None and not self.task.done()


class Holding:
    """Sends invocations' requests and judges what comes back."""

    def __init__(self, requests: Requests, identity: Identity, key: bytes) -> None:
        self._requests = requests
        self._identity = identity
        self._key = key

    async def hold(self, invocation: Invocation) -> None:
        """Until the container is of no more use, or the platform has refused it for good; then `outcome` is set.

        Without outcome: it runs, and another holds it.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + invocation.patience
        started = loop.time()
        tries = lost = 0
        renewed = False
        while True:
            begun = loop.time()
            verdict = await self._once(invocation)
            lasted = loop.time() - begun
            lost = lost + 1 if verdict.kind == "again" and lasted >= _HELD else 0
            if verdict.kind == "released" or 0 < lost <= _MOST_LOST:
                # It was held, and may be wanted still: what a new instance is to do, the control plane tells its agent.
                deadline = loop.time() + invocation.patience
                tries = 0 if lasted >= _QUICK else tries
            if verdict.kind == "gone" and not invocation.cancelled:
                if invocation.renew is not None:
                    verdict = await self._renewed(invocation)
                    renewed, deadline = True, loop.time() + invocation.patience
                elif renewed:
                    # The names of new services are not known everywhere at once.
                    verdict = Verdict("again", verdict.outcome)
            pause = 0.0 if verdict.kind == "released" and lasted >= _QUICK else _pause(tries)
            ends = deadline
            if verdict.kind == "busy" and invocation.busy_patience is not None:
                ends = min(deadline, started + invocation.busy_patience)
            if invocation.cancelled or _over(verdict) or loop.time() + pause >= ends:
                _settle(invocation, verdict)
                return
            tries += 1
            await asyncio.sleep(pause)

    async def _once(self, invocation: Invocation) -> Verdict:
        """One request; once more with a new token when the present one does not count."""
        verdict = await self._post(invocation)
        if verdict.kind == "denied":
            self._identity.forget(invocation.function.uri)
            verdict = await self._post(invocation)
        return verdict

    async def _post(self, invocation: Invocation) -> Verdict:
        function = invocation.function
        try:
            token = await self._identity.token(function.uri)
            invocation.attempts += 1
            key = invoke_key(self._key, function.name)
            return answers.judge(await self._requests.post(function.uri, token, key, invocation.body))
        except Exception as error:
            failure = failure_of(error, "invoking the container's function")
            if failure is None:
                raise
            return _failure(failure)

    async def _renewed(self, invocation: Invocation) -> Verdict:
        """Somebody has removed the function: it is deployed anew, once, and asked again."""
        renew, invocation.renew = invocation.renew, None
        assert renew is not None
        try:
            invocation.function = await renew()
        except DockerError as error:
            return Verdict("refused", RunOutcome(finished=True, error=error.message))
        return answers.broken("the function was deployed anew")


def _failure(failure: CloudError) -> Verdict:
    if failure.code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT", "NOT_FOUND"):
        return Verdict("refused", RunOutcome(finished=True, error=failure.docker().message))
    return answers.broken(failure.text or failure.code)


def _over(verdict: Verdict) -> bool:
    return verdict.kind in ("ended", "refused", "denied", "gone")


def _settle(invocation: Invocation, verdict: Verdict) -> None:
    if verdict.kind == "busy" and invocation.busy_patience is not None and not invocation.cancelled:
        return
    invocation.clean = verdict.kind == "ended"
    unknown = RunOutcome(finished=True, error="the container's agent did not go on when it was asked to")
    invocation.outcome = verdict.outcome if verdict.outcome.finished else unknown


def _pause(tries: int) -> float:
    bound = min(_FIRST_PAUSE * 2.0 ** min(tries, 16), _LONGEST_PAUSE)
    return bound / 2 + random.uniform(0, bound / 2)
