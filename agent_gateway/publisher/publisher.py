"""Published ports on the user's machine: an ASGI app between a front door beside the user and what answers requests.

It says in creates and starts that it is there. A start of a container that publishes ports is answered with 428 once:
then it listens, and asks again with what it got (docs/wire-protocol.md, section 10). It listens until the container has
ended, which it learns from the endpoint's events, and looks itself after each gap in them.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

import orjson

from agent_gateway.asgi import App, Receive, Scope, Send, respond_message
from agent_gateway.client_half import ClientHalf
from agent_gateway.control_plane_client import Grant, HijackRequest, Refused, Tickets
from agent_gateway.front_door.app import Joined
from agent_gateway.publisher.asked import Kept, get, lines, with_body
from agent_gateway.publisher.listening import Listening
from agent_gateway.publisher.memory import Memory, Publication
from agent_gateway.publisher.sockets import Sockets, Taken, reserve

_PATH = re.compile(r"(?:/v[0-9.]+)?/containers/([^/]+)(?:/(start|restart|stop|kill))?")
_ID = re.compile(r"[0-9a-f]{64}")
_HEADER = (b"x-sockerless-publisher", b"1")
_PORTS_TYPE = b"application/vnd.sockerless.ports+json"
_WANTED = 428
_MOST_SOCKETS = 1024
_WATCH_SECONDS = 5.0
"""So long a start waits for the events to come; whatever happens before they do is looked at when they do."""
_AGAIN_PAUSES = (0.05, 0.2, 1.0)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
_log = logging.getLogger(__name__)


class Publisher:
    """The ports of the containers that were started through this front door."""

    def __init__(
        self,
        inner: App,
        tickets: Tickets,
        relay_for: Callable[[str], Joined],
        memory: Memory | None = None,
        *,
        shared_network: bool = False,
    ) -> None:
        """`shared_network`: containers have this machine's own."""
        self._shared = shared_network
        self._inner = inner
        self._tickets = tickets
        self._relay_for = relay_for
        self._memory = memory or Memory(None)
        self._listening: dict[str, Listening] = {}
        self._starting: dict[str, int] = {}
        """Containers whose start or restart is under way: their ends before it count for nothing."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._watches = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request of a Docker client."""
        method = scope["method"]
        found = _PATH.fullmatch(scope["path"]) if method in ("POST", "DELETE") else None
        if found is None:
            await self._inner(scope, receive, send)
        elif method == "POST" and found[2] in ("start", "restart"):
            await self._start(_announced(scope), receive, send)
        elif method == "POST" and found[1] == "create" and not found[2]:
            await self._inner(_announced(scope), receive, send)
        elif self._listening and (container := self._meant(found[1])):
            kept = Kept()
            await self._inner(scope, receive, kept)
            await self._look(container, patient=False)
            await kept.pass_on(send)
        else:
            await self._inner(scope, receive, send)

    async def remember(self) -> None:
        """Listens again for what an earlier process has left: at once, or as soon as the endpoint answers."""
        for container, publication in self._memory.read().items():
            self._listening.setdefault(container, self._new(container, "", publication, None))
        if self._listening:
            self._follow()
            looks = [asyncio.ensure_future(self._look(container, patient=False)) for container in self._listening]
            await asyncio.wait(looks, timeout=_WATCH_SECONDS)

    def close(self) -> None:
        """Listens no more and breaks all connections. The next process remembers."""
        for task in (*self._tasks, *([self._watch] if self._watch else [])):
            task.cancel()
        for listening in self._listening.values():
            listening.close(cut=True)

    def _meant(self, reference: str) -> str:
        """Which of the containers a user's word may stand for."""
        for container, listening in self._listening.items():
            if reference in (container, listening.name) or container.startswith(reference):
                return container
        return ""

    # Starting

    async def _start(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._first_answer(scope, receive)
        if answer.status != _WANTED:
            await answer.pass_on(send)
            return
        try:
            asked = orjson.loads(answer.body)
            container, name, wanted = str(asked["container"]), str(asked["name"]), list(asked["ports"])
            if not _ID.fullmatch(container):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            await respond_message(send, 502, "the endpoint does not say which ports it wants")
            return
        self._starting[container] = self._starting.get(container, 0) + 1
        settled = False
        try:
            offer = await self._offer(container, name, wanted)
            answer = Kept()
            await self._inner(_with_offer(scope, offer), with_body(receive, offer), answer)
            settled = answer.status != 0
        finally:
            self._started(container)
            if not settled:
                # The client went away. Whether its container starts is not known.
                self._spawn(self._look(container))
        await self._look(container, patient=False)
        await answer.pass_on(send)

    async def _first_answer(self, scope: Scope, receive: Receive) -> Kept:
        """428 says that nothing has changed: when its rest is lost on the way it is asked for again."""
        for pause in _AGAIN_PAUSES:
            answer = Kept()
            try:
                await self._inner(scope, receive, answer)
                return answer
            except ConnectionError:
                if answer.status != _WANTED:
                    raise
            await asyncio.sleep(pause)
            # Its body, which says nothing in a start, has been read.
            scope, receive = {**scope, "headers": _without_body(scope)}, with_body(receive, b"")
        raise ConnectionAbortedError("the connection to the endpoint was lost again and again")

    def _started(self, container: str) -> None:
        self._starting[container] -= 1
        if not self._starting[container]:
            del self._starting[container]

    async def _offer(self, container: str, name: str, wanted: list[Any]) -> bytes:
        """What the control plane is told. Sockets of the start before are kept, if they are there still."""
        listening = self._listening.get(container)
        if listening is None or listening.sockets is None:
            publication = secrets.token_hex(16)
            try:
                sockets = self._reserve(wanted)
            except Taken as taken:
                told = {"address": taken.address, "reason": taken.reason}
                return orjson.dumps({"publication": publication, "taken": told})
            listening = self._new(container, name, Publication(publication, sockets.ports), sockets)
            self._listening[container] = listening
            self._keep()
        self._follow()
        try:
            async with asyncio.timeout(_WATCH_SECONDS):
                await self._watches.wait()
        except TimeoutError:
            _log.warning("the endpoint's events do not come; a container's end may be noticed late")
        return orjson.dumps({"publication": listening.publication.id, "ports": listening.publication.ports})

    def _reserve(self, wanted: list[Any]) -> Sockets:
        standing = sum(len(entries) for one in self._listening.values() for entries in one.publication.ports.values())
        try:
            if standing + len(wanted) > _MOST_SOCKETS:
                raise Taken("127.0.0.1:0", f"{standing} ports are published here already")
            return reserve(wanted, shared=self._shared)
        except (ValueError, TypeError, KeyError) as error:
            raise Taken("127.0.0.1:0", f"the endpoint asks for what is not served: {type(error).__name__}") from None

    def _new(self, container: str, name: str, publication: Publication, sockets: Sockets | None) -> Listening:
        async def dial(port: int, half: ClientHalf) -> None:
            path = f"/internal/v1/containers/{quote(container, safe='')}/dial"
            grant = await self._granted(HijackRequest("POST", path, f"port={port}", ""))
            await self._relay_for(grant.relay_url).join(half, grant.stream_id, grant.ticket)

        return Listening(name, publication, sockets, dial, shared=self._shared)

    async def _granted(self, request: HijackRequest) -> Grant:
        """A ticket is asked for again when the endpoint was not reached, or its answer was lost. Raises Refused."""
        for pause in _AGAIN_PAUSES:
            try:
                return await self._tickets.tickets(request)
            except Refused as refused:
                if refused.status < 500:
                    raise
            await asyncio.sleep(pause)
        return await self._tickets.tickets(request)

    # Watching

    def _follow(self) -> None:
        if self._watch is None or self._watch.done():
            self._watches.clear()
            self._watch = asyncio.get_running_loop().create_task(self._watch_ends())

    async def _watch_ends(self) -> None:
        """While there are ports: containers' ends, as the endpoint tells them."""
        filters = {"type": ["container"], "event": ["die", "destroy"]}
        pause = _FIRST_PAUSE
        while True:
            async for line in lines(self._inner, "/events", {"filters": orjson.dumps(filters).decode()}):
                if line:
                    container = _actor(line)
                    if container in self._listening:
                        self._spawn(self._look(container))
                    continue
                if not self._watches.is_set():
                    # What happened before was not heard.
                    self._watches.set()
                    pause = _FIRST_PAUSE
                    for container in list(self._listening):
                        self._spawn(self._look(container))
            self._watches.clear()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _look(self, container: str, *, patient: bool = True) -> None:
        """Listens, or no more, as the endpoint says: now, or (`patient`) when it does."""
        pause = _FIRST_PAUSE
        while (listening := self._listening.get(container)) is not None and container not in self._starting:
            answer = await get(self._inner, f"/containers/{container}/json")
            if listening is not self._listening.get(container) or container in self._starting:
                return
            stands, listening.name = _stands(answer, listening.publication.id), _name(answer) or listening.name
            if stands is None:
                if not patient:
                    self._spawn(self._look(container))
                    return
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            if stands:
                await listening.serve()
            else:
                self._forget(container)
            return

    def _forget(self, container: str) -> None:
        self._listening.pop(container).close()
        self._keep()
        if not self._listening and self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _keep(self) -> None:
        self._memory.write({container: one.publication for container, one in self._listening.items()})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _announced(scope: Scope) -> Scope:
    headers = [(name, value) for name, value in scope["headers"] if name != _HEADER[0]]
    return {**scope, "headers": [*headers, _HEADER]}


def _with_offer(scope: Scope, offer: bytes) -> Scope:
    ours = [(b"content-type", _PORTS_TYPE), (b"content-length", str(len(offer)).encode())]
    return {**scope, "headers": _without_body(scope) + ours}


def _without_body(scope: Scope) -> list[tuple[bytes, bytes]]:
    dropped = (b"content-type", b"content-length", b"transfer-encoding")
    return [(name, value) for name, value in scope["headers"] if name not in dropped]


def _actor(line: bytes) -> str:
    try:
        return str(orjson.loads(line)["Actor"]["ID"])
    except (ValueError, KeyError, TypeError):
        return ""


def _name(answer: Kept) -> str:
    try:
        return str(orjson.loads(answer.body)["Name"]).removeprefix("/") if answer.status == 200 else ""
    except (ValueError, KeyError, TypeError):
        return ""


def _stands(answer: Kept, publication: str) -> bool | None:
    """Whether a container still has these ports; None when the endpoint does not say."""
    if answer.status == 404:
        return False
    try:
        own = orjson.loads(answer.body)["Sockerless"] if answer.status == 200 else None
        return None if own is None else bool(own.get("Publication") == publication)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
