"""The one subscription of the local cloud, and how Azure writes the names of what is in it."""

from __future__ import annotations

TENANT = "00000000-0000-0000-0000-000000000002"
SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
WORKSPACE = "00000000-0000-0000-0000-000000000001"
STORAGE_ACCOUNT = "local"
PRINCIPAL = "00000000-0000-0000-0000-000000000003"
"""The object id of the identity that the local tokens are of."""
SITE_SUFFIX = ".azurewebsites.net"


def resource_id(group: str, kind: str, name: str) -> str:
    """The id of a `Microsoft.Web` resource; `kind` is `sites` or `serverfarms`."""
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.Web/{kind}/{name}"
