"""`-m` and `--cpus` as the sizes Cloud Run sells, always rounded up.

Source: Cloud Run documentation, "Configure CPU limits" and "Configure memory limits for jobs".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from control_plane.errors import InvalidParameter

MIB = 1024 * 1024
GIB = 1024 * MIB
MOST_MEMORY = 32 * GIB
LEAST_MEMORY = 512 * MIB
"""Of the second generation execution environment, which jobs run in."""
LEAST_MEMORY_OF_CPUS = {1: LEAST_MEMORY, 2: LEAST_MEMORY, 4: 2 * GIB, 6: 4 * GIB, 8: 4 * GIB}
"""What is sold: CPUs → the least memory that goes with them."""
MOST_MEMORY_OF_CPUS = {1: 4 * GIB, 2: 8 * GIB, 4: 16 * GIB, 6: 24 * GIB, 8: 32 * GIB}

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*(Ki|Mi|Gi|k|m|g|K|M|G|kb|mb|gb|KB|MB|GB|b|B)?$")
_UNITS = {"": 1, "b": 1, "k": 1024, "m": MIB, "g": GIB}


@dataclass(frozen=True, slots=True)
class Resources:
    """What a container asks for: CPUs in billionths, memory in bytes."""

    nano_cpus: int
    memory: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What the job gets."""

    cpus: int
    memory: int

    def as_cloud(self) -> dict[str, str]:
        """Kubernetes quantities."""
        mebibytes = self.memory // MIB
        memory = f"{mebibytes // 1024}Gi" if mebibytes % 1024 == 0 else f"{mebibytes}Mi"
        return {"cpu": str(self.cpus), "memory": memory}


def parse_size(text: str) -> int:
    """`512Mi`, `2g`, `1.5Gi` in bytes; units are powers of 1024, as Docker's are. Raises ValueError."""
    found = _SIZE.match(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a size such as 512Mi or 2Gi")
    return int(float(found.group(1)) * _UNITS[(found.group(2) or "").lower()[:1]])


def asked(host_config: Mapping[str, Any], default: Resources) -> Resources:
    """From Docker's `NanoCpus` (or `CpuQuota`/`CpuPeriod`) and `Memory`; 0 is "not given"."""
    nano = int(host_config.get("NanoCpus") or 0)
    quota = int(host_config.get("CpuQuota") or 0)
    if not nano and quota > 0:
        period = int(host_config.get("CpuPeriod") or 0) or 100_000
        nano = quota * 1_000_000_000 // period
    memory = int(host_config.get("Memory") or 0)
    return Resources(nano_cpus=nano or default.nano_cpus, memory=memory or default.memory)


def limits(wanted: Resources) -> Limits:
    """The smallest size sold that has at least what is wanted. Raises InvalidParameter naming the limit."""
    if wanted.nano_cpus > 8_000_000_000:
        raise InvalidParameter(
            f"--cpus {wanted.nano_cpus / 1_000_000_000:g} is more than Cloud Run has: "
            "8 CPUs are the most for a container"
        )
    if wanted.memory > MOST_MEMORY:
        raise InvalidParameter(
            f"--memory {wanted.memory / GIB:.4g}g is more than Cloud Run has: 32 GiB are the most for a container"
        )
    memory = max(-(-wanted.memory // MIB) * MIB, LEAST_MEMORY)
    cpus = next(
        count
        for count, most in MOST_MEMORY_OF_CPUS.items()
        if count * 1_000_000_000 >= wanted.nano_cpus and memory <= most
    )
    return Limits(cpus=cpus, memory=max(memory, LEAST_MEMORY_OF_CPUS[cpus]))
