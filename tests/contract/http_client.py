"""A Docker client on a bare connection."""

from __future__ import annotations

import asyncio
from typing import Any

from agent_gateway.protocol import Result
from tests.contract.gateway_peers import (
    AgentStream,
)

SECONDS = 5.0


EXEC = b'{"Detach":false,"Tty":true}'


class Client:
    """A raw HTTP client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(SECONDS):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = text.strip().split("\r\n")
        return int(status.split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}

    async def answer(self) -> tuple[int, bytes]:
        status, headers = await self.head()
        async with asyncio.timeout(SECONDS):
            return status, await self.reader.readexactly(int(headers["content-length"]))

    async def rest(self) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.read()

    def request(self, method: str, path: str, body: bytes = b"", upgrade: bool = True, early: bytes = b"") -> None:
        headers = b"Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else b""
        head = f"{method} {path} HTTP/1.1\r\nHost: docker\r\nContent-Length: {len(body)}\r\n".encode()
        self.send(head + headers + b"\r\n" + body + early)


async def sink(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
    """`wc -c`, which reads at once and writes at the end."""
    stream.finish(Result({"pid": 7}))
    size = 0
    async for chunk in stream.chunks():
        size += len(chunk)
    await stream.send(str(size).encode())
    await stream.exit(0)
