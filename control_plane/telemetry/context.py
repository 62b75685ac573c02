"""What is known of the request that is being answered: its id, route, tenant and container, for logs and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_LONGEST = 128

_facts: ContextVar[dict[str, str] | None] = ContextVar("sockerless_request", default=None)


@contextmanager
def request(**facts: str) -> Iterator[Mapping[str, str]]:
    """What happens inside, background work that it begins included, is on account of this request."""
    known = dict(facts)
    token = _facts.set(known)
    try:
        yield known
    finally:
        _facts.reset(token)


def note(**facts: str) -> None:
    """Adds what has been found out. Without a request that anybody observes, nothing happens."""
    known = _facts.get()
    if known is not None:
        for name, value in facts.items():
            known[name] = value[:_LONGEST]


def facts() -> Mapping[str, str]:
    """What is known; empty outside of requests."""
    return _facts.get() or {}
