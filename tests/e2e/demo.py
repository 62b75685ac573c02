"""`make demo`: a container whose output you see, an exec into it, and the way out. Needs no registry.

Each command is printed as a person would type it.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys

from tests import images
from tests.e2e.endpoint import Endpoint, running_endpoint


def _show(endpoint: Endpoint, *arguments: str, stdin: bytes | None = None) -> None:
    print(f"\n$ docker {shlex.join(arguments)}", flush=True)
    subprocess.run(["docker", *arguments], input=stdin, env=endpoint.docker_environment(), check=True, timeout=120)


def main() -> int:
    """Runs the demo; the exit code is 0 when every command did what it should."""
    if shutil.which("docker") is None:
        print("the docker CLI is not installed (Debian: docker.io)", file=sys.stderr)
        return 1
    print("$ sockerless up")
    with running_endpoint() as endpoint:
        print(endpoint.log.read_text().strip())
        print("\nAn image made here, of one static busybox:")
        _show(endpoint, "load", stdin=images.busybox())
        _show(endpoint, "run", "--rm", "busybox", "echo", "hello from a Cloud Run job")
        _show(endpoint, "run", "-d", "--name", "demo", "busybox", "sh", "-c", "echo started; exec sleep 600")
        _show(endpoint, "exec", "demo", "sh", "-c", "echo exec sees $(hostname) and these processes:; ps")
        _show(endpoint, "logs", "demo")
        _show(endpoint, "ps")
        _show(endpoint, "stop", "-t", "1", "demo")
        _show(endpoint, "inspect", "-f", "exit code {{.State.ExitCode}}", "demo")
        _show(endpoint, "rm", "demo")
    return 0


if __name__ == "__main__":
    sys.exit(main())
