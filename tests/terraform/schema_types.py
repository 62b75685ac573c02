"""The providers, and where their schemas and the modules lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TERRAFORM = REPOSITORY / "terraform"
SCHEMAS = Path(__file__).parent / "schemas"


@dataclass(frozen=True, slots=True)
class Provider:
    """A Terraform provider of hashicorp's, and the npm package that tells its schema."""

    name: str
    version: str
    package: str
    package_version: str


PROVIDERS = (
    Provider("google", "6.50.0", "@cdktf/provider-google", "16.12.1"),
    Provider("azurerm", "4.55.0", "@cdktf/provider-azurerm", "14.23.1"),
)
