"""What a `docker events` that goes on beside a test has told."""

from __future__ import annotations

import subprocess
import threading


def until_destroyed(live: subprocess.Popen[bytes]) -> list[str]:
    """The actions that `docker events` tells of a container until its end; without attachments."""
    told: list[str] = []
    late = threading.Timer(20, live.kill)
    late.start()
    with live:
        assert live.stdout is not None
        while "destroy" not in told and (line := live.stdout.readline()):
            told.append(line.decode().strip())
        live.kill()
    late.cancel()
    return [action for action in told if action != "attach"]
