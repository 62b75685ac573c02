"""Where metrics and traces are attached: each hook is None until somebody wants to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter

CloudCall = Callable[[str, str, float], None]
"""What it was about, `ok` or the name of the error, seconds."""
Reconciled = Callable[[float, bool], None]
"""Seconds, and whether the pass came to its end."""
Containers = Callable[[Mapping[str, int] | None], None]
"""Containers of all tenants by status; None: another process counts them."""
Span = Callable[[str], AbstractContextManager[None]]
Traceparent = Callable[[], str]
"""Names the span under way, as W3C Trace Context writes it."""
Continued = Callable[[str, str], AbstractContextManager[None]]
"""A span with a name, below the one that a traceparent names."""

cloud_call: CloudCall | None = None
reconciled: Reconciled | None = None
containers: Containers | None = None
span: Span | None = None
traceparent: Traceparent | None = None
continued: Continued | None = None


def in_span(name: str) -> AbstractContextManager[None]:
    """A span of the trace under way, where traces are on."""
    return span(name) if span is not None else nullcontext()


def trace_now() -> str:
    """What `in_trace` goes on with later, in whatever process; empty where traces are off."""
    return traceparent() if traceparent is not None else ""


def in_trace(trace: str, name: str) -> AbstractContextManager[None]:
    """A span of the trace in which something was asked for, when its consequence arrives."""
    return continued(trace, name) if continued is not None and trace else nullcontext()


@contextmanager
def reconciling() -> Iterator[None]:
    """One pass of the reconciler."""
    if reconciled is None:
        yield
        return
    began, whole = perf_counter(), False
    try:
        yield
        whole = True
    finally:
        reconciled(perf_counter() - began, whole)
