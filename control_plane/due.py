"""When somebody has to look at a document again, told by the document alone.

The stores keep it beside the body and find by it what is due, so that a pass of the reconciler reads nothing else
(`Store.due`). It says only when to look, never what to do: that is decided by the document as read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from control_plane.timestamps import nanoseconds

ALWAYS = 0.0
"""Due in every pass."""


def due_of(collection: str, body: Mapping[str, Any]) -> float | None:
    """Unix seconds from when on the document is due; None: not before it is written again.

    A body that is none of the collection's is never due.
    """
    rule = _RULES.get(collection)
    if rule is None:
        return None
    try:
        return rule(body)
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


def _container(body: Mapping[str, Any]) -> float | None:
    """What `services.reconcile` looks at without being told that a gateway is gone or that all are to be looked at."""
    state, lease, agent = body["state"], body.get("lease"), body.get("agent")
    lease_ends = None if lease is None else float(lease["expires_at"])
    match state["status"]:
        case "starting":
            return ALWAYS  # agents that do not connect are given up by the clock
        case "restarting" | "removing":
            return lease_ends or ALWAYS
        case "created" | "exited":
            return lease_ends
        case "running" | "paused":
            if agent is None or not agent["connected"]:
                return ALWAYS  # nobody will report its end
            limit = body.get("run_limit", 0)
            return nanoseconds(state["started_at"]) / 1e9 + limit if limit > 0 else None
    return None


_RULES: Mapping[str, Callable[[Mapping[str, Any]], float | None]] = {"containers": _container}
