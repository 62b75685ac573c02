"""The client's side of streams and calls, for the front door and the control plane.

`Relay` is the interface: `relay.local.LocalRelay` when the relay is in this process, `RemoteRelay` when it is dialled.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

from agent_gateway.client_half import ClientHalf, StreamError
from agent_gateway.protocol import Result
from agent_gateway.tickets import KIND_CALL, mint_ticket

__all__ = ["ClientHalf", "Relay", "RemoteRelay", "Stream", "StreamError", "new_stream_id"]

CALL_SECONDS = 60.0
_CONNECT_SECONDS = 3.0
_UNREACHABLE = 503
_KEEP_ALIVE_SECONDS = 20.0
"""Less than the relay keeps an idle connection: a call never meets its end."""

Where = Callable[[str, str], Awaitable[str]]
"""From a stream's id and ticket to the URL of the relay that its agent is linked to now. Raises StreamError."""


def new_stream_id() -> str:
    """32 hex digits nobody can guess."""
    return secrets.token_hex(16)


def stream_url(relay: str, stream_id: str) -> str:
    """What a client half dials at a relay."""
    return f"{relay.rstrip('/')}/streams/{stream_id}"


class Stream(ClientHalf):
    """A stream as coroutines use it: `control_plane`'s `Stream`, with StreamError for what the agent refuses."""

    def __init__(self) -> None:
        super().__init__()
        self._chunks: deque[bytes] = deque()
        self._waiting = 0
        self._result: dict[str, Any] | None = None
        self._exit: int | None = None
        self._over = False
        self._error: StreamError | None = None
        self._changed = asyncio.Event()

    @property
    def exit_code(self) -> int | None:
        """Of the process, once `chunks` has ended; None for kinds that have none."""
        return self._exit

    async def result(self) -> dict[str, Any]:
        """Waits for the kind's JSON result. Raises StreamError from the agent's `error`."""
        while self._result is None:
            if self.ended or self._error is not None:
                raise self._error or StreamError(502, "the stream ended without a result")
            await self._change()
        return self._result

    async def chunks(self) -> AsyncIterator[bytes]:
        """Payload as it comes, until the agent's `eof` or `exit`. Raises StreamError from the agent's `error`."""
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                yield chunk
                # Only now the consumer has taken it.
                self._waiting -= len(chunk)
                self.acknowledge(idle=False)
            if self._error is not None:
                raise self._error
            if self._over or self.ended:
                return
            await self._change()

    async def send(self, data: bytes) -> None:
        """Sends payload; waits while the window is full. Raises StreamError when the stream has ended."""
        view = memoryview(data)
        while view:
            while not self.ended and self.room <= 0:
                await self._change()
            if self.ended:
                raise self._error or StreamError(409, "the stream has ended")
            size = min(len(view), self.room)
            self.write(data if size == len(data) else bytes(view[:size]))
            view = view[size:]

    async def send_eof(self) -> None:
        """No more payload from us."""
        self.write_eof()

    async def close(self) -> None:
        """Detaches. Safe to call twice."""
        self.detach()
        self._over = True
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def on_payload(self, view: memoryview | bytes) -> None:
        """Keeps a copy until the consumer comes for it."""
        self._chunks.append(bytes(view))
        self._waiting += len(view)
        self._changed.set()

    def undelivered(self) -> int:
        """What `chunks` has not handed out yet."""
        return self._waiting

    def on_result(self, result: Result) -> None:
        """For `result`."""
        self._result = result.value
        self._changed.set()

    def on_eof(self) -> None:
        """Ends `chunks`."""
        self._over = True
        self._changed.set()

    def on_exit(self, code: int) -> None:
        """Ends `chunks`."""
        self._exit = code
        self._over = True

    def on_room(self) -> None:
        """For `send`."""
        self._changed.set()

    def on_end(self, error: StreamError | None) -> None:
        """Ends everything."""
        self._error = error
        self._changed.set()


