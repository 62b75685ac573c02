"""What a publisher listens for, kept in a file: after its end, however sudden, the next one listens there again."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from agent_gateway.publisher.sockets import Ports

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Publication:
    """The ports of one container's start."""

    id: str
    """Random: the control plane tells it while it is the container's."""
    ports: Ports


class Memory:
    """Container → publication. Without a path nothing outlives the process."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> dict[str, Publication]:
        """What was kept; nothing of a file that cannot be read."""
        if self._path is None:
            return {}
        try:
            kept = json.loads(self._path.read_text())
            return {
                container: Publication(str(entry["id"]), _ports(entry["ports"])) for container, entry in kept.items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            _log.warning("%s is not used: %s", self._path, error)
            return {}

    def write(self, publications: dict[str, Publication]) -> None:
        """Replaces what was kept."""
        if self._path is None:
            return
        text = json.dumps({container: {"id": kept.id, "ports": kept.ports} for container, kept in publications.items()})
        draft = self._path.with_name(f"{self._path.name}.new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as out:
                out.write(text)
            os.replace(draft, self._path)
        except OSError as error:
            _log.warning("published ports will not outlive this process: %s", error)
            with contextlib.suppress(OSError):
                draft.unlink()
            self._path = None


def _ports(value: object) -> Ports:
    if not isinstance(value, dict):
        raise TypeError("ports are an object")
    return {
        str(key): [{"HostIp": str(entry["HostIp"]), "HostPort": str(int(entry["HostPort"]))} for entry in entries]
        for key, entries in value.items()
    }
