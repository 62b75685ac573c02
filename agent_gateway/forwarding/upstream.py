"""One client's requests to a control plane: each shows that client's credentials, and is sent again where that is safe.

Answers of the control plane carry `Api-Version`. What does not comes from a front end on the way (or from some other
server altogether), and is told to the client in Docker's form.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Set
from typing import TYPE_CHECKING, Protocol

from agent_gateway.control_plane_client import Refused
from agent_gateway.faults import CannotConnect, Lost, reason
from agent_gateway.forwarding.connections import Connections, Content, Headers
from agent_gateway.front_end import from_front_end

if TYPE_CHECKING:
    import httpx

_RECONNECT_SECONDS = 15.0
"""So long a request waits for an endpoint that was there before: it may be restarting."""
_SERVED_SECONDS = 2.0
"""A request whose connection stood for so long had somebody who worked at it."""
_SERVED_FAULTS = 5
"""So often a front end may say that the server of a request went away in the middle: then the request may be why."""
_SMALL = 256 * 1024
_FRONT_END_FAULTS = (429, 502, 503, 504)


class Credentials(Protocol):
    """What shows who a client is: headers that every request of theirs carries, those asked on their behalf too."""

    names: Set[bytes]
    """Lower-case names of headers whose place they take: a request's own are not passed on."""

    async def shown(self) -> Headers:
        """For the next request; what expires is fresh. Raises CannotConnect."""
        ...

    async def after_refusal(self, refused: Headers) -> Headers | None:
        """Others than those that were refused; None when there are none. Raises CannotConnect."""
        ...


class Bearer:
    """A token that is all there is."""

    names: Set[bytes] = frozenset({b"authorization"})

    def __init__(self, token: str) -> None:
        self._headers = [(b"authorization", b"Bearer " + token.encode())]

    async def shown(self) -> Headers:
        """The token."""
        return self._headers

    async def after_refusal(self, refused: Headers) -> None:
        """There is no other."""
        return


class Upstream:
    """The control plane, as one client asks it."""

    def __init__(self, connections: Connections, credentials: Credentials) -> None:
        self.connections = connections
        self._credentials = credentials

    @property
    def url(self) -> str:
        """The control plane's."""
        return self.connections.address.url

    def lost(self, lost: Lost) -> Refused:
        """What a client is told whose request was on its way when its connection broke."""
        return Refused(502, f"the connection to {self.url} was lost: {lost}")

    async def ask(
        self, method: str, target: str, headers: Headers | None = None, content: Content = None, *, again: bool = False
    ) -> httpx.Response:
        """Sends a request; the response's body is still to be read.

        `again`: the request may be sent twice; then a small answer has come whole. Raises Lost when its connection
        broke, Refused when the endpoint can't be reached at all or there are no credentials.
        """
        loop = asyncio.get_running_loop()
        deadline = 0.0  # set by the first failure: the request itself may take as long as it takes
        delay, served_faults = 0.0, 0
        while True:
            begun = loop.time()
            try:
                answer = await self._once(method, target, headers or [], content)
                served = loop.time() - begun
                if again:
                    begun = loop.time()  # whoever served it has answered: an answer that is cut is no work under way
                    answer = await _held(answer)
                if not again or not from_front_end(answer) or answer.status_code not in _FRONT_END_FAULTS:
                    return answer
                if served > _SERVED_SECONDS and served_faults < _SERVED_FAULTS:
                    served_faults += 1
                    deadline = 0.0  # its control plane was killed, and there are others
                deadline = deadline or loop.time() + _RECONNECT_SECONDS
                if loop.time() > deadline:
                    return answer
                await answer.aclose()
            except Refused as refused:
                deadline = deadline or loop.time() + _RECONNECT_SECONDS
                if refused.status != 503 or self._given_up(deadline):
                    raise
            except Lost:
                if loop.time() - begun > _SERVED_SECONDS:
                    deadline = 0.0  # it was being served: the endpoint is not away
                deadline = deadline or loop.time() + _RECONNECT_SECONDS
                if not again or self._given_up(deadline):
                    raise
            if delay:
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(max(delay * 2, 0.05), 1.0)

    def _given_up(self, deadline: float) -> bool:
        """Once it was waited for in vain, nobody waits again until it is back."""
        if asyncio.get_running_loop().time() > deadline:
            self.connections.reached = False
        return not self.connections.reached

    async def _once(self, method: str, target: str, headers: Headers, content: Content) -> httpx.Response:
        kept = [header for header in headers if header[0] not in self._credentials.names]
        try:
            shown = await self._credentials.shown()
            answer = await self.connections.send(method, target, kept + shown, content)
            if answer.status_code == 401 and not isinstance(content, AsyncIterator):
                others = await self._credentials.after_refusal(shown)
                if others is not None:
                    await answer.aclose()
                    answer = await self.connections.send(method, target, kept + others, content)
        except CannotConnect as error:
            raise Refused(401, str(error)) from None
        return answer

    async def fetch(self, method: str, target: str, *, content: bytes | None = None) -> tuple[int, bytes, str]:
        """A small answer, whole: status, body, `Date`. The request may be sent twice. Raises Lost and Refused."""
        headers = [] if content is None else [(b"content-type", b"application/json")]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _RECONNECT_SECONDS
        while True:
            answer = await self.ask(method, target, headers, content, again=True)
            try:
                body = b"".join([chunk async for chunk in chunks(answer)])
                return answer.status_code, body, answer.headers.get("date", "")
            except Lost:
                if loop.time() > deadline:
                    raise
            finally:
                await answer.aclose()


async def _held(answer: httpx.Response) -> httpx.Response:
    """A small answer whole, because one that is cut behind its head could not be asked for again. Raises Lost."""
    import httpx

    length = answer.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > _SMALL:
        return answer
    try:
        body = b"".join([chunk async for chunk in chunks(answer)])
    finally:
        await answer.aclose()
    return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(body))


async def chunks(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes. Raises Lost when it ends before its end."""
    import httpx

    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise Lost(reason(error)) from None