class Relay(Protocol):
    """What opens streams to agents and calls them."""

    async def join(self, half: ClientHalf, stream_id: str, ticket: str) -> None:
        """Becomes the client half of the stream the ticket is for. Raises StreamError when the relay refuses it."""
        ...

    async def open(self, tenant: str, container: str, kind: str, params: Mapping[str, Any]) -> Stream:
        """Opens a stream. A container without an agent answers through it, with StreamError 409."""
        ...

    async def call(
        self,
        tenant: str,
        container: str,
        method: str,
        params: Mapping[str, Any],
        timeout: float = CALL_SECONDS,
    ) -> dict[str, Any]:
        """One request over the agent's link. Raises StreamError with the agent's status and text."""
        ...


class GatewayUnreachable(StreamError):
    """503: no connection was had, so nothing was heard of what was to be said."""


class RemoteRelay:
    """A relay in another process: streams are websockets, calls are HTTP. `url` is `http(s)://host[:port][/prefix]`."""

    def __init__(
        self, url: str, key: bytes | None = None, where: Where | None = None, *, patient: bool = False
    ) -> None:
        """With `where` streams go on at another relay when their agent has moved there.

        `patient`: also when the relay cannot be reached to begin with. For who only joins streams.
        """
        self._url = url.rstrip("/")
        self._key = key
        self._where = where
        self._patient = patient and where is not None
        self._client: Any = None

    async def join(self, half: ClientHalf, stream_id: str, ticket: str) -> None:
        """Dials the relay. Raises StreamError: the relay's refusal, or 503 when it can't be had (unless patient)."""
        from agent_gateway.stream_dial import WebsocketCarrier

        async def moved(_: str) -> str:
            assert self._where is not None
            return stream_url(await self._where(stream_id, ticket), stream_id)

        url = stream_url(self._url, stream_id)
        carrier = WebsocketCarrier(half, url, ticket, moved=None if self._where is None else moved)
        try:
            await carrier.dial()
        except StreamError as error:
            if error.status != _UNREACHABLE or not self._patient:
                raise
            carrier.take_over()

    async def open(self, tenant: str, container: str, kind: str, params: Mapping[str, Any]) -> Stream:
        """Mints a ticket and dials."""
        stream_id = new_stream_id()
        stream = Stream()
        await self.join(stream, stream_id, mint_ticket(self._signing_key, tenant, container, kind, stream_id, params))
        return stream

    async def call(
        self,
        tenant: str,
        container: str,
        method: str,
        params: Mapping[str, Any],
        timeout: float = CALL_SECONDS,
    ) -> dict[str, Any]:
        """`POST /links/{container}/calls`."""
        import httpx
        import orjson

        if self._client is None:
            limits = httpx.Limits(max_keepalive_connections=64, keepalive_expiry=_KEEP_ALIVE_SECONDS)
            self._client = httpx.AsyncClient(limits=limits)
        ticket = mint_ticket(self._signing_key, tenant, container, KIND_CALL)
        try:
            answer = await self._client.post(
                f"{self._url}/links/{container}/calls",
                content=orjson.dumps({"method": method, "params": dict(params)}),
                headers={"authorization": f"Bearer {ticket}", "content-type": "application/json"},
                timeout=httpx.Timeout(timeout, connect=_CONNECT_SECONDS),
            )
        except httpx.ConnectTimeout:
            raise GatewayUnreachable(503, "the gateway can't be reached") from None
        except httpx.TimeoutException:
            raise StreamError(504, f"the agent of container {container} did not answer in time") from None
        except httpx.ConnectError:
            raise GatewayUnreachable(503, "the gateway can't be reached") from None
        except httpx.HTTPError:
            raise StreamError(503, "the connection to the gateway broke") from None
        return _answered(answer.status_code, answer.content)

    async def aclose(self) -> None:
        """Closes the HTTP connections; streams go on."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @property
    def _signing_key(self) -> bytes:
        if self._key is None:
            raise ValueError("only the holder of the signing key opens streams without a ticket")
        return self._key


def _answered(status: int, body: bytes) -> dict[str, Any]:
    import orjson

    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise StreamError(502, "the gateway gave no JSON answer")
    if status != 200:
        raise StreamError(status if 400 <= status <= 599 else 502, str(answer.get("message", "the call failed")))
    result = answer.get("result")
    return result if isinstance(result, dict) else {}
