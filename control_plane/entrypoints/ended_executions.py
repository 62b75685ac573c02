"""Which containers a cloud's event is about: an execution has ended, an app was stopped.

They are looked for among those that are due (`control_plane/due.py`): an agent that is connected tells of the end
itself, and one that is not makes its container due. So an event reads no more than a pass of the reconciler does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_RUNS = frozenset({"starting", "running", "paused"})
_EXECUTION = re.compile(r"(?:^|/)executions/([a-z0-9-]{1,100})$")
_SITE = re.compile(r"/sites/([A-Za-z0-9-]{1,64})(?:/|$)", re.IGNORECASE)


def execution_of(data: Mapping[str, Any]) -> str:
    """The short name of the execution an audit log entry of Cloud Run is about; empty for another entry.

    `data` is a LogEntry: Cloud Run writes one to `cloudaudit.googleapis.com/system_event` when an execution has ended,
    with the execution in `protoPayload.resourceName` (`namespaces/PROJECT/executions/NAME`) and, whole, in
    `protoPayload.response`.
    """
    payload = data.get("protoPayload")
    if not isinstance(payload, Mapping):
        return ""
    found = _EXECUTION.search(str(payload.get("resourceName") or ""))
    if found is not None:
        return found[1]
    response = payload.get("response")
    metadata = response.get("metadata") if isinstance(response, Mapping) else None
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    kind = response.get("kind") if isinstance(response, Mapping) else None
    return str(name) if name and kind in (None, "Execution") else ""


def site_of(subject: str) -> str:
    """The name of the site an Event Grid event of App Service is about; empty for another."""
    found = _SITE.search(subject)
    return found[1] if found is not None else ""


def whose(documents: Iterable[Any], resource: str) -> list[tuple[str, str]]:
    """Tenant and id of the running containers whose execution has that short name, or belongs to that site."""
    if not resource:
        return []
    found = []
    for document in documents:
        body = document.body
        execution = body.get("execution")
        if not execution or body["state"]["status"] not in _RUNS:
            continue
        if resource in (str(execution.get("name")).rpartition("/")[2], execution.get("job")):
            found.append((document.tenant, body["id"]))
    return found
