"""`GET /containers/{id}/logs?follow=1` over cuts: no line is lost and none comes twice.

Timestamps are always asked for, and taken out again when the client did not ask. After a cut the output is asked for
`since` the entry that came last; what is known of that instant is left out.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson

from agent_gateway.asgi import Send
from agent_gateway.control_plane_client import Refused
from agent_gateway.faults import Lost
from agent_gateway.forwarding.asked import Asked
from agent_gateway.forwarding.continued import Continued
from agent_gateway.forwarding.exchange import start
from agent_gateway.forwarding.log_entries import Entries, MalformedOutput, Piece, nanoseconds
from agent_gateway.forwarding.upstream import Upstream, chunks
from agent_gateway.forwarding.waits import unix_seconds

if TYPE_CHECKING:
    import httpx

_SETTLED_SECONDS = 2.0
"""After that much following without output there was none to be had at the begin."""
_STDERR = 2
_REMOVED = b"sockerless: the container was removed while the connection was lost; its last lines may be missing\n"


class Position:
    """How far the client has been told: the last entry's instant, which of that instant's entries, and its bytes."""

    def __init__(self) -> None:
        self.stamp = b""
        self._number = 0
        self._size = 0
        self._replayed: tuple[bytes, int, int] | None = None
        """Where the output is that comes again, as long as it is behind what was told."""

    def again(self) -> None:
        """The output comes again from the instant on."""
        self._replayed = (b"", 0, 0) if self.stamp else None

    def passed(self, piece: Piece) -> Piece | None:
        """What of a piece is news."""
        if self._replayed is None:
            if piece.stamp:
                self._number = self._number + 1 if piece.stamp == self.stamp else 0
                self.stamp, self._size = piece.stamp, 0
            self._size += len(piece.text)
            return piece
        stamp, number, size = self._replayed
        if piece.stamp:
            number = number + 1 if piece.stamp == stamp else 0
            stamp, size = piece.stamp, 0
        end = size + len(piece.text)
        self._replayed = (stamp, number, end)
        if stamp < self.stamp or (stamp == self.stamp and (number, end) <= (self._number, self._size)):
            return None
        known = self._size - size if (stamp, number) == (self.stamp, self._number) else 0
        self.stamp, self._number, self._size, self._replayed = stamp, number, end, None
        return Piece(piece.kind, b"", piece.text[known:]) if known > 0 else piece


class FollowedLogs(Continued):
    """One `docker logs -f`."""

    def __init__(self, upstream: Upstream, asked: Asked, reference: str) -> None:
        super().__init__(upstream, asked)
        self._reference = reference
        self._stamps = asked.flag("timestamps")
        self._position = Position()
        self._tty = False
        self._begun = 0
        self._settled = 0.0

    async def serve(self, send: Send) -> None:
        """The whole output."""
        looking = asyncio.create_task(self._look())
        try:
            query = self._asked.query | {"timestamps": "1"}
            answer = await self._first("GET", self._asked.container(self._reference, "logs", query))
            try:
                if answer.status_code != 200:
                    await self._as_it_is(answer, send)
                    return
                found = await looking
                self._begun = unix_seconds(answer.headers.get("date", ""))
                self._settled = asyncio.get_running_loop().time() + _SETTLED_SECONDS
                if found is not None:
                    self._tty = bool(found["Config"].get("Tty"))
                    self._reference = found["Id"]
                await send(start(answer))
            except BaseException:
                await answer.aclose()
                raise
        finally:
            looking.cancel()
        await self._follow(answer, send)
        await send({"type": "http.response.body", "body": b""})

    async def _follow(self, answer: httpx.Response, send: Send) -> None:
        while True:
            try:
                await self._pass(answer, send)
                return
            except Lost as lost:
                await self._resumption.pause(lost)
            finally:
                await answer.aclose()
            self._position.again()
            answer = await self._resumption.ask("GET", self._asked.container(self._reference, "logs", self._rest()))
            if answer.status_code == 404:
                await answer.aclose()
                if not self._tty:
                    await _tell(send, _framed(_STDERR, _REMOVED))
                return
            if answer.status_code != 200:
                await answer.aclose()
                raise ConnectionAbortedError(f"the endpoint answered {answer.status_code}")

    async def _pass(self, answer: httpx.Response, send: Send) -> None:
        entries = Entries(tty=self._tty)
        try:
            async for chunk in chunks(answer):
                self._resumption.succeeded()
                await _tell(send, b"".join([self._shown(piece) for piece in entries.feed(chunk)]))
            await _tell(send, b"".join([self._shown(piece) for piece in entries.rest()]))
        except MalformedOutput as error:
            raise ConnectionAbortedError(str(error)) from None

    def _shown(self, piece: Piece) -> bytes:
        news = self._position.passed(piece)
        if news is None:
            return b""
        text = news.stamp + news.text if self._stamps else news.text
        return text if self._tty else _framed(news.kind, text)

    def _rest(self) -> dict[str, str]:
        """The query that brings what is missing."""
        query = self._asked.query | {"timestamps": "1"}
        tail = query.get("tail", "")
        if self._position.stamp:
            at = nanoseconds(self._position.stamp.decode())
            query.pop("tail", None)
            query["since"] = f"{at // 1_000_000_000}.{at % 1_000_000_000:09d}"
        elif tail == "0":
            query.pop("tail")
            query["since"] = str(self._begun)
        elif asyncio.get_running_loop().time() > self._settled:
            query.pop("tail", None)
        return query

    async def _as_it_is(self, answer: httpx.Response, send: Send) -> None:
        try:
            body = b"".join([chunk async for chunk in chunks(answer)])
        except Lost as lost:
            raise Refused(502, str(lost)) from None
        finally:
            await answer.aclose()
        await send(start(answer))
        await send({"type": "http.response.body", "body": body})

    async def _look(self) -> dict[str, Any] | None:
        """The container, for its whole id and whether its output has frames."""
        try:
            status, body, _ = await self._upstream.fetch("GET", self._asked.container(self._reference, "json"))
        except (Lost, Refused):
            return None
        found = orjson.loads(body) if status == 200 else None
        return found if isinstance(found, dict) and isinstance(found.get("Config"), dict) else None


def _framed(kind: int, text: bytes) -> bytes:
    return bytes((kind, 0, 0, 0)) + len(text).to_bytes(4, "big") + text


async def _tell(send: Send, body: bytes) -> None:
    if body:
        await send({"type": "http.response.body", "body": body, "more_body": True})
