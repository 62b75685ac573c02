"""Links: one websocket per agent, for lifecycle events, calls and the opening of streams.

docs/wire-protocol.md, section 2. A `Link` is the relay's record of one container's agent; it outlives the sockets.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agent_gateway.client_half import StreamError
from agent_gateway.control_plane_client import Linked
from agent_gateway.protocol import (
    CLOSE_GOING_AWAY,
    CLOSE_OK,
    CLOSE_POLICY,
    EVENTS,
    ProtocolViolation,
    parse_from_agent,
    serialise,
)
from agent_gateway.relay.pairing import Pair
from agent_gateway.tickets import AgentToken
from agent_gateway.websockets import Socket

if TYPE_CHECKING:
    from agent_gateway.relay.halves import SpareHalf

HELLO_SECONDS = 10.0
DEAD_SECONDS = 60.0
GONE_SECONDS = 10.0
SILENT_SECONDS = 2.0
"""The same unless the agent is idle: one that lives redials much sooner, and clients wait for the exit code."""
REDIAL_WAIT_SECONDS = 2.0
_MAX_SPARES = 4
_MAX_QUEUED_EVENTS = 2_000
_MAX_EVENT = 64 * 1024
"""Characters of one event, and of a hello: what a container can make us keep is bounded by their number and size."""
_MAX_CALLS = 1024


class LinkSocket(Socket):
    """One connection of a link. Until `hello` it belongs to nobody."""

    def __init__(self, links: Links, agent: AgentToken) -> None:
        super().__init__()
        self._links = links
        self.agent = agent
        self.container = agent.container
        self.link: Link | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0

    def opened(self) -> None:
        """The connection stands."""
        self._timer = asyncio.get_running_loop().call_later(HELLO_SECONDS, self._silent)

    def binary(self, view: memoryview) -> None:
        """A binary message came in."""
        self.refuse(CLOSE_POLICY, "a link carries text")

    def text(self, text: str) -> None:
        """A text message came in."""
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        try:
            message = parse_from_agent(text)
            if len(text) > _MAX_EVENT and message["type"] != "result":
                raise ProtocolViolation(f"{message['type']}: longer than {_MAX_EVENT} characters")
            if self.link is None:
                if message["type"] != "hello" or message["container"] != self.container:
                    raise ProtocolViolation("hello of the token's container is wanted first")
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = loop.call_later(DEAD_SECONDS, self._check)
                self.link = self._links.hello(self, message)
            else:
                self.link.received(self, message)
        except ProtocolViolation as violation:
            self.refuse(violation.code, str(violation)[:100])

    def lost(self, code: int) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
        if self.link is not None:
            self.link.disconnected(self, farewell=code == CLOSE_OK)

    def send(self, message: Mapping[str, Any]) -> None:
        """One link message."""
        self.send_text(serialise(message))

    def _silent(self) -> None:
        self.abort()

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._heard + DEAD_SECONDS - loop.time()
        if left <= 0 and not self.closing:
            self.abort()
            self.lost(1006)
        elif not self.closing:
            self._timer = loop.call_later(left, self._check)


GONE = "gone"
"""In a link's queue: the agent process of that boot has no link and will not have another."""


