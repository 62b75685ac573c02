"""What a container cannot have without agent: refused by name, because the platform would ignore it."""

from __future__ import annotations

from typing import Any

from control_plane.backends.cloud_run.host_config import HOST_CONFIG
from control_plane.backends.options import empty
from control_plane.model import Container, Image

_SERVED = ("Tmpfs", "LogConfig", "ConsoleSize")
"""Options of the agent that the platform can serve, or that only concern what the agent keeps."""
_SHM_DEFAULT = 64 * 1024 * 1024
"""What clients send when `--shm-size` was not given (moby's default)."""


def refusals(container: Container, image: Image) -> list[str]:
    """The options of `docker run` that the container was given and only an agent serves, each with its reason."""
    config = container.config
    found = []
    if str(config.get("User") or "") != str((image.config.get("config") or {}).get("User") or ""):
        found.append("--user: the platform starts a container as its image's user")
    if config.get("OpenStdin"):
        found.append("-i: nothing can be sent to the command's stdin, and it would take its end for its input")
    if container.staged:
        found.append("docker cp before the start: nobody puts the files into the container")
    if str(config.get("Hostname") or "") not in ("", container.id[:12]) or config.get("Domainname"):
        found.append("--hostname: the platform names the host")
    found += [
        f"{option.flag}: {option.note}"
        for option in HOST_CONFIG
        if option.how == "agent" and _given(container, option.field)
    ]
    return found


def terminal_refusal(container: Container) -> list[str]:
    """`-t` apart: where no agent was expected it is refused; a run whose agent failed goes on without a terminal."""
    return ["-t: the platform gives the command no terminal"] if container.config.get("Tty") else []


def warnings(container: Container) -> list[str]:
    """What is missing, once more, for those who start such a container."""
    found = [
        "this endpoint runs containers without agent (SOCKERLESS_GCR_INJECTION=none): there is no exec, attach, cp, "
        "kill -s, pause, top and no live log; docker logs has the output"
    ]
    test = (container.config.get("Healthcheck") or {}).get("Test") or []
    if test and test[0] != "NONE":
        found.append("the health check is not run: it needs the agent")
    return found


def _given(container: Container, field: str) -> bool:
    value: Any = container.host_config.get(field)
    if field in _SERVED or empty(value):
        return False
    if field == "ShmSize":
        return bool(value != _SHM_DEFAULT)
    if field == "SecurityOpt":
        return any(
            str(one).replace(":", "=", 1).startswith("no-new-privileges") and not str(one).endswith("false")
            for one in value
        )
    return True
