"""What a container costs on each backend, against the local cloud: the first of an image, and those after it."""

from __future__ import annotations

import statistics
import time

from tests.bench.engines import Engine, sockerless

BACKENDS = ("cloudrun", "gcf", "azf")
_TURNS = 9
_SETTLED = 12.0
"""Seconds until the spare of a function that was used has been made, also after a claim."""


def take() -> dict[str, tuple[float, float]]:
    """Backend → milliseconds of `docker run --rm busybox true` as a whole process: the first, and the median after."""
    figures = {}
    for backend in BACKENDS:
        with sockerless() as engine:
            first = _run(engine, backend)
            time.sleep(_SETTLED if backend == "gcf" else 1.0)
            later = []
            for _ in range(_TURNS):
                later.append(_run(engine, backend))
                time.sleep(0.2)
            figures[backend] = (first, statistics.median(later))
        print(
            f"  run --rm on {backend}: first {figures[backend][0]:,.0f} ms, then {figures[backend][1]:,.1f} ms",
            flush=True,
        )
    return figures


def _run(engine: Engine, backend: str) -> float:
    begin = time.perf_counter()
    engine.docker("run", "--rm", "--runtime", backend, "busybox", "true")
    return 1000 * (time.perf_counter() - begin)


def table(figures: dict[str, tuple[float, float]]) -> str:
    """A Markdown table."""
    lines = ["| `run --rm busybox true` | first of an image, ms | then, ms |", "|---|---|---|"]
    lines += [f"| `{backend}` | {first:,.0f} | {later:,.1f} |" for backend, (first, later) in figures.items()]
    return "\n".join(lines)
