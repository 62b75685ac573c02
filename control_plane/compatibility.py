"""Writes `docs/compatibility.md` from the route table and the backends' capabilities.

`python -m control_plane.compatibility` writes it, with `--check` it only says whether it is up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from control_plane.backends.base import Capabilities
from control_plane.route import Route
from control_plane.routes import ROUTES
from control_plane.services.creation_options import UNSERVED
from control_plane.version import API_VERSION, MIN_API_VERSION

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "compatibility.md"

_PAGES = {"cloudrun": "cloud_run.md", "gcf": "cloud_functions.md", "azf": "azure_functions.md"}
"""Backend → its page in `docs/backends/`."""

_INTRODUCTION = f"""# Compatibility

<!-- Made by `python -m control_plane.compatibility` from control_plane/routes.py; do not edit. -->

Sockerless speaks the Docker Engine API {MIN_API_VERSION} to {API_VERSION}. What it does not serve it refuses with
Docker's `{{"message": …}}` and the reason below; nothing is silently ignored.

- **control plane**: answered from the store or the container's agent.
- **front door**: takes over the connection (hijack), so it must be sent to the gateway's front door.

Networks are records in this release: they are created, listed, connected to and removed as Docker does, and containers
keep their endpoints in them, but containers do not reach each other by name.

Published ports (`-p`, `-P`; TCP) appear on loopback of the client's machine, where `sockerless connect` or
`sockerless up` listens. Through other ways in create refuses them; EXPOSE alone is fine everywhere.

## Where a served request differs from dockerd

- Every container has an init, as with `--init`: its command is not process 1. A signal that it does not handle ends it
  at once, where dockerd's process 1 ignores it: `docker stop` of `sleep` does not wait, and its exit code is 143.
- `docker exec -u` with an unknown user is told on the exec's output, exit code 126; dockerd refuses to make the exec.
- Malformed `--log-opt` and `--tmpfs` values are refused by create; dockerd refuses them at the start.
- `docker events` has no `connect`, `disconnect`, `mount`, `unmount` for the networks and volumes of a container that
  starts or ends, and none of health probes' execs.
- `docker rmi -f` of an image that a stopped container uses takes its tag only, since the container may be started
  elsewhere.
- `docker cp` from a container that has never run sees its image and what was copied in, not its binds.
- Published ports are listened for on 127.0.0.1 and ::1 alone, and shown so, where dockerd listens on every address. A
  connection to a port on which nothing listens in the container is accepted, then reset.
- Sizes of images are those of their layers' archives.
"""


def document(capabilities: Sequence[Capabilities]) -> str:
    """The whole page."""
    parts = [_INTRODUCTION, *_routes(ROUTES), "", *_options(), *_differences(capabilities), *_refused(capabilities)]
    return "\n".join(parts).rstrip() + "\n"


def known_capabilities() -> list[Capabilities]:
    """Of the backends in this distribution, without their cloud's SDK."""
    from control_plane.backends.azure_functions.capabilities import capabilities as azure_functions
    from control_plane.backends.cloud_functions.capabilities import capabilities as cloud_functions
    from control_plane.backends.cloud_run.capabilities import capabilities as cloud_run

    return [cloud_run(), cloud_functions(), azure_functions()]


def _routes(routes: Sequence[Route]) -> Iterator[str]:
    yield "## Routes"
    group = ""
    for route in routes:
        first = route.path.split("/")[1]
        if first != group:
            group = first
            yield from ("", f"### /{first}", "", "| route | served by | |", "|---|---|---|")
        by = {"control_plane": "control plane", "front_door": "front door", "nobody": f"refused, {route.status}"}
        remark = route.note if route.handler else ("" if route.served_by == "front_door" else route.reason)
        yield f"| `{route.method} {route.path}` | {by[route.served_by]} | {_cell(remark)} |"


def _options() -> Iterator[str]:
    yield from ("## Options of create that no backend serves", "", "| option | reason |", "|---|---|")
    for option, reason in UNSERVED.items():
        yield f"| `HostConfig.{option}` | {_cell(reason.partition(': ')[2])} |"
    yield ""


def _differences(capabilities: Sequence[Capabilities]) -> Iterator[str]:
    """One table of what the backends do differently, each cell with its reason."""
    yield from ("## Where the backends differ", "")
    yield "`docker run --runtime NAME` chooses one, or the label `sockerless.backend`. A dash: as the others do it."
    yield f"Where all of them differ from Docker is in their own pages: {', '.join(map(_page, capabilities))}."
    yield from ("", "| | " + " | ".join(f"`{backend.name}`: {backend.title}" for backend in capabilities) + " |")
    yield "|---" * (len(capabilities) + 1) + "|"
    yield _row("longest run, unless set otherwise", map(_longest_run, capabilities))
    yield _row("a container whose agent never connects", map(_without_agent, capabilities))
    for topic in dict.fromkeys(topic for backend in capabilities for topic in backend.differences):
        yield _row(topic, (backend.differences.get(topic, "—") for backend in capabilities))
    yield ""


def _page(backend: Capabilities) -> str:
    page = _PAGES.get(backend.name)
    return backend.title if page is None else f"[{backend.title}](backends/{page})"


def _longest_run(backend: Capabilities) -> str:
    longest = _duration(backend.max_run_seconds)
    if backend.enforces_limit:
        return f"{longest}; then the platform ends it: it lets no run be longer"
    return f"{longest}; then the agent ends it, so that output and exit code still get out"


def _without_agent(backend: Capabilities) -> str:
    if backend.agentless:
        return "is run once more as the image is, with less: the platform runs any command"
    return "is not started: the platform runs only what answers its requests, which the agent does"


def _refused(capabilities: Sequence[Capabilities]) -> Iterator[str]:
    """One table of the options that some backend refuses, with its reason."""
    yield from ("## Options of create that a backend refuses", "", "An empty cell: served.", "")
    yield "| option | " + " | ".join(f"`{backend.name}`" for backend in capabilities) + " |"
    yield "|---" * (len(capabilities) + 1) + "|"
    for option in sorted({option for backend in capabilities for option in backend.refused_options}):
        yield _row(f"`{option}`", (backend.refused_options.get(option, "") for backend in capabilities))
    yield ""


def _duration(seconds: int) -> str:
    if seconds % 3600 == 0:
        return f"{seconds // 3600} h"
    return f"{seconds // 60} min" if seconds % 60 == 0 else f"{seconds} s"


def _row(head: str, cells: Iterable[str]) -> str:
    return f"| {head} | " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(arguments: Sequence[str]) -> int:
    """Exit status 1 when `--check` finds the page out of date."""
    wanted = document(known_capabilities())
    if "--check" in arguments:
        if not DOCUMENT.exists() or DOCUMENT.read_text() != wanted:
            print(f"{DOCUMENT.name} is out of date: run python -m control_plane.compatibility", file=sys.stderr)
            return 1
        return 0
    DOCUMENT.write_text(wanted)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
