"""The agent's log spool and the `logs` stream."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.contract.agent_container import agent, spec
from tests.contract.agent_peer import AgentPeer, ClientEnd

LINGER = {"linger_seconds": -1}


def _logs(peer: AgentPeer, **params: object) -> ClientEnd:
    base = {"stdout": True, "stderr": True, "follow": False, "timestamps": False, "since": "", "until": "", "tail": -1}
    return peer.open("logs", **{**base, **params})


async def test_logs_after_the_exit_keep_the_streams_apart(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sh", "-c", "echo a; echo b >&2; printf end", **LINGER))
        await peer.event("exited")
        end = await _logs(peer).end()
        assert end.demultiplexed() == (b"a\nend", b"b\n")
        assert (end.eof_received, end.close_code) == (True, 1000)
        assert (await _logs(peer, stdout=False).end()).demultiplexed() == (b"", b"b\n")


async def test_timestamps_since_until_and_tail(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sh", "-c", "for i in 1 2 3 4 5; do echo $i; done", **LINGER))
        await peer.event("exited")
        out, _ = (await _logs(peer, timestamps=True).end()).demultiplexed()
        lines = [line.split(" ") for line in out.decode().splitlines()]
        assert [text for _, text in lines] == ["1", "2", "3", "4", "5"]
        times = [time for time, _ in lines]
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", time) for time in times)
        assert times == sorted(set(times))
        assert (await _logs(peer, since=times[3]).end()).demultiplexed()[0] == b"4\n5\n"
        assert (await _logs(peer, until=times[1]).end()).demultiplexed()[0] == b"1\n2\n"
        assert (await _logs(peer, tail=2).end()).demultiplexed()[0] == b"4\n5\n"
        assert (await _logs(peer, tail=0).end()).received == b""
        refused = await _logs(peer, since="yesterday").end()
        assert refused.error
        assert refused.error["status"] == 400


async def test_follow_ends_with_the_run(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sh", "-c", "echo one; read x; echo two", open_stdin=True, **LINGER))
        end = _logs(peer, follow=True)
        await end.output(b"one\n")
        client = peer.attach(stdin=True)
        await client.send(b"\n")
        await end.end()
        assert end.demultiplexed()[0] == b"one\ntwo\n"


async def test_the_spool_is_bounded_and_drops_the_oldest_first(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sh", "-c", "seq 1 200000", log_max_bytes=1 << 20, **LINGER))
        await peer.event("exited")
        out, _ = (await _logs(peer).end()).demultiplexed()
        numbers = [int(x) for x in out.split()]
        assert numbers == list(range(numbers[0], 200001))
        assert 10_000 < len(numbers) < 80_000
        tail, _ = (await _logs(peer, tail=30_000).end()).demultiplexed()
        assert [int(x) for x in tail.split()] == list(range(170_001, 200_001))


@pytest.mark.parametrize("read_only", [False, True])
async def test_long_lines_and_bytes_come_back_as_they_were(tmp_path: Path, read_only: bool) -> None:
    async with agent(tmp_path) as (peer, container):
        data = (bytes(range(256)) * 400 + b"\n") * 3
        (container.root / "data").write_bytes(data)
        await peer.start(spec("cat", "/data", read_only_root=read_only, **LINGER))
        await peer.event("exited")
        assert (await _logs(peer).end()).demultiplexed()[0] == data


async def test_a_terminals_log_is_raw(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("sh", "-c", "echo x; echo y >&2", tty=True, **LINGER))
        await peer.event("exited")
        assert (await _logs(peer).end()).received == b"x\r\ny\r\n"


async def test_a_log_spans_the_runs(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        await peer.start(spec("echo", "first", **LINGER))
        await peer.event("exited", run=1)
        await peer.call("start", spec=spec("echo", "second", run=2, **LINGER), streams=[])
        await peer.event("exited", run=2)
        assert (await _logs(peer).end()).demultiplexed()[0] == b"first\nsecond\n"
