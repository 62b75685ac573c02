"""Pairs the two halves of each stream and pumps messages between them, unchanged.

docs/wire-protocol.md, section 3. Messages that were read while the other half is missing go to it when it is there
(again): early stdin, and the `resume` of an end that redialled first.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal, Protocol

from agent_gateway.protocol import CLOSE_GOING_AWAY, CLOSE_OK, CLOSE_POLICY, GRACE_SECONDS, WINDOW
from agent_gateway.tickets import TICKET_SECONDS

Side = Literal["client", "agent"]

MAX_STREAMS_PER_CONTAINER = 4096
_MAX_PENDING = 2 * WINDOW
_ENDED_KEPT = 4096
_ENDED_SECONDS = 2.0 * TICKET_SECONDS
"""However many streams end: their tickets may not open anything again while they are valid."""
_RESUME = '{"resume"'


class Half(Protocol):
    """One end of a pair, as the relay sees it."""

    redials: bool
    """Whether it dials again after a close with 1001, and outlives this process."""

    def send_binary(self, data: bytes | memoryview) -> None:
        """One payload message."""
        ...

    def send_text(self, text: str) -> None:
        """One control message."""
        ...

    def close(self, code: int = CLOSE_OK, reason: str = "") -> None:
        """Ends the stream from this end."""
        ...

    def fail(self, status: int, message: str) -> None:
        """Sends Docker's error as the last message and closes."""
        ...

    def pause_reading(self) -> None:
        """Nothing more is read from this half."""
        ...

    def resume_reading(self) -> None:
        """This half is read on."""
        ...


class _Place:
    """One side of a pair: the half that is there (or not), and what waits for it."""

    __slots__ = ("half", "pending", "pending_size", "timer")

    def __init__(self) -> None:
        self.half: Half | None = None
        self.pending: list[bytes | str] = []
        """Messages read from this side while the other was missing (from the client: until the agent spoke)."""
        self.pending_size = 0
        self.timer: asyncio.TimerHandle | None = None


