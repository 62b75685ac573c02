"""`POST /containers/{id}/wait` over cuts: the exit that the client waits for is told once, also when it came meanwhile.

What the container was like when the wait began is looked up beside the wait's request. After a cut the wait is asked
again, and only then the container is looked at: an exit that came before is seen there, one that comes after is the
new wait's.
"""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import orjson

from agent_gateway.asgi import Send
from agent_gateway.control_plane_client import Refused
from agent_gateway.faults import Lost
from agent_gateway.forwarding.asked import Asked
from agent_gateway.forwarding.continued import Continued
from agent_gateway.forwarding.exchange import start
from agent_gateway.forwarding.upstream import Upstream, chunks

if TYPE_CHECKING:
    import httpx

_NEVER = "0001-01-01T00:00:00Z"
_BODY_LIMIT = 1024 * 1024
_UNKNOWN = (
    "the connection was lost while the container ended, and it was removed before its exit code could be asked again"
)


class ContinuedWait(Continued):
    """One wait."""

    def __init__(self, upstream: Upstream, asked: Asked, reference: str) -> None:
        super().__init__(upstream, asked)
        self._reference = reference
        self._condition = asked.query.get("condition") or "not-running"
        self._begun = 0
        """Unix seconds of the control plane's clock."""
        self._before: dict[str, Any] | None = None

    async def serve(self, send: Send) -> None:
        """Head at once, then the exit."""
        looking = asyncio.create_task(self._look(self._reference))
        try:
            answer = await self._first("POST", self._asked.container(self._reference, "wait", self._asked.query))
            try:
                self._begun = unix_seconds(answer.headers.get("date", ""))
                # A client starts the container once it has this head: until then it must be known as it was.
                self._before = await self._known(looking)
                await send(start(answer))
                body = await self._first_or_later(answer)
            finally:
                await answer.aclose()
        finally:
            looking.cancel()
        await send({"type": "http.response.body", "body": body})

    async def _known(self, looking: asyncio.Task[dict[str, Any] | None]) -> dict[str, Any] | None:
        try:
            return await looking
        except Lost as lost:
            raise self._upstream.lost(lost) from None

    async def _first_or_later(self, answer: httpx.Response) -> bytes:
        try:
            return await _whole(answer)
        except Lost as lost:
            if self._before is None:
                raise ConnectionAbortedError(str(lost)) from None
        while True:
            try:
                return await self._again(self._before)
            except Lost as lost:
                await self._resumption.pause(lost)

    async def _again(self, before: dict[str, Any]) -> bytes:
        identifier = before["Id"]
        answer = await self._resumption.ask(
            "POST", self._asked.container(identifier, "wait", {"condition": self._condition})
        )
        try:
            if answer.status_code == 404:
                return await self._of_removed(before)
            if answer.status_code != 200:
                raise ConnectionAbortedError(f"the endpoint answered {answer.status_code}")
            now = await self._look(identifier)
            if now is None:
                return await self._of_removed(before)
            self._resumption.succeeded()
            if self._ended_meanwhile(before["State"], now["State"]):
                return await self._of_ended(before, now["State"])
            return await _whole(answer)
        finally:
            await answer.aclose()

    def _ended_meanwhile(self, before: dict[str, Any], now: dict[str, Any]) -> bool:
        if self._condition == "removed":
            return False
        return now.get("FinishedAt") not in (_NEVER, before.get("FinishedAt"))

    async def _of_ended(self, before: dict[str, Any], state: dict[str, Any]) -> bytes:
        code = await self._told(before["Id"], first=True) if _alive(state) else None
        if code is None and _alive(state):
            return _outcome(int(state.get("ExitCode", 0)))
        if code is not None:
            return _outcome(code)
        status, body, _ = await self._resumption.fetch("POST", self._asked.container(before["Id"], "wait"))
        return body if status == 200 else await self._of_removed(before)

    async def _of_removed(self, before: dict[str, Any]) -> bytes:
        code = await self._told(before["Id"], first=self._condition != "removed")
        if code is None and self._condition == "removed" and before["State"].get("FinishedAt") != _NEVER:
            code = int(before["State"].get("ExitCode", 0))
        return _outcome(code) if code is not None else _outcome(-1, _UNKNOWN)

    async def _told(self, identifier: str, *, first: bool) -> int | None:
        """The exit code in the container's `die` events since the wait began."""
        _, _, date = await self._resumption.fetch("GET", "/_ping")
        query = {
            "since": str(self._begun),
            "until": str(unix_seconds(date) + 1),
            "filters": orjson.dumps({"container": [identifier], "event": ["die"], "type": ["container"]}).decode(),
        }
        status, body, _ = await self._resumption.fetch("GET", self._asked.target("/events", query))
        if status != 200:
            return None
        codes = []
        for line in body.splitlines():
            attributes = orjson.loads(line).get("Actor", {}).get("Attributes", {})
            if (text := attributes.get("exitCode", "")).isdecimal():
                codes.append(int(text))
        return (codes[0] if first else codes[-1]) if codes else None

    async def _look(self, reference: str) -> dict[str, Any] | None:
        """The container as `inspect` shows it; None when there is none."""
        try:
            status, body, _ = await self._upstream.fetch("GET", self._asked.container(reference, "json"))
        except Refused as refused:
            raise Lost(refused.message) from None
        if status != 200:
            return None
        found = orjson.loads(body)
        return found if isinstance(found, dict) and isinstance(found.get("State"), dict) else None


def _alive(state: dict[str, Any]) -> bool:
    return bool(state.get("Running") or state.get("Paused") or state.get("Restarting"))


def _outcome(code: int, error: str = "") -> bytes:
    shown: dict[str, Any] = {"StatusCode": code}
    if error:
        shown["Error"] = {"Message": error}
    return orjson.dumps(shown, option=orjson.OPT_APPEND_NEWLINE)


async def _whole(answer: httpx.Response) -> bytes:
    body = b""
    async for chunk in chunks(answer):
        body += chunk
        if len(body) > _BODY_LIMIT:
            raise ConnectionAbortedError("the answer is too large")
    return body


def unix_seconds(date: str) -> int:
    """Of an HTTP date; 0 when there is none."""
    try:
        return int(parsedate_to_datetime(date).timestamp())
    except (TypeError, ValueError):
        return 0
