"""CPU and memory as Cloud Run jobs sell them.

Facts: cloud.google.com/run/docs/configuring/jobs/{cpu,memory-limits}: 1 to 8 vCPU (below 1 only with several
containers); 512 MiB (second generation) to 32 GiB; each CPU size has its memory range. The service's texts are those
of public
reports.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import NoReturn

from local_cloud.errors import invalid

QUANTITY = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(m|k|K|M|G|T|Ki|Mi|Gi|Ti)?")
MEMORY_UNITS = {
    "": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
}  # fmt: skip
_MIB, _GIB = 1 << 20, 1 << 30
MEMORY_OF = {1: (512 * _MIB, 4 * _GIB), 2: (512 * _MIB, 8 * _GIB), 4: (2 * _GIB, 16 * _GIB), 6: (4 * _GIB, 24 * _GIB),
              8: (4 * _GIB, 32 * _GIB)}  # fmt: skip
DEFAULT_CPU, DEFAULT_MEMORY = "1000m", "512Mi"


_GEN2_ONLY = "not supported with gen2 execution environment with cpu always allocated (unthrottled)."


def check_limits(limits: Mapping[str, str], path: str) -> tuple[float, int]:
    """CPUs and bytes of `resources.limits`; raises ServiceError INVALID_ARGUMENT for what the service refuses."""
    for key in limits:
        if key == "nvidia.com/gpu":
            invalid(f"{path}.resources.limits.{key}: GPUs are not served by the local cloud.")
        if key not in ("cpu", "memory"):
            invalid(
                f"{path}.resources.limits.{key}: Invalid resource. Supported resources: cpu, memory, nvidia.com/gpu."
            )
    cpus = _cpu(limits.get("cpu") or DEFAULT_CPU, path)
    return float(cpus), _memory(limits.get("memory") or DEFAULT_MEMORY, cpus, path)


def defaults(limits: dict[str, str] | Mapping[str, str]) -> dict[str, str]:
    """The limits a job without them gets."""
    return {"cpu": limits.get("cpu") or DEFAULT_CPU, "memory": limits.get("memory") or DEFAULT_MEMORY}


def _cpu(text: str, path: str) -> int:
    match = QUANTITY.fullmatch(text)
    if match is None or match[2] not in (None, "m"):
        _refuse(path, "cpu", f"Could not parse '{text}' as a quantity.")
    cpus = Decimal(match[1]) / (1000 if match[2] else 1)
    if cpus < 1:
        _refuse(
            path,
            "cpu",
            f"Total cpu < 1 is {_GEN2_ONLY}",
        )
    if cpus not in (1, 2, 4, 6, 8):
        _refuse(
            path, "cpu", f"For the specified value, cpu must be one of 1, 2, 4, 6 or 8 but got {cpus.normalize():f}."
        )
    return int(cpus)


def _memory(text: str, cpus: int, path: str) -> int:
    match = QUANTITY.fullmatch(text)
    if match is None or match[2] == "m":
        _refuse(path, "memory", f"Could not parse '{text}' as a quantity.")
    size = int(Decimal(match[1]) * MEMORY_UNITS[match[2] or ""])
    if size < 512 * _MIB:
        _refuse(
            path,
            "memory",
            f"Total memory < 512 Mi is {_GEN2_ONLY}",
        )
    low, high = MEMORY_OF[cpus]
    if not low <= size <= high:
        _refuse(
            path, "memory", f"For {cpus}.0 CPU, memory must be between {display(low)} and {display(high)} inclusive."
        )
    return size


def display(size: int) -> str:
    """A size as the service writes it."""
    return f"{size // _GIB}Gi" if size % _GIB == 0 else f"{size // _MIB}Mi"


def _refuse(path: str, resource: str, reason: str) -> NoReturn:
    invalid(f"{path}.resources.limits.{resource}: Invalid value specified for {resource}. {reason}")
