"""Where the built agent lies."""

from __future__ import annotations

import platform
from pathlib import Path

_ARCHES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


class AgentNotBuiltError(FileNotFoundError):
    """The binary for this architecture is missing from the distribution."""


def path(arch: str | None = None) -> Path:
    """Return the agent for `arch` (`amd64` or `arm64`, also as the kernel names them; default: this machine's).

    Raises ValueError for another architecture, AgentNotBuiltError when it was not built.
    """
    name = arch or platform.machine()
    if name.lower() not in _ARCHES:
        raise ValueError(f"there is no agent for architecture {name!r}: it is built for amd64 and arm64")
    binary = Path(__file__).parent / "dist" / f"sockerless-agent-linux-{_ARCHES[name.lower()]}"
    if not binary.is_file():
        raise AgentNotBuiltError(f"{binary} is missing: build it with agent_gateway/agent/build.sh")
    return binary