class Pair:
    """One stream."""

    def __init__(self, pairs: Pairs, stream: str, container: str) -> None:
        self._pairs = pairs
        self.stream = stream
        self.container = container
        self.kind = ""
        self.params: dict[str, Any] = {}
        self.opened = False
        """The agent was told of it."""
        self.paired = False
        """Both halves have been there at once."""
        self.rejoining = False
        """The client half began with a `resume`: it belongs to a stream that may go on at another gateway."""
        self.expired = False
        """The client's ticket has expired: it may rejoin, and open nothing."""
        self.agent_spoke = False
        self.ended = False
        self.opening: Callable[[bool], None] | None = None
        """Told once whether both halves have met."""
        self._client = _Place()
        self._agent = _Place()

    @property
    def client(self) -> Half | None:
        """The half of the front door, control plane or connector."""
        return self._client.half

    @property
    def agent(self) -> Half | None:
        """The agent's half."""
        return self._agent.half

    @property
    def redials(self) -> bool:
        """Whether both ends can go on at another gateway; a Docker client on a connection of this process cannot."""
        client = self._client.half
        return client is None or client.redials

    def place(self, side: Side, half: Half) -> None:
        """A half is there: the first of its side, or the one that takes a broken one's place."""
        mine, other = self._places(side)
        older = mine.half
        mine.half = half
        mine.pending.clear()
        mine.pending_size = 0
        self._stop(mine)
        if older is not None:
            older.close(CLOSE_GOING_AWAY, "replaced")
        if other.half is None:
            self._wait(side)
            return
        self.paired = True
        self._met(True)
        self._stop(other)
        self._flush(other, half)
        other.half.resume_reading()

    def binary(self, side: Side, data: bytes | memoryview) -> None:
        """A payload message from `side`."""
        if side == "agent":
            self._pairs.bytes_from_agents += len(data)
        else:
            self._pairs.bytes_to_agents += len(data)
        other = self._passing(side, data)
        if other is not None:
            other.send_binary(data)

    def text(self, side: Side, text: str) -> None:
        """A control message from `side`."""
        if not self.paired and side == "client" and text.startswith(_RESUME):
            self.rejoining = True
        other = self._passing(side, text)
        if other is not None:
            other.send_text(text)

    def _passing(self, side: Side, message: bytes | memoryview | str) -> Half | None:
        if side == "agent":
            if not self.agent_spoke:
                self._agent_speaks()
            mine, other = self._agent, self._client
        else:
            mine, other = self._client, self._agent
        if mine.half is not None and (other.half is None or not self.agent_spoke):
            self._keep(mine, bytes(message) if isinstance(message, memoryview) else message)
        return other.half

    def _agent_speaks(self) -> None:
        # Until now its half might have been a connection that was dead already; what it was sent would go again.
        self.agent_spoke = True
        self._client.pending.clear()
        self._client.pending_size = 0

    def closed(self, side: Side, half: Half, code: int) -> None:
        """A half's socket ended."""
        mine, other = self._places(side)
        if mine.half is not half or self.ended:
            return
        mine.half = None
        if code == CLOSE_OK:
            if other.half is not None:
                other.half.close(CLOSE_OK)
            self._pairs.remove(self)
            return
        if other.half is None:
            # Both are cut off; both may redial.
            self._wait(side, always=True)
            return
        other.half.pause_reading()
        self._wait("agent" if side == "client" else "client")
        if side == "agent" and not self.agent_spoke:
            # A spare that broke before the agent read its `open`: nobody but us knows of the stream.
            self._pairs.unheard(self)
        elif side == "agent":
            self._pairs.agent_lost(self)

    def congested(self, side: Side) -> None:
        """Too much waits to be written to `side`: the other is not read."""
        _, other = self._places(side)
        if other.half is not None:
            other.half.pause_reading()

    def drained(self, side: Side) -> None:
        """`side` takes data again."""
        mine, other = self._places(side)
        if other.half is not None and mine.half is not None:
            other.half.resume_reading()

    def fail(self, status: int, message: str) -> None:
        """Ends the stream with Docker's error for the client."""
        client, agent = self._client.half, self._agent.half
        self._pairs.remove(self)
        if client is not None:
            client.fail(status, message)
        if agent is not None:
            agent.close(CLOSE_OK)

    def drop_agent(self) -> None:
        """Turns the agent's half away (it was another container's)."""
        agent, self._agent.half = self._agent.half, None
        if agent is not None:
            agent.close(CLOSE_POLICY, "not your stream")

    def go_away(self) -> None:
        """Closes both halves so that they redial (elsewhere)."""
        self._pairs.remove(self, final=False)
        for half in (self._client.half, self._agent.half):
            if half is not None:
                half.close(CLOSE_GOING_AWAY, "going away")

    def send_off(self, reason: str) -> None:
        """Its agent is linked to another gateway: the client half dials again, and there."""
        client = self._client.half
        self._pairs.remove(self, final=False)
        if client is not None:
            client.close(CLOSE_GOING_AWAY, reason)
        if self._agent.half is not None:
            self._agent.half.close(CLOSE_GOING_AWAY, reason)

    def expire(self, side: Side) -> None:
        """The grace of a lone half starts now (again)."""
        self._wait(side)

    def forget(self) -> None:
        """No timers survive the pair."""
        self.ended = True
        self._met(False)
        self._stop(self._client)
        self._stop(self._agent)

    def _met(self, came: bool) -> None:
        opening, self.opening = self.opening, None
        if opening is not None:
            opening(came)

    def _places(self, side: Side) -> tuple[_Place, _Place]:
        return (self._client, self._agent) if side == "client" else (self._agent, self._client)

    def _keep(self, mine: _Place, message: bytes | str) -> None:
        half = mine.half
        mine.pending.append(message)
        mine.pending_size += len(message)
        if mine.pending_size > _MAX_PENDING and half is not None:
            mine.half = None
            half.close(CLOSE_POLICY, "more than the window allows")
            self._pairs.remove(self)

    def _flush(self, source: _Place, sink: Half) -> None:
        waiting = source.pending
        if self.agent_spoke:
            source.pending = []
            source.pending_size = 0
        for message in list(waiting):
            if isinstance(message, bytes):
                sink.send_binary(message)
            else:
                sink.send_text(message)

    def _wait(self, side: Side, *, always: bool = False) -> None:
        mine, _ = self._places(side)
        self._stop(mine)
        # A client half may wait without end for a container that was not started yet.
        if always or self.opened or self.paired or side == "agent":
            mine.timer = asyncio.get_running_loop().call_later(GRACE_SECONDS, self._lone, side)

    def _lone(self, side: Side) -> None:
        mine, _ = self._places(side)
        half = mine.half
        self._pairs.remove(self)
        if half is not None:
            half.close(CLOSE_GOING_AWAY, "the other half did not come back")

    @staticmethod
    def _stop(place: _Place) -> None:
        if place.timer is not None:
            place.timer.cancel()
            place.timer = None


