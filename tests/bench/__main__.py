"""`make bench`: against a real dockerd where one is on the machine, in turns in one run; else alone."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench import alone, backends, hosted, measures
from tests.bench.engines import Engine, dockerd, sockerless

Measure = Callable[[Engine], float]

MEASURES: dict[str, tuple[str, int, Measure, float | None]] = {
    # name: unit, turns, measure, target as a ratio to dockerd (≤ for times and memory, ≥ for rates)
    "GET /_ping": ("requests/s", 3, lambda engine: measures.rate(engine, "/_ping"), None),
    "list of 0": ("requests/s", 3, measures.listing(0), None),
    "list of 100": ("requests/s", 3, measures.listing(100), 4.0),
    "list of 1,000": ("requests/s", 1, measures.listing(1000), None),
    "inspect": ("requests/s", 3, measures.inspect, 0.3),
    "run --rm busybox true": ("ms", 15, measures.run_true, 0.5),
    "exec true": ("ms", 5, measures.exec_true, 0.5),
    "exec stdout": ("MiB/s", 5, measures.exec_stdout, 1.0),
    "exec stdin": ("MiB/s", 5, measures.exec_stdin, 0.8),
    "cp in": ("MiB/s", 5, measures.copy_in, 0.7),
    "cp out": ("MiB/s", 5, measures.copy_out, 1.0),
    "logs": ("lines/s", 3, measures.logs, 2.0),
    "50 runs at once": ("s", 3, measures.fifty_at_once, 0.5),
    "memory, 10 idle containers, sum of RSS": ("MiB", 1, measures.idle_resident, 0.6),
    "memory, 10 idle containers, sum of PSS": ("MiB", 1, measures.idle_proportional, None),
}

LESS_IS_BETTER = {"ms", "s", "MiB"}


def take(engines: list[Engine], wanted: list[str]) -> dict[str, dict[str, float]]:
    """Medians by measure and engine, the engines taking turns."""
    medians: dict[str, dict[str, float]] = {}
    for name in wanted:
        unit, turns, measure, _ = MEASURES[name]
        figures: dict[str, list[float]] = {engine.name: [] for engine in engines}
        for _ in range(turns):
            for engine in engines:
                figures[engine.name].append(measure(engine))
        medians[name] = {engine: statistics.median(seen) for engine, seen in figures.items()}
        print(
            f"  {name}: " + ", ".join(f"{engine} {value:,.1f} {unit}" for engine, value in medians[name].items()),
            flush=True,
        )
    return medians


def table(medians: dict[str, dict[str, float]]) -> str:
    """A Markdown table with the ratio and, where one is set, the target."""
    lines = ["| measure | unit | sockerless | dockerd | ratio | target |", "|---|---|---|---|---|---|"]
    for name, seen in medians.items():
        unit, _, _, target = MEASURES[name]
        other = seen.get("dockerd")
        ratio = f"{seen['sockerless'] / other:.2f}" if other else "-"
        sign = "≤" if unit in LESS_IS_BETTER else "≥"
        theirs = f"{other:,.1f}" if other else "-"
        wanted = f"{sign} {target}" if target else "-"
        lines.append(f"| {name} | {unit} | {seen['sockerless']:,.1f} | {theirs} | {ratio} | {wanted} |")
    return "\n".join(lines)


def main() -> int:
    """Measures and prints; `--only` picks measures by a part of their name, `--json` keeps the medians."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wanted = [name for name in MEASURES if not options.only or any(part in name for part in options.only)]
    figures = [name for name in alone.FIGURES if not options.only or any(part in name for part in options.only)]
    print(f"{platform.machine()}, {platform.release()}, Python {platform.python_version()}")
    by_itself = alone.take(figures)
    by_backend = backends.take() if not options.only or "backends" in options.only else {}
    parts = list(hosted.FIGURES) if "hosted" in options.only or not options.only else []
    of_hosted = hosted.take(parts)
    medians: dict[str, dict[str, float]] = {}
    if wanted:
        with sockerless() as ours, dockerd() as other:
            if other is None:
                print("no dockerd on this machine (or not root): measured alone")
            medians = take([ours, other] if other else [ours], wanted)
    tables = [table(medians)] * bool(medians) + [alone.table(by_itself)] * bool(by_itself)
    tables += [backends.table(by_backend)] * bool(by_backend)
    tables += [hosted.table(of_hosted)] * bool(of_hosted)
    print("\n" + "\n\n".join(tables))
    if options.json:
        options.json.write_text(
            json.dumps(medians | {"alone": by_itself, "backends": by_backend, "hosted": of_hosted}, indent=1)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
