"""The audit log: who did what to which container, image, volume or network, and what became of it.

One JSON line for each call that changes something or lets into a container, refused ones included. Bodies, headers,
commands, environments and file names are never in it: they may hold secrets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

import orjson

from control_plane.auth.caller import Caller
from control_plane.timestamps import now

LOGGER = "sockerless.audit"
_TOLD = frozenset({"name", "fromImage", "tag", "repo", "signal", "force", "v", "t", "condition"})
"""Parameters of the query that say what was done and can hold no secret."""
_LONGEST = 256


@dataclass(frozen=True, slots=True)
class Entry:
    """One call. `action` is the route: `POST /containers/{id}/exec`; `target` what its variable was."""

    caller: Caller | None
    """None: whoever it was showed no valid proof."""
    action: str
    target: str
    query: str
    status: int
    made: str = ""
    """Id of what was made."""
    gateway: str = ""
    """The gateway that asked on the caller's behalf."""
    address: str = ""
    """The client's, where that gateway's proxy told it."""


class Audit:
    """Writes entries to the logger `sockerless.audit`, or to what it is given."""

    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        self._write = write or logging.getLogger(LOGGER).info

    def record(self, entry: Entry) -> None:
        """Never fails for what a client sent."""
        caller = entry.caller
        line: dict[str, object] = {
            "audit": True,
            "at": now(),
            "tenant": caller.tenant if caller else "",
            "subject": caller.subject if caller else "",
            "scope": caller.scope if caller else "",
            "action": entry.action,
            "target": _shown(entry.target),
            "status": entry.status,
            "outcome": _outcome(entry.status),
        }
        if parameters := _parameters(entry.query):
            line["parameters"] = parameters
        if entry.made:
            line["made"] = entry.made
        if entry.gateway:
            line["gateway"] = entry.gateway
        if entry.address:
            line["address"] = _shown(entry.address)
        self._write(orjson.dumps(line).decode())


def made_by(status: int, body: bytes) -> str:
    """The `Id` or `Name` in the answer of a create."""
    if status != 201:
        return ""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    made = answer.get("Id") or answer.get("Name") if isinstance(answer, dict) else ""
    return made if isinstance(made, str) else ""


def _outcome(status: int) -> str:
    if status in (401, 403, 429):
        return "refused"
    return "done" if status < 400 else "failed"


def _parameters(query: str) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        return {}
    return {name: _shown(value) for name, value in pairs if name in _TOLD}


def _shown(text: str) -> str:
    """Without what could break a line or a terminal, and not too long."""
    return "".join(character if character.isprintable() else "?" for character in text[:_LONGEST])
