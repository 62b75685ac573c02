"""Names and labels of our cloud resources, within what Google allows.

Label keys and values: at most 63 of lower-case letters, digits, `_` and `-`. Job ids: at most 63, a letter first.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

MANAGED_BY = "managed-by"
OURS = "sockerless"
ENDPOINT = "sockerless-endpoint"
TENANT = "sockerless-tenant"
TEMPLATE = "sockerless-template"
CONTAINER = "sockerless-container"
"""On jobs that belong to one container: the first 32 digits of its id (an id has one too many for a label)."""

_ID_DIGITS = 32
_NOT_ALLOWED = re.compile(r"[^a-z0-9_-]")


def label_value(text: str) -> str:
    """A label value that is different for different texts: what had to be changed gets a digest."""
    plain = _NOT_ALLOWED.sub("-", text.lower())[:63]
    if plain == text:
        return plain
    return f"{plain[:50]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def labels(endpoint: str, tenant: str, template: str, container: str = "") -> dict[str, str]:
    """The labels of a job and its executions."""
    found = {
        MANAGED_BY: OURS,
        ENDPOINT: label_value(endpoint),
        TENANT: label_value(tenant),
        TEMPLATE: template,
    }
    if container:
        found[CONTAINER] = container_value(container)
    return found


def container_value(container: str) -> str:
    """The label value of a container id."""
    return container[:_ID_DIGITS]


def is_ours(found: Mapping[str, str], endpoint: str) -> bool:
    """Whether a resource was made by this endpoint."""
    return found.get(MANAGED_BY) == OURS and found.get(ENDPOINT) == label_value(endpoint)


def fingerprint(shape: Any) -> str:
    """Twenty digits that stand for a job's whole content."""
    text = json.dumps(shape, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def template_job(digest: str) -> str:
    """Id of a job shared by all containers of one image and shape."""
    return f"sockerless-{digest}"


def container_job(container: str, digest: str = "") -> str:
    """Id of a job that belongs to one container."""
    return f"sockerless-{container[:12]}" + (f"-{digest[:8]}" if digest else "")