class StreamRefused(Exception):
    """A half that may not join: HTTP status and reason."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Pairs:
    """The streams of this relay, by id and by container."""

    def __init__(self, unheard: Callable[[Pair], None], agent_lost: Callable[[Pair], None]) -> None:
        self.unheard = unheard
        """Called when a stream must be opened (again) over the agent's link."""
        self.agent_lost = agent_lost
        """Called when the agent's half of a live stream broke."""
        self.bytes_from_agents = 0
        self.bytes_to_agents = 0
        self.opened = 0
        """Streams since the start."""
        self._pairs: dict[str, Pair] = {}
        self._by_container: dict[str, dict[str, Pair]] = {}
        self._ended: OrderedDict[str, float] = OrderedDict()
        """When each ended, by the monotonic clock."""

    def __len__(self) -> int:
        return len(self._pairs)

    def of(self, container: str) -> list[Pair]:
        """The streams of one container."""
        return list(self._by_container.get(container, {}).values())

    def all(self) -> list[Pair]:
        """Every stream."""
        return list(self._pairs.values())

    def get(self, stream: str) -> Pair | None:
        """A stream by its id."""
        return self._pairs.get(stream)

    def for_client(self, stream: str, container: str, kind: str, params: dict[str, Any]) -> Pair:
        """The pair a client half joins. Its ticket is the control plane's word: a foreign agent half is turned away."""
        pair = self._pairs.get(stream)
        if pair is not None and pair.container != container:
            pair.drop_agent()
            self.remove(pair, final=False)
            pair = None
        if pair is None:
            self.refuse_ended(stream)
            pair = self._add(stream, container)
        pair.kind = kind
        pair.params = params
        return pair

    def for_agent(self, stream: str, container: str) -> Pair:
        """The pair an agent half joins. Raises StreamRefused for another container's or an ended stream."""
        self.check(stream, container)
        pair = self._pairs.get(stream)
        return self._add(stream, container) if pair is None else pair

    def check(self, stream: str, container: str) -> None:
        """Raises StreamRefused when `for_agent` would."""
        pair = self._pairs.get(stream)
        if pair is None:
            self.refuse_ended(stream)
        elif pair.container != container:
            raise StreamRefused(403, "the stream is not of this container")

    def remove(self, pair: Pair, *, final: bool = True) -> None:
        """Forgets a stream; its id is remembered as ended, so that a late half learns it at once."""
        if pair.ended:
            return
        pair.forget()
        self._pairs.pop(pair.stream, None)
        mine = self._by_container.get(pair.container)
        if mine is not None:
            mine.pop(pair.stream, None)
            if not mine:
                del self._by_container[pair.container]
        if final:
            self._ended[pair.stream] = time.monotonic()
            self._forget_ended()

    def _forget_ended(self) -> None:
        while len(self._ended) > _ENDED_KEPT:
            oldest = next(iter(self._ended))
            if self._ended[oldest] > time.monotonic() - _ENDED_SECONDS:
                return
            del self._ended[oldest]

    def _add(self, stream: str, container: str) -> Pair:
        mine = self._by_container.setdefault(container, {})
        if len(mine) >= MAX_STREAMS_PER_CONTAINER:
            raise StreamRefused(429, "too many streams of this container")
        pair = mine[stream] = self._pairs[stream] = Pair(self, stream, container)
        self.opened += 1
        return pair

    def has_ended(self, stream: str) -> bool:
        """Whether a stream is known to be over."""
        return stream in self._ended

    def refuse_ended(self, stream: str) -> None:
        """Raises StreamRefused for a stream that is over."""
        if self.has_ended(stream):
            raise StreamRefused(410, "the stream has ended")
