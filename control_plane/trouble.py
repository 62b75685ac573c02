"""What a piece of work that takes long has met with so far, for whoever gives up waiting for it.

Cloud calls are tried again for a while; a user whose patience ends earlier is told what they failed with last.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Trouble:
    """The latest failure of the work that is watched, in Docker's words; empty while there is none."""

    def __init__(self) -> None:
        self.text = ""


_watched: ContextVar[Trouble | None] = ContextVar("trouble", default=None)


@contextmanager
def watching() -> Iterator[Trouble]:
    """What is done in this block, and in tasks begun in it, notes its failures here."""
    trouble = Trouble()
    token = _watched.set(trouble)
    try:
        yield trouble
    finally:
        _watched.reset(token)


def note(text: str) -> None:
    """The work has failed, and goes on trying. Empty texts change nothing."""
    trouble = _watched.get()
    if trouble is not None and text:
        trouble.text = text
