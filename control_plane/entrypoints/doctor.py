"""`sockerless doctor`: what this machine can do for containers, what it lacks, and how to get that."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from control_plane.settings import default_data_dir


def run(data: Path | None) -> int:
    """Prints the findings; 1 when something is missing without which nothing runs."""
    from local_cloud.runtime.probe import probe

    rows: list[tuple[str, bool, str, str]] = [
        (finding.name, finding.ok, finding.text, finding.remedy) for finding in probe()
    ]
    rows.append(_agent())
    rows.append(_docker_cli())
    rows.append(_space((data or default_data_dir()).absolute()))
    table = Table("what", "", "found", "how to get it")
    for name, ok, detail, remedy in rows:
        table.add_row(name, "[green]yes[/]" if ok else "[red]no[/]", detail, "" if ok else remedy)
    Console().print(table)
    needed = {"namespaces", "layers", "agent"}
    return 1 if any(name in needed and not ok for name, ok, _, _ in rows) else 0


def _agent() -> tuple[str, bool, str, str]:
    from agent_gateway.agent.binary import path

    try:
        return "agent", True, str(path("amd64")), ""
    except FileNotFoundError as error:
        return "agent", False, str(error), "make setup"


def _docker_cli() -> tuple[str, bool, str, str]:
    found = shutil.which("docker")
    return "docker CLI", found is not None, found or "not in PATH", "Debian: apt-get install docker.io (or docker-cli)"


def _space(directory: Path) -> tuple[str, bool, str, str]:
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free / 1e9
    return "disk space", free > 2, f"{free:.1f} GB free in {directory}", "free some, or choose another --data"
