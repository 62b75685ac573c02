"""CPU and memory as Cloud Run services sell them: fractions of a CPU too.

Facts: cloud.google.com/run/docs/configuring/services/{cpu,memory-limits,billing-settings}: 0.08 to 1 vCPU with one
request at a time and billed by request, else 1, 2, 4, 6 or 8; 128 MiB to 32 GiB, at least 512 MiB in the second
generation or while the CPU is always allocated. The texts are those of public reports, as far as there are any.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import NoReturn

from local_cloud.errors import invalid
from local_cloud.gcp.run.resources import DEFAULT_CPU, DEFAULT_MEMORY, MEMORY_OF, MEMORY_UNITS, QUANTITY, display

_MIB = 1 << 20
_SMALLEST_CPU, _SMALLEST_MEMORY = Decimal("0.08"), 128 * _MIB


def check_limits(
    limits: Mapping[str, str], path: str, *, concurrency: int, always_allocated: bool, second_generation: bool
) -> tuple[float, int]:
    """CPUs and bytes of `resources.limits`; raises ServiceError INVALID_ARGUMENT for what the service refuses.

    `concurrency` 0 means that it was not given.
    """
    for key in limits:
        if key == "nvidia.com/gpu":
            invalid(f"{path}.resources.limits.{key}: GPUs are not served by the local cloud.")
        if key not in ("cpu", "memory"):
            invalid(
                f"{path}.resources.limits.{key}: Invalid resource. Supported resources: cpu, memory, nvidia.com/gpu."
            )
    cpus = _cpu(limits.get("cpu") or DEFAULT_CPU, path)
    if cpus < 1:
        _check_fraction(path, concurrency, always_allocated=always_allocated, second_generation=second_generation)
    memory = _memory(limits.get("memory") or DEFAULT_MEMORY, path)
    if memory < 512 * _MIB and (always_allocated or second_generation):
        kind = _kind(always_allocated=always_allocated, second_generation=second_generation)
        _refuse(path, "memory", f"Total memory < 512 Mi is not supported with {kind}.")
    low, high = _range(cpus)
    if not low <= memory <= high:
        text = f"For {float(cpus)} CPU, memory must be between {display(low)} and {display(high)} inclusive."
        _refuse(path, "memory", text)
    return float(cpus), memory


def amount(text: str) -> Decimal | None:
    """A quantity's number of bytes (or CPUs); None for what is none."""
    match = QUANTITY.fullmatch(text)
    if match is None:
        return None
    return Decimal(match[1]) / 1000 if match[2] == "m" else Decimal(match[1]) * MEMORY_UNITS[match[2] or ""]


def _kind(*, always_allocated: bool, second_generation: bool) -> str:
    always = "cpu always allocated (unthrottled)"
    if not second_generation:
        return always
    return "gen2 execution environment" + (f" with {always}" if always_allocated else "")


def _check_fraction(path: str, concurrency: int, *, always_allocated: bool, second_generation: bool) -> None:
    if concurrency > 1:
        _refuse(path, "cpu", "Total cpu < 1 is not supported with concurrency > 1.")
    if always_allocated or second_generation:
        kind = _kind(always_allocated=always_allocated, second_generation=second_generation)
        _refuse(path, "cpu", f"Total cpu < 1 is not supported with {kind}.")


def _cpu(text: str, path: str) -> Decimal:
    match = QUANTITY.fullmatch(text)
    if match is None or match[2] not in (None, "m"):
        _refuse(path, "cpu", f"Could not parse '{text}' as a quantity.")
    cpus = Decimal(match[1]) / (1000 if match[2] else 1)
    if cpus < _SMALLEST_CPU:
        _refuse(path, "cpu", f"cpu must be at least {_SMALLEST_CPU} but got {cpus.normalize():f}.")
    if cpus > 1 and cpus not in (2, 4, 6, 8):
        text = f"For the specified value, cpu must be one of 1, 2, 4, 6 or 8 but got {cpus.normalize():f}."
        _refuse(path, "cpu", text)
    return cpus


def _memory(text: str, path: str) -> int:
    size = amount(text)
    if size is None or text.endswith("m"):
        _refuse(path, "memory", f"Could not parse '{text}' as a quantity.")
    return int(size)


def _range(cpus: Decimal) -> tuple[int, int]:
    if cpus < Decimal("0.5"):
        return _SMALLEST_MEMORY, 512 * _MIB
    if cpus < 1:
        return _SMALLEST_MEMORY, 1024 * _MIB
    low, high = MEMORY_OF[int(cpus)]
    return (_SMALLEST_MEMORY if cpus <= 2 else low), high


def _refuse(path: str, resource: str, reason: str) -> NoReturn:
    invalid(f"{path}.resources.limits.{resource}: Invalid value specified for {resource}. {reason}")
