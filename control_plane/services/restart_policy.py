"""Docker's restart policies and their backoff. Pure."""

from __future__ import annotations

from control_plane.model import Container
from control_plane.timestamps import nanoseconds

FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
_LONG_RUN = 10.0
"""A run of at least this many seconds starts the backoff anew."""


def next_delay(container: Container, ran_for: float) -> float:
    """Seconds before the next restart: 100 ms, doubled after each short run, a minute at most (moby's rule)."""
    last = 0.0 if ran_for >= _LONG_RUN else container.state.restart_delay
    return FIRST_DELAY if last == 0 else min(last * 2, LONGEST_DELAY)


def should_restart(container: Container, exit_code: int) -> bool:
    """Whether the policy restarts the container after this exit."""
    policy = container.host_config.get("RestartPolicy") or {}
    if container.state.stop_requested:
        return False
    match policy.get("Name") or "no":
        case "always" | "unless-stopped":
            return True
        case "on-failure":
            most = int(policy.get("MaximumRetryCount") or 0)
            return exit_code != 0 and (most == 0 or container.restart_count < most)
        case _:
            return False


def ran_for(container: Container, ended_at: str) -> float:
    """Seconds from the start of the present run to `ended_at`, 0 when it never started."""
    started = nanoseconds(container.state.started_at)
    return max(0.0, (nanoseconds(ended_at) - started) / 1e9) if started else 0.0
