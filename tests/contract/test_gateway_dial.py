"""Connections to published ports while gateways are killed: they move as every other stream, and lose no byte."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.contract.gateway_processes import SECONDS
from tests.contract.test_gateway_processes import Reader, running
from tests.unit.run_world import TENANT

SENT = random.Random(3).randbytes(3_000_000)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(1 << 16):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.005)
    writer.close()


async def test_both_directions_and_both_ends_survive_gateways_that_are_killed(tmp_path: Path) -> None:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with running(tmp_path) as (plane, (first, second)):
        stream = await plane.relay(first.url).open(TENANT, "c0ffee", "dial", {"port": port, "network": "tcp"})
        reader = Reader(stream)

        async def send() -> None:
            for at in range(0, len(SENT), 10_000):
                await stream.send(SENT[at : at + 10_000])
            await stream.send_eof()

        sending = asyncio.create_task(send())
        await reader.reach(len(SENT) // 4)
        first.kill()
        await plane.until(lambda c: c.agent is not None and c.agent.gateway == second.url)
        await reader.reach(len(SENT) // 2)
        await first.start()
        second.kill()
        await asyncio.wait_for(sending, SECONDS)
        async with asyncio.timeout(SECONDS):
            await reader.task
        assert reader.data == SENT
    server.close()
