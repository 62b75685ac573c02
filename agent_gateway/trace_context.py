"""Which trace this process's calls and streams belong to, as W3C Trace Context names it, for whoever hears them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

TRACEPARENT = "traceparent"
_NAMES = (b"traceparent", b"tracestate")

traceparent: Callable[[], str] | None = None
"""Names the span under way, empty where there is none; set where traces are on."""


def carried() -> dict[str, str]:
    """The headers that carry the trace under way on; none where traces are off."""
    named = traceparent() if traceparent is not None else ""
    return {TRACEPARENT: named} if named else {}


def shown(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The trace that a request's headers name."""
    return {name.decode(): value.decode("latin-1") for name, value in headers if name in _NAMES}


def without(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers but those."""
    return [(name, value) for name, value in headers if name not in _NAMES]
