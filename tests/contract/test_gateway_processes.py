"""Two gateways in processes of their own: kill -9, SIGTERM, agents and streams that move, with the built agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from agent_gateway.streams import Stream, StreamError
from agent_gateway.tickets import mint_gateway_token, mint_ticket
from control_plane.services.moves import place
from tests.contract.agent_container import AgentContainer, busybox_root, needs_namespaces
from tests.contract.gateway_peers import KEY
from tests.contract.gateway_processes import SECONDS, GatewayProcess, Plane, hosted
from tests.unit.run_world import TENANT

LINES = 4000
COUNT = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); [ $((i % 20)) = 0 ] && usleep 10000; done; exit 7"
EXPECTED = "".join(f"line {i}\n" for i in range(LINES)).encode()


def exec_params(*argv: str, stdin: bool = False) -> dict[str, object]:
    base: dict[str, object] = {"exec": "e1", "argv": list(argv), "env": [], "workdir": "", "user": "", "tty": True}
    return base | {"privileged": False, "stdin": stdin, "stdout": True, "stderr": True, "detach_keys": ""}


@asynccontextmanager
async def running(tmp_path: Path, gateways: int = 2) -> AsyncIterator[tuple[Plane, list[GatewayProcess]]]:
    """The agent runs `sleep` and is linked to the first gateway."""
    needs_namespaces()
    root = busybox_root(tmp_path / "root")
    async with hosted(tmp_path / "plane", gateways) as (plane, processes):
        await plane.container(processes[0].url)
        container = AgentContainer(root, processes[0].url, token=plane.token())
        try:
            await plane.until(lambda c: c.state.status == "running")
            yield plane, processes
        finally:
            container.end()


class Reader:
    """Collects a stream's output."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.data = b""
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for chunk in self.stream.chunks():
            self.data += chunk

    async def reach(self, size: int) -> None:
        async with asyncio.timeout(SECONDS):
            while len(self.data) < size:
                assert not self.task.done(), self.task
                await asyncio.sleep(0.005)

    async def end(self) -> bytes:
        async with asyncio.timeout(40):
            await self.task
        return self.data.replace(b"\r\n", b"\n")


