"""The control plane as the gateway calls it: by HTTP, or an ASGI app in this process (docs/wire-protocol.md, 7)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from agent_gateway import trace_context
from agent_gateway.client_half import StreamError
from agent_gateway.tickets import GatewayTokens

if TYPE_CHECKING:
    import httpx

ASGIApp = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ],
    Awaitable[None],
]

_PREFIX = "/internal/v1"
_TIMEOUT_SECONDS = 30.0
_PLACE_TIMEOUT_SECONDS = 5.0
_CONNECT_SECONDS = 5.0
_LAST_CONNECT_DELAY = 0.4
"""Where nobody has answered so far, nobody is waited for longer."""
_LONGEST_DELAY = 1.0
_AGAIN_SECONDS = 15.0
"""So long a call that may be made twice waits for a control plane that was there before."""
_KEEP_ALIVE_SECONDS = 4.0
"""Less than servers keep an idle connection (hypercorn: 5 s), so that a request hardly ever meets its end."""
_HELLO_TIMEOUT_SECONDS = 1800.0
"""`hello` lasts as long as the control plane pushes files into the container."""


class Refused(Exception):
    """The control plane's answer was an error: HTTP status and Docker's message, fit for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class HijackRequest:
    """A Docker request that is to be hijacked, as it came."""

    method: str
    path: str
    query: str
    authorization: str
    body: Any = None
    certificate: str = ""
    """Subject of the client's certificate, verified by the TLS proxy in front."""
    address: str = ""
    """Of the client, as that proxy says; empty where it says nothing."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What the control plane allows: one stream."""

    stream_id: str
    ticket: str
    relay_url: str
    container: str
    tty: bool
    content_type: str


@dataclass(frozen=True, slots=True)
class Linked:
    """Whose link it is: container and tenant by the verified agent token, `boot` by the agent's hello."""

    tenant: str
    container: str
    boot: str
    run: int = 0
    """Of the agent token; 0: the token names none."""


class Tickets(Protocol):
    """What a front door asks of the control plane."""

    async def tickets(self, request: HijackRequest) -> Grant:
        """Whether a hijacked request is allowed, and for which stream. Raises Refused."""
        ...


class ControlPlane(Protocol):
    """Calls raise Refused for an answer that is an error, with status 503 when there was none."""

    async def tickets(self, request: HijackRequest) -> Grant:
        """Whether a hijacked request is allowed, and for which stream."""
        ...

    async def hello(self, agent: Linked, message: Mapping[str, Any]) -> dict[str, Any]:
        """An agent's `hello`; the answer is the `welcome`'s action and spec."""
        ...

    async def event(self, agent: Linked, event: Mapping[str, Any]) -> None:
        """One lifecycle event."""
        ...

    async def gone(self, agent: Linked) -> None:
        """No link for a while."""
        ...

    async def token(self, agent: Linked) -> str:
        """A fresh token for an agent that is linked."""
        ...


class _Calls:
    """The calls on top of one request."""

    def __init__(self, tokens: GatewayTokens, gateway: str) -> None:
        self._tokens = tokens
        self._gateway = gateway
        self.instance = secrets.token_hex(8)
        """Tells this process from others at the same URL."""

    async def _send(
        self, method: str, path: str, body: bytes, authorization: str, timeout: float, *, again: bool = False
    ) -> tuple[int, bytes]:
        """`again`: a request whose answer was lost may be sent a second time."""
        raise NotImplementedError

    async def _call(
        self,
        path: str,
        body: Mapping[str, Any],
        timeout: float = _TIMEOUT_SECONDS,
        *,
        method: str = "POST",
        token: str = "",
        again: bool = False,
    ) -> Any:
        authorization = f"Bearer {token or self._tokens.current()}"
        status, content = await self._send(
            method, _PREFIX + path, orjson.dumps(body), authorization, timeout, again=again
        )
        answer = None
        if content:
            try:
                answer = orjson.loads(content)
            except orjson.JSONDecodeError:
                raise Refused(502, "the control plane gave no JSON answer") from None
        if not 200 <= status <= 299:
            message = answer.get("message") if isinstance(answer, dict) else None
            raise Refused(status, message if isinstance(message, str) else f"the control plane answered {status}")
        return answer

    async def tickets(self, request: HijackRequest) -> Grant:
        """Asks whether a hijacked request is allowed, and for which stream.

        With an exec's ticket its one start is claimed: `attempt` says that it was for us, if the answer is lost.
        """
        answer = await self._call(
            "/tickets",
            {
                "method": request.method,
                "path": request.path,
                "query": request.query,
                "authorization": request.authorization,
                "body": request.body,
                "attempt": secrets.token_hex(16),
                **({"certificate": request.certificate} if request.certificate else {}),
                **({"address": request.address} if request.address else {}),
            },
            again=True,
        )
        try:
            return Grant(
                answer["stream_id"],
                answer["ticket"],
                answer["relay_url"],
                answer["container"],
                bool(answer["tty"]),
                answer["content_type"],
            )
        except (TypeError, KeyError):
            raise Refused(502, "the control plane's answer lacks a field") from None

    async def hello(self, agent: Linked, message: Mapping[str, Any]) -> dict[str, Any]:
        """An agent's `hello`; the answer is the `welcome`'s action and spec."""
        body = {**message, **self._named(agent), "token_run": agent.run}
        answer = await self._call(f"/links/{agent.container}/hello", body, _HELLO_TIMEOUT_SECONDS)
        if not isinstance(answer, dict):
            raise Refused(502, "the control plane's answer is not an object")
        return answer

    async def event(self, agent: Linked, event: Mapping[str, Any]) -> None:
        """One lifecycle event."""
        body = {**event, "boot": agent.boot, "tenant": agent.tenant}
        await self._call(f"/links/{agent.container}/events", body)

    async def gone(self, agent: Linked) -> None:
        """No link for a while, or the agent's farewell."""
        await self._call(f"/links/{agent.container}/gone", {"boot": agent.boot, **self._named(agent)})

    async def token(self, agent: Linked) -> str:
        """A fresh token for an agent that is linked."""
        answer = await self._call(f"/links/{agent.container}/token", {"tenant": agent.tenant, "boot": agent.boot})
        token = answer.get("token") if isinstance(answer, dict) else None
        if not isinstance(token, str) or not token:
            raise Refused(502, "the control plane's answer has no token")
        return token

    async def register(self, load: int, *, draining: bool = False) -> list[str]:
        """This gateway's lease, for half a minute more. The answer: the URLs of the others that live."""
        body = {"instance": self.instance, "load": load, "draining": draining}
        answer = await self._call("/gateways", body, _PLACE_TIMEOUT_SECONDS, method="PUT")
        others = answer.get("gateways") if isinstance(answer, dict) else None
        return [url for url in others if isinstance(url, str)] if isinstance(others, list) else []

    async def deregister(self) -> None:
        """No new containers for this gateway."""
        await self._call(f"/gateways?instance={self.instance}", {}, _PLACE_TIMEOUT_SECONDS, method="DELETE")

    async def where(self, stream_id: str, ticket: str) -> str:
        """The relay that a stream's agent is linked to now. Raises StreamError."""
        try:
            answer = await self._call(f"/streams/{stream_id}/relay", {}, _PLACE_TIMEOUT_SECONDS, token=ticket)
        except Refused as refused:
            raise StreamError(refused.status, refused.message) from None
        url = answer.get("relay_url") if isinstance(answer, dict) else None
        if not isinstance(url, str) or not url:
            raise StreamError(502, "the control plane's answer has no relay")
        return url

    def _named(self, agent: Linked) -> dict[str, str]:
        return {"gateway": self._gateway, "instance": self.instance, "tenant": agent.tenant}


