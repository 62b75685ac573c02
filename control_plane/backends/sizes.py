"""`-m` and `--cpus` as they are given: what a container asks for, before a platform rounds it up to what it sells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MIB = 1024 * 1024
GIB = 1024 * MIB

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*(Ki|Mi|Gi|k|m|g|K|M|G|kb|mb|gb|KB|MB|GB|b|B)?$")
_UNITS = {"": 1, "b": 1, "k": 1024, "m": MIB, "g": GIB}


@dataclass(frozen=True, slots=True)
class Resources:
    """What a container asks for: CPUs in billionths, memory in bytes."""

    nano_cpus: int
    memory: int


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
