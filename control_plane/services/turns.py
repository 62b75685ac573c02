"""Whose turn a pass is: of all control planes on one store, one at a time makes them.

Nothing rests on it but cost: every step of a pass is a compare-and-set or repeatable, so two that take each other for
gone (clocks that differ by more than a lease) do the work twice and no harm.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from control_plane.errors import DockerError
from control_plane.store.base import AlreadyExists, Document, RevisionConflict, Store

_TENANT = "endpoint"


@dataclass(frozen=True, slots=True)
class Progress:
    """What passes are to know of those before them, whichever control plane made them. Times are Unix seconds."""

    audited: float = 0.0
    swept: float = 0.0
    execs: float = 0.0
    """When ended execs were last looked through."""
    gateways: tuple[str, ...] = ()
    """URLs of gateways that lived, or whose containers have not been looked at since they died."""


class Turn:
    """The right to make the passes, and what they have got to. One write each time it is taken or kept."""

    def __init__(self, store: Store, name: str, instance: str, seconds: float, clock: Callable[[], float]) -> None:
        self.progress = Progress()
        """As the last pass left it; change it by replacing it."""
        self.first = False
        """Nobody has ever made a pass."""
        self._store = store
        self._name = name
        self._owner = f"{instance}/{secrets.token_hex(6)}"
        self._seconds = seconds
        self._clock = clock
        self._held: Document | None = None

    async def take(self) -> bool:
        """Takes the turn, or keeps it: from now on for `seconds`. False: another has it. Raises DockerError."""
        if self._held is not None:
            if await self._write(self._held, self._clock() + self._seconds):
                return True
            self._held = None  # somebody found it over
            return False
        found = await self._store.get("leases", _TENANT, self._name)
        if found is None:
            return await self._begin()
        if not self._is_free(found):
            return False
        self.first = False
        self.progress = _progress(found.body.get("progress"))
        return await self._write(found, self._clock() + self._seconds)

    async def give_up(self) -> None:
        """Another may take the turn at once. What was got to is kept."""
        held, self._held = self._held, None
        if held is not None:
            with suppress(DockerError):  # then it ends by itself
                await self._write(held, 0.0)
            self._held = None

    def _is_free(self, found: Document) -> bool:
        """Over; or said to last longer than any can, by a clock that is ahead."""
        ends = found.body.get("expires_at", 0.0)
        present = self._clock()
        return found.body.get("owner") == self._owner or not present < ends <= present + 2 * self._seconds

    async def _begin(self) -> bool:
        self.first = True
        self.progress = Progress(audited=self._clock(), swept=self._clock(), execs=self._clock())
        with suppress(AlreadyExists):
            body = self._body(self._clock() + self._seconds)
            self._held = await self._store.create("leases", _TENANT, self._name, body)
        return self._held is not None

    async def _write(self, document: Document, ends: float) -> bool:
        try:
            written = await self._store.replace(document, self._body(ends))
        except RevisionConflict:
            return False
        if written.body["owner"] != self._owner:  # others have written since ours, whose answer was lost
            return False
        self._held = written
        return True

    def _body(self, ends: float) -> dict[str, Any]:
        progress = self.progress
        return {
            "owner": self._owner,
            "expires_at": ends,
            "progress": {
                "audited": progress.audited,
                "swept": progress.swept,
                "execs": progress.execs,
                "gateways": list(progress.gateways),
            },
        }

    def note(self, **changes: Any) -> None:
        """Changes the progress; it is written when the turn is kept or given up."""
        self.progress = replace(self.progress, **changes)


def _progress(body: Any) -> Progress:
    """What another version wrote counts as far as it is understood."""
    if not isinstance(body, dict):
        return Progress()
    times = {
        name: float(body[name]) for name in ("audited", "swept", "execs") if isinstance(body.get(name), int | float)
    }
    return Progress(**times, gateways=tuple(map(str, body.get("gateways") or ())))
