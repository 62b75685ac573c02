"""A TCP connection between a store and its server that can fail as networks do."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Wire:
    """Listens on `port` and passes bytes on to `target`, until told otherwise."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.withholding = False
        """What the server answers is thrown away."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Takes connections."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Breaks all connections; new ones are taken."""
        self.withholding = False
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        """Breaks all connections and takes no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            up, down = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(down)
            await asyncio.gather(self._pump(reader, down, False), self._pump(up, writer, True))
        except (OSError, asyncio.CancelledError):
            return
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if not (answers and self.withholding):
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()
        self._writers.discard(writer)
