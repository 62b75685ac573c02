"""Links and streams of the agent over broken connections: no byte lost or doubled, no event lost."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path

from tests.contract.agent_container import agent, spec
from tests.contract.agent_peer import ClientEnd

SIZE = 50_000_000


async def _cut_at_random(end: ClientEnd, times: int, seed: int) -> None:
    """Cut the stream's socket `times` times, at random amounts of data."""
    rng = random.Random(seed)
    for _ in range(times):
        at = end.count + rng.randrange(1, 2 * SIZE // times)
        await end.until(lambda at=at: end.count >= at or end.ended)  # type: ignore[misc]
        if rng.random() < 0.3:
            await asyncio.sleep(0.001)
        end.cut()


async def test_output_survives_cuts_at_random_points(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000"))
        script = f"yes 0123456789abcdefghijklmnopqrstuvwxyz | head -c {SIZE}"
        end = peer.exec("sh", "-c", script)
        await asyncio.gather(_cut_at_random(end, 12, 1), end.end(60))
        out, _ = end.demultiplexed()
        line = b"0123456789abcdefghijklmnopqrstuvwxyz\n"
        assert len(out) == SIZE
        assert out == (line * (SIZE // len(line) + 1))[:SIZE]
        assert end.exit_code == 0
        assert end.resumes >= 5


async def test_both_directions_survive_cuts_at_random_points(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000"))
        data = hashlib.shake_128(b"both").digest(SIZE)
        end = peer.exec("cat", stdin=True)

        async def feed() -> None:
            await end.send(data)
            end.eof()

        await asyncio.gather(feed(), _cut_at_random(end, 12, 2), end.end(60))
        out, _ = end.demultiplexed()
        assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()
        assert end.exit_code == 0
        assert end.resumes >= 5


async def test_a_cut_before_the_exit_is_seen_brings_it_again(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000"))
        end = peer.exec("sh", "-c", "sleep 0.2; echo x; exit 3")
        await peer.event("exec_started")
        end.cut()
        await end.end()
        assert (end.exit_code, end.demultiplexed()[0]) == (3, b"x\n")


async def test_a_reader_that_stops_stops_the_process_and_costs_no_memory(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        await peer.start(spec("sleep", "1000"))
        end = peer.exec("sh", "-c", "yes & while sleep 0.01; do :; done")
        end.keep = False
        await end.until(lambda: end.count > 0)
        end.hold_acks = True
        await asyncio.sleep(0.3)
        stopped = end.count
        await asyncio.sleep(0.2)
        assert end.count == stopped
        assert end.count - end._acked <= 1 << 20
        assert container.resident() < 24 << 20
        end.hold_acks = False
        end._ack()
        await end.until(lambda: end.count > stopped)


async def test_the_link_comes_back_and_events_are_sent_again_in_order(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        peer.ack_events = False
        await peer.start(spec("sh", "-c", "sleep 0.2; exit 4"))
        assert peer.link
        boot = peer.hellos[0]["boot"]
        peer.link.cut()
        await peer.until(lambda: len(peer.hellos) == 2)
        again = peer.hellos[1]
        assert (again["boot"], again["run"], again["running"]) == (boot, 1, True)
        await asyncio.sleep(0.4)
        assert [e["seq"] for e in peer.events] == [1], "no events before the welcome"
        peer.events.clear()
        peer.ack_events = True
        peer.tell({"type": "welcome", "action": "resume", "streams": []})
        await peer.event("exited")
        assert [(e["seq"], e["type"]) for e in peer.events] == [(1, "started"), (2, "exited")]
        assert await container.exit_code() == 4


async def test_a_start_told_twice_starts_once(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        run = spec("sh", "-c", "echo x >> /tmp/runs; read x", open_stdin=True)
        await peer.start(run)
        assert peer.link
        peer.link.cut()
        await peer.until(lambda: len(peer.hellos) == 2)
        peer.tell({"type": "welcome", "action": "start", "spec": run, "streams": []})
        code, out = await peer.exec_output("cat", "/tmp/runs")
        assert (code, out) == (0, b"x\n")


async def test_drain_moves_the_link_and_streams_go_on(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        end = peer.attach()
        fields = {"open_stdin": True, "stdin_once": True}
        await peer.start(spec("cat", **fields), [end.id])
        peer.tell({"type": "drain"})
        await peer.until(lambda: len(peer.hellos) == 2)
        await end.send(b"still here")
        end.eof()
        assert (await end.end()).demultiplexed()[0] == b"still here"


async def test_a_frame_against_the_protocol_ends_the_stream_and_nothing_else(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sleep", "1000"))
        for bad in ({"nonsense": 1}, {"ack": 5, "eof": True}, {"ack": 10**9}, {"resume": {"received": 77, "id": "x"}}):
            end = peer.exec("cat", stdin=True)
            await end.until(lambda e=end: e._socket is not None)  # type: ignore[misc]
            assert end._socket
            end._socket.text(bad)
            await end.end()
            assert end.close_code == 1002
        assert (await peer.exec_output("echo", "alive"))[1] == b"alive\n"
