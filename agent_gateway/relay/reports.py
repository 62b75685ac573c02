"""Hands agents' hellos and events to the control plane: in order per container, again until accepted."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from agent_gateway import traces
from agent_gateway.control_plane_client import ControlPlane, Refused
from agent_gateway.protocol import WELCOME_ACTIONS
from agent_gateway.relay.links import GONE, GONE_SECONDS, SILENT_SECONDS, Link, Links

_LOGGER = logging.getLogger("agent_gateway.relay")

_FIRST_DELAY_SECONDS = 0.05
_LAST_DELAY_SECONDS = 5.0
TOKEN_SECONDS = 8 * 3600.0
"""An agent that is linked gets a fresh token so often."""
_FINAL = frozenset({400, 404, 405, 409, 410, 413, 415, 422})
"""Answers that no repetition changes."""


class Reports:
    """One task per container while there is something to report."""

    def __init__(self, control_plane: ControlPlane, awaited: Callable[[str, object], list[str]]) -> None:
        """`awaited` adds this relay's attachments to those that the control plane names, by container."""
        self._control_plane = control_plane
        self._awaited = awaited
        self.welcomed: Callable[[str, object], None] = lambda container, gateways: None
        """Told of each agent that is welcome now, and what the control plane says of other gateways."""
        self._tasks: set[asyncio.Task[None]] = set()

    def report(self, link: Link, message: dict[str, Any]) -> None:
        """Queues a hello or an event."""
        link.queue.append((link.boot, message))
        if link.reporter is None:
            link.reporter = self._start(self._run(link))

    def unlinked(self, link: Link, links: Links, *, farewell: bool = False) -> None:
        """The link broke: after a while without another the control plane hears of it; after a farewell at once."""

        def gone() -> None:
            link.gone_timer = None
            self._start(self._gone(link, links))

        if link.gone_timer is not None:
            link.gone_timer.cancel()
        patience = 0.0 if farewell else GONE_SECONDS if link.idle else SILENT_SECONDS
        link.gone_timer = asyncio.get_running_loop().call_later(patience, gone)

    async def close(self) -> None:
        """Gives up what is under way; agents keep what was not acknowledged."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, link: Link) -> None:
        try:
            while link.queue:
                boot, message = link.queue[0]
                if message["type"] == "hello":
                    await self._hello(link, message)
                elif message["type"] == GONE:
                    await self._replaced(link, boot)
                else:
                    await self._event(link, boot, message)
                link.queue.popleft()
        finally:
            link.reporter = None

    async def _hello(self, link: Link, hello: dict[str, Any]) -> None:
        delays, began = _delays(), traces.now()
        while link.hello is hello and link.socket is not None:
            try:
                answer = await self._control_plane.hello(link.agent(link.boot), hello)
            except Refused as refused:
                if refused.status not in _FINAL:
                    await asyncio.sleep(next(delays))
                    continue
                _LOGGER.warning("container %s: its agent is not wanted: %s", link.container, refused.message)
                answer = {"action": "shutdown"}
            if link.hello is hello and link.socket is not None:
                link.socket.send(self._welcome(link, answer))
                link.welcomed = True
                self.welcomed(link.container, answer.get("gateways"))
                if traces.active is not None and isinstance(trace := answer.get("trace"), str):
                    traces.active.hello(link.container, began, trace)
                self._hand_over(link, answer.get("token"))
            return

    def _hand_over(self, link: Link, token: object) -> None:
        """A fresh token for the agent's next dial, and another one in time."""
        if not isinstance(token, str) or not token or link.socket is None:
            return
        link.socket.send({"type": "token", "token": token})
        link.stop_renewal()

        def renew() -> None:
            link.token_timer = None
            self._start(self._renew(link))

        delay = TOKEN_SECONDS * random.uniform(0.8, 1.0)
        link.token_timer = asyncio.get_running_loop().call_later(delay, renew)

    async def _renew(self, link: Link) -> None:
        delays = _delays()
        while (socket := link.socket) is not None:
            try:
                token = await self._control_plane.token(link.agent(link.boot))
            except Refused as refused:
                if refused.status in _FINAL:
                    return
                await asyncio.sleep(next(delays))
                continue
            if link.socket is socket:
                self._hand_over(link, token)
            return

    def _welcome(self, link: Link, answer: dict[str, Any]) -> dict[str, Any]:
        action = answer.get("action")
        if action not in WELCOME_ACTIONS:
            _LOGGER.error("container %s: the control plane answered hello with %r", link.container, action)
            action = "wait"
        streams = self._awaited(link.container, answer.get("streams"))
        welcome: dict[str, Any] = {"type": "welcome", "action": action, "streams": streams}
        if answer.get("spec") is not None:
            welcome["spec"] = answer["spec"]
        return welcome

    async def _event(self, link: Link, boot: str, event: dict[str, Any]) -> None:
        for delay in _delays():
            try:
                await self._control_plane.event(link.agent(boot), event)
            except Refused as refused:
                if refused.status not in _FINAL:
                    await asyncio.sleep(delay)
                    continue
                _LOGGER.warning(
                    "container %s: event %s was refused: %s", link.container, event["type"], refused.message
                )
            break
        if link.boot == boot:
            link.recorded = event["seq"]
            if link.socket is not None:
                link.socket.send({"type": "ack", "seq": event["seq"]})

    async def _replaced(self, link: Link, boot: str) -> None:
        """The control plane hears that the predecessor is gone before it hears of the agent in its place."""
        for delay in _delays():
            try:
                await self._control_plane.gone(link.agent(boot))
            except Refused as refused:
                if refused.status not in _FINAL:
                    await asyncio.sleep(delay)
                    continue
            return

    async def _gone(self, link: Link, links: Links) -> None:
        if link.reporter is not None:
            await asyncio.wait([link.reporter])  # what it said before it went comes first
        for delay in _delays():
            if link.socket is not None:
                return
            try:
                await self._control_plane.gone(link.agent(link.boot))
            except Refused as refused:
                if refused.status not in _FINAL:
                    await asyncio.sleep(delay)
                    continue
            links.forget(link)
            return


def _delays() -> Any:
    delay = _FIRST_DELAY_SECONDS
    while True:
        yield delay * random.uniform(0.5, 1.0)
        delay = min(delay * 2, _LAST_DELAY_SECONDS)
