"""`python -m tests.hosted.time_limit HOST:PORT TARGET SECONDS`: a TCP proxy that resets what takes longer.

It stands for a front end's limit on a request's length (60 minutes on Cloud Run), scaled down. A request begins when
the client speaks after the server did; a websocket is one request from its first byte on.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys

_CHUNK = 262144


class _Connection:
    """Both directions of one connection, and when its present request began."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._answered = False
        self._websocket: bool | None = None

    async def serve(self, near: asyncio.StreamReader, answer: asyncio.StreamWriter, host: str, port: int) -> None:
        try:
            far, onward = await asyncio.open_connection(host, port, limit=_CHUNK)
        except OSError:
            answer.transport.abort()
            return
        try:
            async with asyncio.timeout(self._seconds) as limit:
                await asyncio.gather(self._ask(near, onward, limit), self._answer(far, answer))
        except TimeoutError:
            for writer in (answer, onward):  # a reset, with nothing said before
                end = writer.get_extra_info("socket")
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        finally:
            answer.transport.abort()
            onward.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: asyncio.Timeout) -> None:
        while data := await reader.read(_CHUNK):
            if self._websocket is None:
                self._websocket = b"upgrade: websocket" in data.lower()
            if self._answered and not self._websocket:
                self._answered = False
                limit.reschedule(asyncio.get_running_loop().time() + self._seconds)
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            self._answered = True
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def _main(listen: str, target: str, seconds: str) -> None:
    host, port = listen.rsplit(":", 1)
    there, at = target.rsplit(":", 1)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _Connection(float(seconds)).serve(reader, writer, there, int(at))

    server = await asyncio.start_server(serve, host, int(port), limit=_CHUNK)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:4]))