class Link:
    """One container's agent."""

    def __init__(self, container: str, report: Callable[[Link, dict[str, Any]], None]) -> None:
        self.container = container
        self.tenant = ""
        self.run = 0
        """Of its agent's token."""
        self.boot = ""
        self.socket: LinkSocket | None = None
        self.hello: dict[str, Any] = {}
        self.welcomed = False
        self.token_timer: asyncio.TimerHandle | None = None
        self.over = False
        """The process of the last run ended, or the control plane said that nothing more will come."""
        self.idle = False
        """The agent keeps the file system of a run that ended; nothing happens until the next start."""
        self.queue: deque[tuple[str, dict[str, Any]]] = deque()
        """What the control plane has not accepted yet: hellos and events in order, each with its agent's boot."""
        self.reporter: asyncio.Task[None] | None = None
        self.gone_timer: asyncio.TimerHandle | None = None
        self.recorded = 0
        self._queued = 0
        self._report = report
        self._calls: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._next_call = 1
        self._linked = asyncio.Event()
        self.waiting = 0
        """Coroutines that wait for a socket."""

    def connected(self, socket: LinkSocket, hello: dict[str, Any]) -> bool:
        """A hello came in. True when it is another agent process than before."""
        older, self.socket = self.socket, socket
        self.tenant, self.run = socket.agent.tenant, getattr(socket.agent, "run", 0)
        self.welcomed = False
        if older is not None:
            older.close(CLOSE_GOING_AWAY, "replaced")
        renewed = self.boot not in ("", hello["boot"])
        if renewed and older is None:
            # Its successor is here: nobody need wait whether it dials again.
            self._report(self, {"type": GONE})
        if self.boot != hello["boot"]:
            self.boot = hello["boot"]
            self.recorded = self._queued = 0
        self.hello = hello
        self.over = False
        self.idle = bool(hello.get("run")) and not hello.get("running")
        if self.gone_timer is not None:
            self.gone_timer.cancel()
            self.gone_timer = None
        self._linked.set()
        self._forget_older_hellos()
        self._report(self, hello)
        return renewed

    def _forget_older_hellos(self) -> None:
        """Only the newest is answered, so only that is kept; the first of the queue may be on its way."""
        later = [entry for entry in list(self.queue)[1:] if entry[1]["type"] != "hello"]
        while len(self.queue) > 1:
            self.queue.pop()
        self.queue.extend(later)

    def agent(self, boot: str) -> Linked:
        """The agent process of that boot, as the control plane is told of it."""
        return Linked(self.tenant, self.container, boot, self.run)

    def disconnected(self, socket: LinkSocket, *, farewell: bool) -> None:
        """The socket is gone; calls under way can't be answered. With a farewell the agent has ended itself."""
        if self.socket is not socket:
            return
        self.socket = None
        self.abandon()
        socket._links.unlinked(self, farewell)

    def stop_renewal(self) -> None:
        """No token is fetched for an agent that is not here."""
        if self.token_timer is not None:
            self.token_timer.cancel()
            self.token_timer = None

    def abandon(self) -> None:
        """Calls under way fail, and no report of its going is due."""
        self.stop_renewal()
        if self.gone_timer is not None:
            self.gone_timer.cancel()
            self.gone_timer = None
        self._linked.clear()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if not call.done():
                call.set_exception(StreamError(503, f"the connection to the agent of {self.container} broke"))

    def received(self, socket: LinkSocket, message: dict[str, Any]) -> None:
        """A message after the hello."""
        kind = message["type"]
        if self.socket is not socket:
            return
        if kind in EVENTS:
            self._event(socket, message)
        elif kind == "result":
            self._result(message)
        elif kind == "ping":
            socket.send({"type": "pong"})
        else:
            raise ProtocolViolation("hello once is enough")

    def _event(self, socket: LinkSocket, event: dict[str, Any]) -> None:
        seq = event["seq"]
        if seq <= self.recorded:
            socket.send({"type": "ack", "seq": self.recorded})
        elif seq > self._queued:
            if len(self.queue) >= _MAX_QUEUED_EVENTS:
                raise ProtocolViolation("too many events unacknowledged")
            self._queued = seq
            if event["type"] in ("exited", "failed"):
                self.over = self.idle = True
            elif event["type"] == "started":
                self.over = self.idle = False
            self._report(self, event)

    def open(self, pair: Pair) -> None:
        """Tells the agent to open a stream."""
        if self.socket is not None:
            pair.opened = True
            self.socket.send({"type": "open", "stream": pair.stream, "kind": pair.kind, "params": pair.params})

    async def wait(self, seconds: float) -> bool:
        """Waits for a socket; False when none came."""
        if self.socket is not None:
            return True
        self.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._linked.wait()
        except TimeoutError:
            return False
        finally:
            self.waiting -= 1
        return True

    async def call(self, method: str, params: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """One call. Raises StreamError: the agent's, 409 without a link, 503 when it broke, 504 after `timeout`."""
        if not await self.wait(REDIAL_WAIT_SECONDS) or self.socket is None:
            raise StreamError(409, f"agent of container {self.container} is not connected")
        if len(self._calls) >= _MAX_CALLS:
            raise StreamError(429, f"too many calls to container {self.container} at once")
        number = f"c{self._next_call}"
        self._next_call += 1
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        self.socket.send({"type": "call", "id": number, "method": method, "params": dict(params)})
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise StreamError(504, f"the agent of container {self.container} did not answer in time") from None
        finally:
            self._calls.pop(number, None)

    def _result(self, message: dict[str, Any]) -> None:
        future = self._calls.get(message["id"])
        if future is None or future.done():
            return
        error = message.get("error")
        if error is None:
            future.set_result(message.get("result") or {})
            return
        status, text = error.get("status"), error.get("message")
        valid = type(status) is int and 300 <= status <= 599 and isinstance(text, str)
        future.set_exception(StreamError(status, text) if valid else StreamError(502, "the agent's error is malformed"))


class Links:
    """The links of this relay, and the spare sockets of their agents."""

    def __init__(
        self,
        report: Callable[[Link, dict[str, Any]], None],
        arrived: Callable[[Link, bool], None],
        unlinked: Callable[[Link, bool], None],
    ) -> None:
        self._report = report
        self._arrived = arrived
        self.unlinked = unlinked
        self._links: dict[str, Link] = {}
        self._spares: dict[str, deque[SpareHalf]] = {}

    def get(self, container: str) -> Link | None:
        """A container's link, connected or not."""
        return self._links.get(container)

    def all(self) -> list[Link]:
        """Every link."""
        return list(self._links.values())

    def expect(self, container: str) -> Link:
        """A container's link, which may never have been there."""
        link = self._links.get(container)
        if link is None:
            link = self._links[container] = Link(container, self._report)
        return link

    def forget(self, link: Link) -> None:
        """Drops the record of an agent that will not come back."""
        if link.socket is None and not link.waiting and self._links.get(link.container) is link:
            del self._links[link.container]

    def give_up(self, link: Link) -> None:
        """The agent is linked to another gateway: nothing of it is reported from here any more."""
        socket, link.socket = link.socket, None
        if socket is not None:
            socket.link = None
            socket.close(CLOSE_GOING_AWAY, "replaced")
        link.abandon()
        self.drop_spares(link.container)
        self.forget(link)

    def hello(self, socket: LinkSocket, message: dict[str, Any]) -> Link:
        """The newest hello of a container wins."""
        link = self.expect(socket.container)
        renewed = link.connected(socket, message)
        self._arrived(link, renewed)
        return link

    def spare(self, container: str, socket: SpareHalf) -> None:
        """A spare is there. Too many are sent away, the oldest first."""
        spares = self._spares.setdefault(container, deque())
        spares.append(socket)
        if len(spares) > _MAX_SPARES:
            spares.popleft().close(CLOSE_GOING_AWAY, "too many spares")

    def spare_lost(self, container: str, socket: SpareHalf) -> None:
        """A spare broke."""
        spares = self._spares.get(container)
        if spares is not None and socket in spares:
            spares.remove(socket)
            if not spares:
                del self._spares[container]

    def take_spare(self, container: str) -> SpareHalf | None:
        """The newest live spare of a container: the likeliest to belong to the agent that runs now."""
        spares = self._spares.get(container)
        while spares:
            socket = spares.pop()
            if not spares:
                del self._spares[container]
            if not socket.closing:
                return socket
        return None

    def drop_spares(self, container: str) -> None:
        """Closes a container's spares: their agent process is gone."""
        for socket in self._spares.pop(container, ()):
            socket.close(CLOSE_GOING_AWAY, "replaced")
