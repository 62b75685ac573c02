"""One request with a large body over HTTP/2, on a connection of its own.

Front ends bound the bodies of HTTP/1.1 requests (Cloud Run: 32 MiB), not those of HTTP/2. Unlike httpx' client this one
hears the answer while it sends, so an upload that is refused ends with the refusal and not with a broken connection.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from agent_gateway.faults import Lost, reason

if TYPE_CHECKING:
    import httpx

_CONNECT_SECONDS = 10.0
_READ_SIZE = 256 * 1024
_WINDOW = 8 * 1024 * 1024
_BATCH = 256 * 1024
"""Bytes of frames that are written at once."""
_LONGEST_PROXY_ANSWER = 64 * 1024


class NoHttp2(Exception):
    """The server does not offer it."""


class Upload:
    """One exchange."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        import h2.config
        import h2.connection
        import h2.settings

        self._reader = reader
        self._writer = writer
        self._connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        codes = h2.settings.SettingCodes
        self._connection.local_settings = h2.settings.Settings(
            client=True, initial_values={codes.ENABLE_PUSH: 0, codes.INITIAL_WINDOW_SIZE: _WINDOW}
        )
        self._connection.initiate_connection()
        self._connection.increment_flow_control_window(_WINDOW)
        self._stream = self._connection.get_next_available_stream_id()
        self._head: asyncio.Future[list[tuple[bytes, bytes]]] = asyncio.get_running_loop().create_future()
        self._body: asyncio.Queue[tuple[bytes, int] | Exception | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._over = False
        """The answer is complete, or there will be none."""
        self._tasks: list[asyncio.Task[None]] = []

    async def exchange(
        self, url: str, method: str, headers: list[tuple[bytes, bytes]], content: AsyncIterator[bytes]
    ) -> httpx.Response:
        """Sends, and returns when the answer begins. Raises Lost."""
        import httpx

        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", parts.netloc.encode()),
            (b":path", path.encode("latin-1")),
        ]
        self._connection.send_headers(self._stream, head + headers)
        self._flush()
        receiving = asyncio.create_task(self._receive())
        sending = asyncio.create_task(self._send(content))
        self._tasks = [receiving, sending]
        begun: set[asyncio.Future[Any]] = {self._head, sending}
        await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
        # All sent, or refused; a fault of the body's source is ours to tell.
        if not self._head.done() and (error := sending.exception()) is not None:
            raise error
        answer = await self._head
        status = int(dict(answer).get(b":status", b"502"))
        fields = [(name, value) for name, value in answer if not name.startswith(b":")]
        return httpx.Response(status, headers=fields, stream=_body_of(self))

    async def _send(self, content: AsyncIterator[bytes]) -> None:
        import h2.exceptions

        try:
            async for chunk in content:
                view = memoryview(chunk)
                while view and not self._over:
                    view = view[self._frames(view) :]
                    self._flush()
                    await self._writer.drain()
                    if view and not self._over and self._connection.local_flow_control_window(self._stream) <= 0:
                        self._room.clear()
                        await self._room.wait()
                if self._over:
                    return
            self._connection.end_stream(self._stream)
            self._flush()
        except (h2.exceptions.ProtocolError, ConnectionError):
            # The peer wants no more; what it has to say is received beside this.
            return

    def _frames(self, view: memoryview) -> int:
        """Puts frames for as much as the window and a batch take; how much that was."""
        taken, limit = 0, min(len(view), _BATCH, self._connection.local_flow_control_window(self._stream))
        while taken < limit:
            size = min(limit - taken, self._connection.max_outbound_frame_size)
            self._connection.send_data(self._stream, bytes(view[taken : taken + size]))
            taken += size
        return taken

    async def _receive(self) -> None:
        import h2.exceptions

        fault: Exception = Lost("the connection was closed")
        try:
            while not self._over and (data := await self._reader.read(_READ_SIZE)):
                for event in self._connection.receive_data(data):
                    self._heard(event)
                self._flush()
        except (OSError, ssl.SSLError, h2.exceptions.ProtocolError) as error:
            fault = Lost(reason(error))
        finally:
            self._end(fault)

    def _heard(self, event: Any) -> None:
        import h2.events

        if isinstance(event, h2.events.ResponseReceived):
            if not self._head.done():
                self._head.set_result(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self._body.put_nowait((event.data, event.flow_controlled_length))
        elif isinstance(event, h2.events.StreamEnded):
            self._body.put_nowait(None)
            self._end(None)
        elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
            self._end(Lost(f"the endpoint reset the request ({event.error_code})"))
        self._room.set()

    def _end(self, fault: Exception | None) -> None:
        if self._over:
            return
        self._over = True
        self._room.set()
        if fault is not None:
            self._body.put_nowait(fault)
            if not self._head.done():
                self._head.set_exception(fault)

    def _flush(self) -> None:
        if not self._writer.is_closing():
            self._writer.write(self._connection.data_to_send())

    async def body(self) -> AsyncIterator[bytes]:
        """The answer's body. Raises Lost when it is cut."""
        while (item := await self._body.get()) is not None:
            if isinstance(item, Exception):
                raise item
            data, size = item
            yield data
            if not self._over:
                self._connection.acknowledge_received_data(size, self._stream)
                self._flush()

    async def aclose(self) -> None:
        """Cuts the connection."""
        self._over = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._head.done():
            self._head.exception()
        self._writer.transport.abort()


def _body_of(exchange: Upload) -> Any:
    import httpx

    class Body(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in exchange.body():
                yield chunk

        async def aclose(self) -> None:
            await exchange.aclose()

    return Body()


async def upload(
    url: str,
    tls: ssl.SSLContext,
    proxy: str | None,
    method: str,
    headers: list[tuple[bytes, bytes]],
    content: AsyncIterator[bytes],
) -> httpx.Response:
    """Sends a request. Raises OSError before anything was sent, NoHttp2, Lost."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    async with asyncio.timeout(_CONNECT_SECONDS):
        if proxy is None:
            reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=_READ_SIZE)
        else:
            reader, writer = await _through(proxy, host, port, tls)
    chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    if chosen != "h2":
        writer.close()
        raise NoHttp2
    exchange = Upload(reader, writer)
    try:
        return await exchange.exchange(url, method, headers, content)
    except BaseException:
        await exchange.aclose()
        raise


async def _through(
    proxy: str, host: str, port: int, tls: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A tunnel by `CONNECT`."""
    parts = urlsplit(proxy)
    if parts.scheme != "http":
        raise OSError(f"the proxy {parts.scheme}://{parts.hostname} is not served for uploads: http:// is wanted")
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, limit=_LONGEST_PROXY_ANSWER)
    login = ""
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        login = f"Proxy-Authorization: Basic {base64.b64encode(pair).decode()}\r\n"
    name = f"[{host}]" if ":" in host else host
    writer.write(f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n{login}\r\n".encode())
    try:
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in answer.partition(b"\r\n")[0] + b" ":
            raise OSError(f"the proxy answered {answer.partition(b' ')[2][:3].decode('latin-1')}")
        await writer.start_tls(tls, server_hostname=host)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        writer.close()
        raise OSError("the proxy gave no answer") from None
    except BaseException:
        with contextlib.suppress(OSError):
            writer.close()
        raise
    return reader, writer
