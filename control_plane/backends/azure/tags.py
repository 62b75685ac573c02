"""Names and tags of our Azure resources. Tag values may have 256 characters; a site's name is one DNS label of 60."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

MANAGED_BY = "managed-by"
OURS = "sockerless"
ENDPOINT = "sockerless-endpoint"
TENANT = "sockerless-tenant"
CONTAINER = "sockerless-container"
TEMPLATE = "sockerless-template"
CREATED = "sockerless-created"
"""Unix seconds: App Service does not tell when a site was made."""


def resource_name(container: str) -> str:
    """Of a container's site and plan: `skls-` and the first twelve digits of the container's id."""
    return f"skls-{container[:12]}"


def tags(endpoint: str, tenant: str, container: str, template: str = "") -> dict[str, str]:
    """The tags of one resource of a container."""
    found = {
        MANAGED_BY: OURS,
        ENDPOINT: _value(endpoint),
        TENANT: _value(tenant),
        CONTAINER: container,
        CREATED: str(int(time.time())),
    }
    return found | ({TEMPLATE: template} if template else {})


def is_ours(found: Mapping[str, str] | None, endpoint: str) -> bool:
    """Whether a resource was made by this endpoint."""
    return found is not None and found.get(MANAGED_BY) == OURS and found.get(ENDPOINT) == _value(endpoint)


def created_at(found: Mapping[str, str]) -> float:
    """Unix seconds; 0 where nothing tells."""
    text = found.get(CREATED, "")
    return float(text) if text.isdecimal() else 0.0


def fingerprint(shape: Any) -> str:
    """Twenty digits that stand for a resource's whole content."""
    text = json.dumps(shape, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _value(text: str) -> str:
    """At most 256 characters, different for different texts."""
    if len(text) <= 256:
        return text
    return f"{text[:200]}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
