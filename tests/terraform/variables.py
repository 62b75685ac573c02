"""What each role reads from its environment, told by the classes that read it; and what the modules give it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic_settings import BaseSettings

import agent_gateway.entrypoint
from control_plane.auth.settings import AccessSettings
from control_plane.backends.azure_functions.settings import AzureFunctionsSettings
from control_plane.backends.cloud_functions.settings import CloudFunctionsSettings
from control_plane.backends.cloud_run.settings import CloudRunSettings
from control_plane.entrypoints.hosted_settings import HostedSettings
from tests.terraform.schema_types import TERRAFORM

_ASSIGNED = re.compile(r"^\s+([A-Z][A-Z0-9_]{3,})\s+= (.+)$|[{,] ([A-Z][A-Z0-9_]{3,})\s+= ([^{}]+?) [},]", re.MULTILINE)
_NAMED = re.compile(r"^- (.*?): (.+?)$", re.MULTILINE)
_FOREIGN = {"AZURE_CLIENT_ID": "Client id of the identity that azure-identity uses."}
_KEY = {"SOCKERLESS_KEY": "The endpoint's signing key.", "SOCKERLESS_KEY_FILE": "File with the signing key."}


def of_classes(classes: Iterable[type[BaseSettings]]) -> dict[str, str]:
    """Variable → description."""
    return {
        str(field.validation_alias): field.description or ""
        for cls in classes
        for field in cls.model_fields.values()
        if field.validation_alias
    }


def of_gateway() -> dict[str, str]:
    """Variable → description, from the gateway's own documentation."""
    found = {}
    for names, text in _NAMED.findall(agent_gateway.entrypoint.__doc__ or ""):
        for name in re.findall(r"`(\w+)`", names):
            found[name] = text[0].upper() + text[1:]
    return {**found, **_KEY}


def known(cloud: str) -> dict[str, str]:
    """What a control plane in that cloud reads."""
    backends: dict[str, list[type[BaseSettings]]] = {
        "gcp": [CloudRunSettings, CloudFunctionsSettings],
        "azure": [AzureFunctionsSettings],
    }
    return {**of_classes([HostedSettings, AccessSettings, *backends[cloud]]), **_FOREIGN}


def given(cloud: str) -> tuple[dict[str, str], dict[str, str]]:
    """What the cloud's module gives to a control plane and to a gateway: variable → Terraform's expression."""
    text = (TERRAFORM / "modules" / cloud / "main.tf").read_text()
    control, gateway = text.split("  gateway_environment = {", 1)
    gateway += (TERRAFORM / "modules" / cloud / "direct" / "main.tf").read_text()
    secrets = {"SOCKERLESS_KEY": "the secret `signing-key`"}
    return {**_assigned(control), **secrets}, {**_assigned(gateway), **secrets}


def _assigned(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value, inline, inline_value in _ASSIGNED.findall(text):
        found.setdefault(name or inline, f"`{(value or inline_value).strip()}`")
    return found
