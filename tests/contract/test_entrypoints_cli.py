"""The `sockerless` command: every part of it is there, and none loads another's."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMANDS = ("up", "down", "doctor", "status", "gateway", "connect", "login", "tenant", "token", "reseal", "version")


def sockerless(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "control_plane.entrypoints.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "COLUMNS": "200", **variables},
    )


def test_help_names_every_command_and_loads_none() -> None:
    done = sockerless("--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    for command in COMMANDS:
        assert command in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert not {"uvicorn", "httpx", "pydantic", "agent_gateway", "control_plane.compose"} & loaded


@pytest.mark.parametrize("command", ["connect", "login", "tenant", "token"])
def test_commands_of_other_parts_get_their_arguments(command: str) -> None:
    done = sockerless(command, "--help")
    assert done.returncode == 0, done.stderr
    assert command in done.stdout


def test_a_gateway_without_settings_says_what_is_missing() -> None:
    done = sockerless("gateway")
    assert done.returncode != 0
    assert "SOCKERLESS_" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_of_nobody() -> None:
    done = sockerless("status", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert sockerless("status", "nonsense").returncode == 1
