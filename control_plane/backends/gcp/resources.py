"""`-m` and `--cpus` as the sizes Cloud Run sells, always rounded up.

Source: Cloud Run documentation, "Configure CPU limits" and "Configure memory limits for jobs".
"""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.backends.sizes import GIB, MIB, Resources
from control_plane.errors import InvalidParameter

MOST_MEMORY = 32 * GIB
LEAST_MEMORY = 512 * MIB
"""Of the second generation execution environment, which jobs run in."""
LEAST_MEMORY_OF_CPUS = {1: LEAST_MEMORY, 2: LEAST_MEMORY, 4: 2 * GIB, 6: 4 * GIB, 8: 4 * GIB}
"""What is sold: CPUs → the least memory that goes with them."""
MOST_MEMORY_OF_CPUS = {1: 4 * GIB, 2: 8 * GIB, 4: 16 * GIB, 6: 24 * GIB, 8: 32 * GIB}


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


def limits(wanted: Resources, title: str = "Cloud Run") -> Limits:
    """The smallest size sold that has at least what is wanted. Raises InvalidParameter naming the limit."""
    if wanted.nano_cpus > 8_000_000_000:
        raise InvalidParameter(
            f"--cpus {wanted.nano_cpus / 1_000_000_000:g} is more than {title} has: 8 CPUs are the most for a container"
        )
    if wanted.memory > MOST_MEMORY:
        raise InvalidParameter(
            f"--memory {wanted.memory / GIB:.4g}g is more than {title} has: 32 GiB are the most for a container"
        )
    memory = max(-(-wanted.memory // MIB) * MIB, LEAST_MEMORY)
    cpus = next(
        count
        for count, most in MOST_MEMORY_OF_CPUS.items()
        if count * 1_000_000_000 >= wanted.nano_cpus and memory <= most
    )
    return Limits(cpus=cpus, memory=max(memory, LEAST_MEMORY_OF_CPUS[cpus]))
