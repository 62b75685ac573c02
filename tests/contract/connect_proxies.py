"""What stands between a connector and an endpoint in a company's network: a proxy for `CONNECT`, and a front with TLS.

`docker.test` is a name that only the proxy knows: who reaches it came through the proxy.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

NAME = "docker.test"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _join(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, greeting: bytes = b"") -> None:
    there, back = await asyncio.open_connection("127.0.0.1", port)
    writer.write(greeting)
    await asyncio.gather(_copy(reader, back), _copy(there, writer))


@asynccontextmanager
async def _serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handler(reader, writer)
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()


@asynccontextmanager
async def tls_front(directory: Path, port: int) -> AsyncIterator[int]:
    """Ends TLS with the certificate in a directory, offers no HTTP/2, and passes on to a port; its own port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _join(port, reader, writer)

    async with _serving(handler, context) as own:
        yield own


class ConnectProxy:
    """Takes `CONNECT docker.test:PORT` from those who log in, and nothing else."""

    def __init__(self, login: str = "") -> None:
        self.asked: list[str] = []
        """The first line of each request."""
        self._expected = f"Basic {base64.b64encode(login.encode()).decode()}" if login else ""
        self.refused = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Its port."""
        async with _serving(self._handle) as port:
            yield port

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.rstrip().split("\r\n")
        self.asked.append(line)
        shown = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        method, target, _ = line.split(" ")
        name, _, port = target.partition(":")
        if self._expected and shown.get("proxy-authorization") != self._expected:
            self.refused += 1
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        elif method != "CONNECT" or name != NAME:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        else:
            await _join(int(port), reader, writer, b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()