class HttpControlPlane(_Calls):
    """A control plane at a URL."""

    def __init__(self, url: str, tokens: GatewayTokens, gateway: str) -> None:
        super().__init__(tokens, gateway)
        self._url = url.rstrip("/")
        self._client: Any = None
        self._reached = False
        """Whether it was there the last time: then it is waited for."""

    async def _send(
        self, method: str, path: str, body: bytes, authorization: str, timeout: float, *, again: bool = False
    ) -> tuple[int, bytes]:
        import httpx

        if self._client is None:
            limits = httpx.Limits(
                max_connections=512, max_keepalive_connections=64, keepalive_expiry=_KEEP_ALIVE_SECONDS
            )
            self._client = httpx.AsyncClient(base_url=self._url, limits=limits)
        headers = {"authorization": authorization, "content-type": "application/json", **trace_context.carried()}
        patience = httpx.Timeout(timeout, connect=_CONNECT_SECONDS)
        loop = asyncio.get_running_loop()
        until = loop.time() + _AGAIN_SECONDS
        for delay in _delays():
            try:
                answer = await self._client.request(method, path, content=body, headers=headers, timeout=patience)
                if not again or not _nobody_there(answer) or loop.time() > until:
                    self._reached = True
                    return answer.status_code, answer.content
            except (httpx.ConnectError, httpx.ConnectTimeout):
                # Nobody has heard: one of several control planes was ended, and another answers next time.
                waited_for = again and self._reached
                if loop.time() > until or (delay >= _LAST_CONNECT_DELAY and not waited_for):
                    break
            except httpx.HTTPError:
                if not again or loop.time() > until:
                    break
            await asyncio.sleep(delay)
        self._reached = False
        raise Refused(503, "the control plane can't be reached")

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


class AsgiControlPlane(_Calls):
    """A control plane in this process: its ASGI app is called, with nothing in between."""

    def __init__(self, app: ASGIApp, tokens: GatewayTokens, gateway: str) -> None:
        super().__init__(tokens, gateway)
        self._app = app

    async def _send(
        self, method: str, path: str, body: bytes, authorization: str, timeout: float, *, again: bool = False
    ) -> tuple[int, bytes]:
        path, _, query = path.partition("?")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [
                (b"host", b"control-plane"),
                (b"authorization", authorization.encode()),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
            "client": None,
            "server": None,
        }
        unread = [body]
        status = 500
        parts: list[bytes] = []
        done = asyncio.Event()

        async def receive() -> MutableMapping[str, Any]:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            await done.wait()
            return {"type": "http.disconnect"}

        async def send(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        try:
            async with asyncio.timeout(timeout):
                await self._app(scope, receive, send)
        except TimeoutError:
            raise Refused(504, "the control plane did not answer in time") from None
        finally:
            done.set()
        return status, b"".join(parts)


def _delays() -> Iterator[float]:
    delay = 0.05
    while True:
        yield delay
        delay = min(delay * 2, _LONGEST_DELAY)


def _nobody_there(answer: httpx.Response) -> bool:
    """Whether a front end says that no control plane serves it now."""
    return answer.status_code in (429, 502, 503, 504) and "api-version" not in answer.headers
