"""What the tests of the relay share: an agent that is welcome, a bare websocket."""

from __future__ import annotations

import asyncio
from typing import Any

from agent_gateway.streams import RemoteRelay
from agent_gateway.websockets import Socket, dial
from tests.contract.gateway_peers import (
    KEY,
    FakeAgent,
    echo,
)

SECONDS = 5.0


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def connected(gateway: Any, container: str = "c1", handler: Any = echo, **how: Any) -> FakeAgent:
    agent = FakeAgent(gateway.url, container, handler, **how)
    await agent.connect()
    async with asyncio.timeout(SECONDS):
        await agent.welcomed.wait()
    return agent


class Raw(Socket):
    """A websocket that records."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.data = b""
        self.code: int | None = None
        self.over = asyncio.Event()

    def text(self, text: str) -> None:
        self.texts.append(text)

    def binary(self, view: memoryview) -> None:
        self.data += bytes(view)

    def lost(self, code: int) -> None:
        self.code = code
        self.over.set()

    async def closed(self) -> int:
        async with asyncio.timeout(SECONDS):
            await self.over.wait()
        assert self.code is not None
        return self.code


async def status_of(url: str, token: str) -> int:
    try:
        await dial(url, Raw(), token)
    except Exception as error:
        return int(error.response.status)  # type: ignore[attr-defined]
    return 101


async def both_relays(gateway: Any) -> list[Any]:
    return [gateway.agents, RemoteRelay(gateway.url, KEY)]
