"""How the endpoint stands: what `sockerless status` shows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from control_plane.backends.base import Backend
from control_plane.store.base import Store
from control_plane.version import API_VERSION, VERSION

Json = dict[str, Any]


async def standing(store: Store, backends: Mapping[str, Backend], default_backend: str, tenant: str | None) -> Json:
    """`tenant` None: for the operator. A tenant sees its own containers, and of gateways not how busy they are, which
    would tell of other tenants."""
    began = time.perf_counter()
    gateways = await store.list("gateways")
    milliseconds = round((time.perf_counter() - began) * 1000, 1)
    statuses = Counter(document.body["state"]["status"] for document in await store.list("containers", tenant))
    return {
        "Version": VERSION,
        "ApiVersion": API_VERSION,
        "Backends": {name: backend.capabilities.title for name, backend in sorted(backends.items())},
        "DefaultBackend": default_backend,
        "Store": {"Kind": type(store).__name__, "Milliseconds": milliseconds},
        "Gateways": [_gateway(document.body, load=tenant is None) for document in gateways],
        "Containers": dict(sorted(statuses.items())),
        "Tenant": tenant,
    }


def _gateway(body: Mapping[str, Any], *, load: bool) -> Json:
    shown: Json = {
        "Url": str(body.get("url", "")),
        "LeaseSeconds": round(float(body.get("lease_until", 0)) - time.time(), 1),
        "Draining": bool(body.get("draining")),
    }
    return {**shown, "Agents": int(body.get("load", 0))} if load else shown
