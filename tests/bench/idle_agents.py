"""How much memory idle agents cost a gateway: `python -m tests.bench.idle_agents [agents]`.

Each agent has what a real one has: a link that is welcome, and one spare socket. The gateway is a process of its own.
"""

from __future__ import annotations

import asyncio
import re
import resource
import sys
import tempfile
import time
from pathlib import Path

import httpx

from agent_gateway.tickets import mint_gateway_token
from agent_gateway.websockets import Socket, dial
from tests.contract.gateway_peers import KEY, FakeAgent, echo
from tests.contract.gateway_processes import GatewayProcess, hosted

_AT_ONCE = 50


async def _resident(gateway: GatewayProcess) -> tuple[int, int]:
    headers = {"authorization": f"Bearer {mint_gateway_token(KEY, gateway.url, 60)}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
        text = (await client.get("/metrics")).text
    found = [
        re.search(rf"^sockerless_gateway_{name} (\d+)$", text, re.MULTILINE) for name in ("links", "resident_bytes")
    ]
    links, resident = (int(match[1]) if match else 0 for match in found)
    return links, resident


async def measure(count: int) -> str:
    """One line of figures."""
    with tempfile.TemporaryDirectory() as folder:
        async with hosted(Path(folder), 1) as (plane, (gateway,)):
            agents = []
            for number in range(count):
                await plane.container(gateway.url, "running", f"c{number}")
                agents.append(FakeAgent(gateway.url, f"c{number}", echo, token=plane.token(f"c{number}")))
            room = asyncio.Semaphore(_AT_ONCE)
            spares = [Socket() for _ in agents]

            async def join(agent: FakeAgent, spare: Socket) -> None:
                async with room:
                    await agent.connect(link=1)
                    await agent.welcomed.wait()
                    await dial(f"{gateway.url}/agent/streams", spare, agent.token)

            await join(agents[0], spares[0])
            _, before = await _resident(gateway)
            begun = time.monotonic()
            await asyncio.gather(*map(join, agents[1:], spares[1:]))
            seconds = time.monotonic() - begun
            links, after = await _resident(gateway)
            each = (after - before) / max(1, links - 1) / 1024
            for agent in agents:
                await agent.close()
            return (
                f"{links} links: {each:.1f} KiB each ({before >> 20} to {after >> 20} MiB), linked in {seconds:.1f} s"
            )


if __name__ == "__main__":
    _, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))
    print(asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)))
