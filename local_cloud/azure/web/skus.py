"""The sizes of App Service plans, and what each may run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from local_cloud.azure import errors

_GIB = 1 << 30
_TIERS = {
    "EP": "ElasticPremium",
    "B": "Basic",
    "S": "Standard",
    "F": "Free",
    "D": "Shared",
    "Y": "Dynamic",
    "FC": "FlexConsumption",
    "Pv2": "PremiumV2",
    "Pv3": "PremiumV3",
    "Pmv3": "PremiumMV3",
}
# vCPUs and GiB of one worker (App Service's and Functions' pricing pages).
_SIZES = {
    "EP1": (1, 3.5), "EP2": (2, 7.0), "EP3": (4, 14.0),
    "B1": (1, 1.75), "B2": (2, 3.5), "B3": (4, 7.0),
    "S1": (1, 1.75), "S2": (2, 3.5), "S3": (4, 7.0),
    "P1v2": (1, 3.5), "P2v2": (2, 7.0), "P3v2": (4, 14.0),
    "P0v3": (1, 4.0), "P1v3": (2, 8.0), "P2v3": (4, 16.0), "P3v3": (8, 32.0),
    "P1mv3": (2, 16.0), "P2mv3": (4, 32.0), "P3mv3": (8, 64.0), "P4mv3": (16, 128.0), "P5mv3": (32, 256.0),
    "F1": (1, 1.0), "D1": (1, 1.0), "Y1": (1, 1.5), "FC1": (1, 2.0),
}  # fmt: skip
_NAME = re.compile(r"([A-Za-z]+)\d(m?v\d)?")
NO_CONTAINERS = frozenset({"Dynamic", "FlexConsumption", "Free", "Shared"})
"""Tiers whose workers run no container of a user's."""


@dataclass(frozen=True, slots=True)
class Sku:
    """One size."""

    name: str
    tier: str
    family: str
    cpus: float
    memory_bytes: int

    def body(self, capacity: int) -> dict[str, Any]:
        """The `sku` of a plan."""
        return {"name": self.name, "tier": self.tier, "size": self.name, "family": self.family, "capacity": capacity}


def sku(wanted: Any) -> Sku:
    """The size that a plan's `sku` names; raises ArmError."""
    asked = wanted.get("name") or wanted.get("size") if isinstance(wanted, dict) else None
    names = {name.lower(): name for name in _SIZES}
    name = names.get(str(asked).lower())
    if name is None:
        raise errors.invalid_parameter("sku.name")
    match = _NAME.fullmatch(name)
    assert match is not None
    tier, (cpus, memory) = _TIERS[match[1] + (match[2] or "")], _SIZES[name]
    if str(wanted.get("tier") or tier).lower() != tier.lower():
        raise errors.invalid_parameter("sku.tier")
    return Sku(name, tier, match[1] + (match[2] or ""), float(cpus), int(memory * _GIB))
