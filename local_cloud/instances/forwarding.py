"""One request, passed on to an instance: HTTP/1.1 over a connection of its own.

Nothing is polled: a request may be held for hours without a byte. It ends with the answer, its time, its client's
connection or its instance, whichever comes first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import h11
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from local_cloud.instances.containers import Instance

_READ = 1 << 16
_MOST = 32 << 20
_MOST_OF_HEAD = 64 << 10
_LAST_BYTES_SECONDS = 1.0
# RFC 9110, 7.6.1; and what this side of the connection answers for itself.
_OF_ONE_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade expect".split()
)
_NEVER_OF_ONE_HOP = frozenset((b"host", b"content-length"))
_OF_THE_FRONT_END = frozenset((b"date", b"server"))

_Headers = list[tuple[bytes, bytes]]


class UpstreamTimeout(Exception):
    """The instance gave no complete answer in time."""


class UpstreamBroken(Exception):
    """The instance refused or broke the connection, answered what is not HTTP or is over 32 MiB, or ended."""


class ClientGone(Exception):
    """The client closed its connection; whatever answers the request now reaches nobody."""


async def forward(
    instance: Instance, request: Request, *, timeout: float, headers: Mapping[str, str] | None = None
) -> Response:
    """Passes a request on, its body as it comes, and gives the complete answer.

    The connection to the instance ends with it. `timeout`: seconds for everything. `headers` are added to those of the
    request, replacing those of the same name. Raises UpstreamTimeout, UpstreamBroken, ClientGone.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _pass_on(instance, request, headers or {})
    except TimeoutError:
        raise UpstreamTimeout(f"no complete answer within {timeout:g} seconds") from None


async def _pass_on(instance: Instance, request: Request, headers: Mapping[str, str]) -> Response:
    if instance.ended.done():
        raise UpstreamBroken("the instance has ended")
    try:
        reader, writer = await asyncio.open_connection(instance.address, instance.port)
    except OSError as error:
        raise UpstreamBroken(f"the connection was refused: {error}") from error
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_OF_HEAD)
    sender = asyncio.ensure_future(_send(connection, writer, request, headers))
    sender.add_done_callback(lambda _: writer.transport.abort())
    loop = asyncio.get_running_loop()

    def ended(_status: object) -> None:
        """What it wrote before its end may still have to be read."""
        loop.call_later(_LAST_BYTES_SECONDS, writer.transport.abort)

    instance.ended.add_done_callback(ended)
    try:
        return _response(request.method, *await _receive(connection, reader))
    except (OSError, h11.RemoteProtocolError, UpstreamBroken) as error:
        if sender.done():
            sender.result()  # the client has gone: that broke it
        raise UpstreamBroken(str(error) or "the connection broke") from error
    finally:
        instance.ended.remove_done_callback(ended)
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)


async def _send(
    connection: h11.Connection, writer: asyncio.StreamWriter, request: Request, headers: Mapping[str, str]
) -> None:
    """Sends the request, then waits until its client goes, which it always reports by ClientGone.

    A connection that breaks meanwhile is the receiver's to tell: the answer may have come before.
    """
    try:
        with contextlib.suppress(OSError):
            async for data in _request(connection, request, headers):
                writer.write(data)
                await writer.drain()
        while (await request.receive())["type"] != "http.disconnect":
            pass
    except ClientDisconnect:
        pass
    raise ClientGone


async def _request(connection: h11.Connection, request: Request, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
    """The bytes of the request."""
    yield _bytes(connection, _head(request, headers))
    async for data in request.stream():
        if data:
            yield _bytes(connection, h11.Data(data=data))
    yield _bytes(connection, h11.EndOfMessage())


def _bytes(connection: h11.Connection, event: h11.Request | h11.Data | h11.EndOfMessage) -> bytes:
    return connection.send(event) or b""


def _head(request: Request, headers: Mapping[str, str]) -> h11.Request:
    own = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    replaced = {name for name, _ in own}
    theirs: _Headers = list(request.scope["headers"])
    chunked = any(name == b"transfer-encoding" for name, _ in theirs)
    if chunked:
        replaced.add(b"content-length")  # RFC 9112, 6.1: it counts for nothing then, and must not be passed on
    passed = [(name, value) for name, value in _end_to_end(theirs) if name not in replaced]
    if chunked:
        passed.append((b"transfer-encoding", b"chunked"))
    target: bytes = request.scope.get("raw_path") or request.url.path.encode()
    query: bytes = request.scope["query_string"]
    return h11.Request(
        method=request.method,
        target=target + b"?" + query if query else target,
        headers=[*passed, *own, (b"connection", b"close")],
    )


def _end_to_end(headers: _Headers) -> _Headers:
    """Without what is meant for one hop only."""
    options = (option for name, value in headers if name == b"connection" for option in value.split(b","))
    named = {option.strip().lower() for option in options} - _NEVER_OF_ONE_HOP
    return [(name, value) for name, value in headers if name not in _OF_ONE_HOP and name not in named]


async def _receive(connection: h11.Connection, reader: asyncio.StreamReader) -> tuple[h11.Response, bytes]:
    """The complete answer: head and body. Raises OSError, h11.RemoteProtocolError, UpstreamBroken."""
    head: h11.Response | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_READ))
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _MOST:
                raise UpstreamBroken(f"the answer is larger than {_MOST} bytes")
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return head, bytes(body)
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise UpstreamBroken("the connection was closed without an answer")


def _response(method: str, head: h11.Response, body: bytes) -> Response:
    response = Response(status_code=head.status_code)
    headers = [each for each in _end_to_end(list(head.headers)) if each[0] not in _OF_THE_FRONT_END]
    if method != "HEAD" and head.status_code not in (204, 304):  # else it tells the length of a body not sent
        headers = [each for each in headers if each[0] != b"content-length"]
        headers.append((b"content-length", b"%d" % len(body)))
    response.body, response.raw_headers = body, headers
    return response
