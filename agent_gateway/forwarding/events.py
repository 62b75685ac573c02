"""`GET /events` over cuts: after one the control plane is asked for what came since, and what was told is left out."""

from __future__ import annotations

from collections import deque
from typing import Any

import orjson

from agent_gateway.asgi import Send
from agent_gateway.control_plane_client import Refused
from agent_gateway.faults import Lost
from agent_gateway.forwarding.asked import Asked
from agent_gateway.forwarding.continued import Continued
from agent_gateway.forwarding.exchange import start
from agent_gateway.forwarding.upstream import Upstream, chunks

_SECOND = 1_000_000_000
_OVERLAP = 5 * _SECOND
"""Events of another control plane may arrive that much later than younger ones of the one that serves us."""
_LINE_LIMIT = 1024 * 1024


class FollowedEvents(Continued):
    """One `docker events`."""

    def __init__(self, upstream: Upstream, asked: Asked) -> None:
        super().__init__(upstream, asked)
        self._from = 0
        """Of the control plane's clock: everything before was told, or is not wanted."""
        self._told: deque[tuple[int, bytes]] = deque()
        """The events of the last seconds."""

    async def serve(self, send: Send) -> None:
        """Every event once."""
        asked = self._asked
        answer = await self._first("GET", asked.target(asked.path, asked.query))
        await send(start(answer))
        if answer.status_code == 200 and "since" not in asked.query:
            # Up to now the control plane tells us what happens; from here on it can be asked for.
            self._from = await self._clock()
        while True:
            try:
                await self._pass(answer, send, lines=answer.status_code == 200)
                break
            except Lost as lost:
                await self._resumption.pause(lost)
            finally:
                await answer.aclose()
            answer = await self._resumption.ask("GET", asked.target(asked.path, asked.query | self._since()))
            if answer.status_code != 200:
                await answer.aclose()
                raise ConnectionAbortedError(f"the endpoint answered {answer.status_code}")
        await send({"type": "http.response.body", "body": b""})

    async def _pass(self, answer: Any, send: Send, *, lines: bool) -> None:
        pending = b""
        async for chunk in chunks(answer):
            self._resumption.succeeded()
            if lines:
                whole, newline, rest = (pending + chunk).rpartition(b"\n")
                pending = rest
                if len(pending) > _LINE_LIMIT:
                    raise ConnectionAbortedError("a line is too long")
                chunk = b"".join(line + b"\n" for line in whole.split(b"\n") if self._fresh(line)) if newline else b""
            if chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})

    def _fresh(self, line: bytes) -> bool:
        if not line:
            return False
        try:
            at = int(orjson.loads(line)["timeNano"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return True
        event = (at, line)
        if event in self._told:
            return False
        self._told.append(event)
        while self._told and self._told[0][0] < at - 2 * _OVERLAP:
            self._told.popleft()
        return True

    def _since(self) -> dict[str, str]:
        """From shortly before the latest event, or as it was asked when there was none."""
        if not self._told:
            return {"since": _seconds(self._from)} if self._from else {}
        latest = max(at for at, _ in self._told)
        return {"since": _seconds(max(latest - _OVERLAP, self._from))}

    async def _clock(self) -> int:
        """The control plane's time in nanoseconds; 0 when it cannot be had now."""
        from agent_gateway.forwarding.log_entries import nanoseconds

        try:
            status, body, _ = await self._upstream.fetch("GET", self._asked.target("/info"))
            return nanoseconds(str(orjson.loads(body)["SystemTime"])) if status == 200 else 0
        except (Lost, Refused, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return 0


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // _SECOND}.{nanoseconds % _SECOND:09d}"
