"""Targets of functions-framework: Cloud Run's events, the schedule, and the Docker API for short calls.

`functions-framework --source=control_plane/entrypoints/gcp_functions.py --target=execution_finished` (Eventarc, type
`google.cloud.audit.log.v1.written`), `--target=reconcile`, `--target=sweep` (Cloud Scheduler, HTTP), `--target=api`.
Whoever may call them is a matter of IAM (`roles/run.invoker`); `api` asks for the endpoint's own tokens besides.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import functions_framework.aio as framework

from control_plane.entrypoints.ended_executions import execution_of, whose
from control_plane.entrypoints.function_host import FunctionHost

if TYPE_CHECKING:
    from cloudevents.http.event import CloudEvent
    from starlette.requests import Request

_log = logging.getLogger("sockerless.functions")

_host = FunctionHost()
_done = ("done\n", 200)


@framework.cloud_event
async def execution_finished(event: CloudEvent) -> None:
    """Looks at the container whose execution has ended. Repeatable: Eventarc may send an event twice."""
    data = event.get_data()
    name = execution_of(data) if isinstance(data, Mapping) else ""
    if not name:
        _log.info("an event of type %s names no execution", event["type"])
        return
    control_plane = await _host.control_plane()
    found = whose(await control_plane.store.due("containers", time.time()), name)
    for tenant, container in found:
        await control_plane.look_at(tenant, container)
    _log.info("execution %s has ended: %d containers looked at", name, len(found))


@framework.http
async def reconcile(request: Request) -> tuple[str, int]:
    """One pass of the reconciler."""
    await (await _host.control_plane()).reconcile()
    return _done


@framework.http
async def sweep(request: Request) -> tuple[str, int]:
    """One sweep for cloud resources of nobody."""
    await (await _host.control_plane()).sweep()
    return _done


@framework.http
async def api(request: Request) -> Any:
    """The Docker API for short calls; 501 for the rest. The framework calls what it is given as an ASGI app."""
    return _host.api
