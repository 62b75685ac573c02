"""The words in which the runtime tells its caller what went wrong and what this machine can do."""

from __future__ import annotations

from dataclasses import dataclass


class RuntimeRefused(Exception):
    """The runtime cannot do what was asked. The text says why, for a person.

    `kind` tells the causes apart: `command` (not found, not executable), `user`, `workdir`, `layer`, `mount`, `spec`,
    `unknown` (no such execution), `state` (not running), `space` (disk full), `machine` (what this kernel or account
    does not allow), `launcher` (it ended while it was asked).
    """

    def __init__(self, message: str, kind: str = "machine") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the runtime can use on this machine, or cannot, and then how to get it."""

    name: str
    ok: bool
    text: str
    remedy: str = ""