async def test_kill_9_costs_a_redial_and_no_byte_of_a_stream(tmp_path: Path) -> None:
    async with running(tmp_path) as (plane, (first, second)):
        stream = await plane.relay(first.url).open(TENANT, "c0ffee", "exec", exec_params("sh", "-c", COUNT))
        reader = Reader(stream)
        await reader.reach(len(EXPECTED) // 4)
        first.kill()
        moved = await plane.until(lambda c: c.agent is not None and c.agent.gateway == second.url)
        assert moved.state.status == "running"
        await reader.reach(len(EXPECTED) // 2)
        await first.start()
        second.kill()
        assert await reader.end() == EXPECTED
        assert stream.exit_code == 7
        # Its exec may have ended while the other gateway still had the link: the hello at this one comes all the same.
        await plane.until(lambda c: c.agent is not None and c.agent.gateway == first.url)


async def test_a_gateway_that_drains_sends_agents_and_streams_to_the_other(tmp_path: Path) -> None:
    async with running(tmp_path) as (plane, (first, second)):
        reader = Reader(await plane.relay(first.url).open(TENANT, "c0ffee", "exec", exec_params("sh", "-c", COUNT)))
        await reader.reach(len(EXPECTED) // 4)
        assert await first.terminate() == 0
        assert {d.body["url"] for d in await plane.world.store.list("gateways")} == {second.url}
        moved = await plane.now()
        assert moved.agent is not None
        assert moved.agent.gateway == second.url
        assert moved.agent.connected
        assert await reader.end() == EXPECTED
        assert await plane.gateways.pick() == second.url


async def test_calls_and_new_streams_go_to_where_the_agent_is(tmp_path: Path) -> None:
    async with running(tmp_path) as (plane, (first, second)):
        before = await plane.now()
        first.kill()
        # The record still names the dead gateway: the call finds the agent by itself.
        assert "Titles" in await plane.agents.call(before, "top", {"ps_args": "-ef"})
        stream = await plane.agents.open(before, "exec", exec_params("echo", "here"))
        assert b"".join([chunk async for chunk in stream.chunks()]).strip() == b"here"
        after = await plane.now()
        assert after.gateway == second.url  # client halves wait there from now on


async def test_an_attachment_that_waits_follows_an_agent_that_comes_elsewhere(tmp_path: Path) -> None:
    needs_namespaces()
    root = busybox_root(tmp_path / "root")
    async with hosted(tmp_path / "plane") as (plane, (first, second)):
        await plane.container(first.url)
        await plane.records.update(
            TENANT,
            "c0ffee",
            lambda c: c.model_copy(update={"config": {**c.config, "Cmd": ["echo", "seen"], "Tty": True}}),
        )
        wanted = {"stdin": False, "stdout": True, "stderr": True, "stream": True, "logs": False, "detach_keys": ""}
        reader = Reader(await plane.relay(first.url).open(TENANT, "c0ffee", "attach", wanted))
        container = AgentContainer(root, second.url, token=plane.token())
        try:
            assert await reader.end() == b"seen\n"
        finally:
            container.end()


async def test_a_used_ticket_opens_nothing_at_another_gateway_either(tmp_path: Path) -> None:
    async with running(tmp_path) as (plane, (first, second)):
        stream_id = "ab" * 16
        ticket = mint_ticket(KEY, TENANT, "c0ffee", "exec", stream_id, exec_params("echo", "once"))

        async def use(url: str) -> bytes:
            stream = Stream()
            await plane.relay(url).join(stream, stream_id, ticket)
            return b"".join([chunk async for chunk in stream.chunks()])

        assert (await use(first.url)).strip() == b"once"
        with pytest.raises(StreamError) as again:
            await use(first.url)
        assert again.value.status == 410
        first.kill()
        await plane.until(lambda c: c.agent is not None and c.agent.gateway == second.url)
        with pytest.raises(StreamError) as elsewhere:
            await use(second.url)
        assert elsewhere.value.status == 410


async def test_health_and_metrics(tmp_path: Path) -> None:
    async with hosted(tmp_path, 1) as (_, (gateway,)), httpx.AsyncClient(base_url=gateway.url) as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/metrics")).status_code == 401
        token = mint_gateway_token(KEY, gateway.url, 60)
        answer = await client.get("/metrics", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 200
        assert "sockerless_gateway_links 0" in answer.text


async def test_a_gateway_that_lacks_its_settings_says_which() -> None:
    from agent_gateway.entrypoint import Environment, NotConfigured

    complete = {
        "SOCKERLESS_CONTROL_PLANE_URL": "https://api.example.com/",
        "SOCKERLESS_KEY": KEY.decode(),
        "SOCKERLESS_GATEWAY_URL": "https://g1.example.com",
        "PORT": "8080",
    }
    assert Environment.read(complete).listen == ["tcp://0.0.0.0:8080"]
    for wrong in ("https://g1 g2", "https://g1,https://g2", "https://g1\n", "ftp://g1", "https://g1?a"):
        with pytest.raises(NotConfigured, match="SOCKERLESS_GATEWAY_URL"):
            Environment.read({**complete, "SOCKERLESS_GATEWAY_URL": wrong})
    for name in complete:
        with pytest.raises(NotConfigured, match=name):
            Environment.read({**complete, name: ""})


async def test_both_directions_survive_gateways_that_are_killed_in_turn(tmp_path: Path) -> None:
    async with running(tmp_path) as (plane, gateways):
        params = {**exec_params("cat", stdin=True), "tty": False}
        stream = await plane.relay(gateways[0].url).open(TENANT, "c0ffee", "exec", params)
        reader = Reader(stream)
        sent = b"".join(b"%07d\n" % number for number in range(1 << 20))

        async def send() -> None:
            for start in range(0, len(sent), 60_000):
                await stream.send(sent[start : start + 60_000])
                await asyncio.sleep(0.01)
            await stream.send_eof()

        sending = asyncio.create_task(send())
        for turn in range(4):
            await reader.reach((turn + 1) * len(sent) // 6)
            present = place(await plane.now())
            victim = next(gateway for gateway in gateways if gateway.url == present)
            victim.kill()
            await plane.until(lambda c, dead=victim.url: place(c) != dead)
            await victim.start()
        async with asyncio.timeout(40):
            await asyncio.gather(sending, reader.task)
        assert b"".join(_payloads(reader.data)) == sent
        assert stream.exit_code == 0


def _payloads(data: bytes) -> Iterator[bytes]:
    """Of stdcopy frames."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "big")
        yield data[at + 8 : at + 8 + size]
        at += 8 + size


async def test_a_gateway_that_is_replaced_at_its_url_gets_its_agents_and_streams_back(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as (plane, (only,)):
        reader = Reader(await plane.relay(only.url).open(TENANT, "c0ffee", "exec", exec_params("sh", "-c", COUNT)))
        await reader.reach(len(EXPECTED) // 4)
        assert await only.terminate() == 0
        await only.start()
        assert await reader.end() == EXPECTED
