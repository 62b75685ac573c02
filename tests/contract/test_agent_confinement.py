"""What the container's processes, root among them, cannot do to the agent, and what they do not get of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.contract.agent_container import agent, spec

DOCKER_CAPS = 0xA80425FB
SYS_PTRACE, SYS_RESOURCE = 1 << 19, 1 << 24
LIMITS = [{"name": "nofile", "soft": 100, "hard": 200}]


async def _run(tmp_path: Path, script: str, **fields: Any) -> str:
    async with agent(tmp_path) as (peer, _):
        end = peer.attach()
        event = await peer.start(spec("sh", "-c", script, **fields), [end.id])
        assert event["type"] == "started", event
        return (await end.end()).demultiplexed()[0].decode()


@pytest.mark.parametrize("limits", [[], LIMITS])
async def test_processes_get_their_three_files_and_nothing_else(tmp_path: Path, limits: list[Any]) -> None:
    script = "ls /proc/$$/fd; true"
    assert await _run(tmp_path / "run", script, ulimits=limits) == "0\n1\n2\n"
    async with agent(tmp_path / "exec") as (peer, _):
        await peer.start(spec("sleep", "60", ulimits=limits))
        code, output = await peer.exec_output("sh", "-c", script)
        assert (code, output) == (0, b"0\n1\n2\n")


async def test_the_agents_token_and_memory_are_not_for_its_processes(tmp_path: Path) -> None:
    script = """
      cat /proc/1/environ 2>/dev/null && echo leaked; head -c1 /proc/1/mem 2>/dev/null && echo leaked
      readlink /proc/1/exe /proc/1/fd/* /proc/1/cwd && echo leaked; env | grep SOCKERLESS && echo leaked
      kill -9 1; kill -STOP 1; echo unharmed"""
    assert await _run(tmp_path, script) == "unharmed\n"


async def test_an_agent_whose_file_was_replaced_still_runs_itself(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, container):
        await peer.start(spec("sleep", "60", ulimits=LIMITS))
        (container.root / "agent").unlink()
        (container.root / "agent").write_text("#!/bin/sh\necho another program\n")
        (container.root / "agent").chmod(0o755)
        assert await peer.exec_output("sh", "-c", "ulimit -n") == (0, b"100\n")


async def test_an_agent_that_may_be_traced_has_no_more_power_than_its_processes(tmp_path: Path) -> None:
    script = "grep ^CapEff /proc/self/status; cat /proc/1/task/*/status | grep -E '^Cap(Prm|Eff|Bnd)' | sort -u"
    own, *agents = (await _run(tmp_path, script, cap_add=["CAP_SYS_PTRACE"])).split("\n")[:-1]
    assert int(own.split()[1], 16) == DOCKER_CAPS | SYS_PTRACE
    assert [line.split(":")[0] for line in agents] == ["CapBnd", "CapEff", "CapPrm"]  # each thread has the same
    for line in agents:
        assert int(line.split()[1], 16) & ~SYS_RESOURCE == DOCKER_CAPS | SYS_PTRACE


async def test_it_can_be_started_again_and_entered_after_that(tmp_path: Path) -> None:
    async with agent(tmp_path) as (peer, _):
        for run in (1, 2):
            fields = {"cap_add": ["SYS_PTRACE"], "linger_seconds": -1, "user": "app", "ulimits": LIMITS}
            event = await peer.start(spec("sleep", "60", run=run, **fields))
            assert event["type"] == "started", event
            assert await peer.exec_output("id", "-un") == (0, b"app\n")
            await peer.call("signal", signal=9)
            await peer.event("exited", run=run)
