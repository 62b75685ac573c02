"""The request that tells an app's agent its run and limit, sent until it is taken.

App Service starts a container on its own time: until it answers, its front end answers for it, or nobody does.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from control_plane.backends.azure.clients import Clients
from control_plane.backends.calls import failure_of, pause_before

_log = logging.getLogger(__name__)

PATH = "/api/run"
KEY_HEADER = "X-Sockerless-Invoke"
_FRONT_END_CUT = 235.0
"""Seconds: App Service's front end answers for a request after 230."""
_REMEMBERED = 10_000
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Invocation:
    """One run to be asked for."""

    execution: str
    tenant: str
    container: str
    site: str
    host: str
    key: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request."""

    taken: bool
    final: bool
    """Asking again would not help."""
    text: str = ""


GiveUp = Callable[[Invocation], Awaitable[None]]
"""Called when an invocation has finally failed, before anybody is told."""


class Invocations:
    """At most one under way for a site."""

    def __init__(self, clients: Clients, limit: float, give_up: GiveUp) -> None:
        self._clients = clients
        self._limit = limit
        self._give_up = give_up
        self._under_way: dict[str, tuple[Invocation, asyncio.Task[None]]] = {}
        self._failures: OrderedDict[str, str] = OrderedDict()

    def begin(self, wanted: Invocation) -> None:
        """Asks in the background; an earlier request to the site is given up."""
        before = self._under_way.get(wanted.site)
        if before is not None and before[0].execution == wanted.execution:
            return
        self.cancel(wanted.site)
        self._failures.pop(wanted.execution, None)
        task = asyncio.create_task(self._run(wanted))
        self._under_way[wanted.site] = (wanted, task)

        def over(done: asyncio.Task[None]) -> None:
            current = self._under_way.get(wanted.site)
            if current is not None and current[1] is done:
                del self._under_way[wanted.site]

        task.add_done_callback(over)

    def cancel(self, site: str, execution: str = "") -> None:
        """Gives up the request to a site (of that execution alone, where one is named)."""
        found = self._under_way.get(site)
        if found is not None and execution in ("", found[0].execution):
            del self._under_way[site]
            found[1].cancel()

    def waiting(self, execution: str) -> bool:
        """Whether the run has not been taken yet."""
        return any(wanted.execution == execution for wanted, _ in self._under_way.values())

    def failure(self, execution: str) -> str:
        """Why the run was finally refused; empty when it was not."""
        return self._failures.get(execution, "")

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = [task for _, task in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, wanted: Invocation) -> None:
        try:
            failure = await self._until_taken(wanted)
        except Exception:
            _log.exception("container %s: its app could not be asked to run it", wanted.container[:12])
            failure = "the container's function app could not be asked to run it"
        if not failure:
            return
        self._failures[wanted.execution] = failure
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
        await self._give_up(wanted)

    async def _until_taken(self, wanted: Invocation) -> str:
        """Empty once the run is taken, else why it was not."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._limit
        tries = 0
        while True:
            answer = await self._ask(wanted, max(ends - loop.time(), 1.0))
            if answer.taken:
                return ""
            if answer.final:
                return f"the container's function app refused to run it: {answer.text}"
            pause = pause_before(tries, "UNAVAILABLE")
            if loop.time() + pause >= ends:
                return (
                    f"the container's function app did not answer within {self._limit:g} seconds "
                    f"(SOCKERLESS_AZF_START_LIMIT): {answer.text}"
                )
            tries += 1
            await asyncio.sleep(pause)

    async def _ask(self, wanted: Invocation, timeout: float) -> Answer:
        http = await self._clients.http()
        url, headers = self._clients.site_url(wanted.host, PATH)
        try:
            answer = await http.post(
                url,
                json=wanted.body,
                headers={**headers, KEY_HEADER: wanted.key},
                timeout=min(timeout, _FRONT_END_CUT),
            )
        except Exception as error:
            failure = failure_of(error, "asking the container's app")
            if failure is None:
                raise
            return Answer(taken=False, final=False, text=failure.text or failure.code)
        return judged(answer.status_code, answer.headers.get("content-type", ""), answer.content)


def judged(status: int, content_type: str, content: bytes) -> Answer:
    """What an answer means. The agent answers JSON; pages are the front end's."""
    if 200 <= status < 300:
        return Answer(taken=True, final=True)
    text = _shown(status, content_type, content)
    if status in (404, 408, 429) or status >= 500:
        # 404: the front end does not know the name yet.
        return Answer(taken=False, final=False, text=text)
    if status == 403 and b"stopped" in content.lower():
        # The start has not come through to the front end yet.
        return Answer(taken=False, final=False, text=text)
    if status == 409 and "ended" in text:
        # The instance of the run before is going away.
        return Answer(taken=False, final=False, text=text)
    if 300 <= status < 400:
        text += ": the app redirects; nothing may stand between the endpoint and it"
    elif status in (401, 403):
        text += ": the app's access restrictions or authentication keep the endpoint out"
    return Answer(taken=False, final=True, text=text)


def _shown(status: int, content_type: str, content: bytes) -> str:
    message = ""
    if "json" in content_type:
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            message = str(found.get("message") or "")[:_SHOWN]
    return f"HTTP {status}" + (f" {message}" if message else "")
