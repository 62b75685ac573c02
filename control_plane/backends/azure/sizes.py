"""`-m` and `--cpus` as the App Service plans that are sold, always rounded up.

Source: Azure Functions documentation, "Premium plan: available instance SKUs"; App Service pricing.
"""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.backends.sizes import GIB, Resources
from control_plane.errors import InvalidParameter


@dataclass(frozen=True, slots=True)
class Sku:
    """One size of machine, as a plan names it."""

    name: str
    tier: str
    family: str
    cpus: int
    memory: int

    @property
    def elastic(self) -> bool:
        """Functions Premium: the platform keeps instances ready; else a dedicated plan with Always On."""
        return self.tier == "ElasticPremium"


def _skus(tier: str, family: str, *sizes: tuple[str, int, float]) -> tuple[Sku, ...]:
    return tuple(Sku(name, tier, family, cpus, int(memory * GIB)) for name, cpus, memory in sizes)


_FAMILIES = (
    _skus("ElasticPremium", "EP", ("EP1", 1, 3.5), ("EP2", 2, 7), ("EP3", 4, 14)),
    _skus("PremiumV3", "Pv3", ("P0v3", 1, 4), ("P1v3", 2, 8), ("P2v3", 4, 16), ("P3v3", 8, 32)),
    _skus("Basic", "B", ("B1", 1, 1.75), ("B2", 2, 3.5), ("B3", 4, 7)),
)
SKUS = {sku.name: sku for family in _FAMILIES for sku in family}
"""Smallest first within a family."""


def size(wanted: Resources, least: Sku) -> Sku:
    """The smallest size of `least`'s family, from it on, that has what is wanted (0: not asked for).

    Raises InvalidParameter naming the limit.
    """
    family = next(family for family in _FAMILIES if least in family)
    fits = [sku for sku in family if sku.cpus * 1_000_000_000 >= wanted.nano_cpus and sku.memory >= wanted.memory]
    largest = family[-1]
    if wanted.nano_cpus > largest.cpus * 1_000_000_000:
        raise InvalidParameter(
            f"--cpus {wanted.nano_cpus / 1_000_000_000:g} is more than an Azure {least.family} plan has: "
            f"{largest.cpus} CPUs ({largest.name}) are the most for a container"
        )
    if not fits:
        raise InvalidParameter(
            f"--memory {wanted.memory / GIB:.4g}g is more than an Azure {least.family} plan has: "
            f"{largest.memory / GIB:g} GiB ({largest.name}) are the most for a container"
        )
    return max(fits[0], least, key=family.index)
