"""The Azure Functions app: timers for the reconciler and the sweeper, Event Grid, the Docker API for short calls.

This file and `host.json` are the app's root; the distribution is among its requirements. The API's authorisation is the
endpoint's own (tokens), so the host asks for no function key.
"""

from __future__ import annotations

import logging
import time

import azure.functions as func

from control_plane.entrypoints.ended_executions import site_of, whose
from control_plane.entrypoints.function_host import FunctionHost

_log = logging.getLogger("sockerless.functions")

_EVERY_MINUTE = "0 * * * * *"
_EVERY_QUARTER = "0 */15 * * * *"

host = FunctionHost()
app = func.AsgiFunctionApp(app=host.api, http_auth_level=func.AuthLevel.ANONYMOUS, function_name="api")


@app.function_name("reconcile")
@app.timer_trigger(arg_name="timer", schedule=_EVERY_MINUTE, run_on_startup=False, use_monitor=True)
async def reconcile(timer: func.TimerRequest) -> None:
    """One pass of the reconciler. One that is late is run all the same: it looks at what is, not at when it was."""
    await (await host.control_plane()).reconcile()


@app.function_name("sweep")
@app.timer_trigger(arg_name="timer", schedule=_EVERY_QUARTER, run_on_startup=False, use_monitor=True)
async def sweep(timer: func.TimerRequest) -> None:
    """One sweep for cloud resources of nobody."""
    await (await host.control_plane()).sweep()


@app.function_name("site_changed")
@app.event_grid_trigger(arg_name="event")
async def site_changed(event: func.EventGridEvent) -> None:
    """Looks at the container whose app has stopped or restarted. Repeatable: an event may come twice."""
    name = site_of(event.subject)
    if not name:
        _log.info("an event of type %s names no site", event.event_type)
        return
    control_plane = await host.control_plane()
    found = whose(await control_plane.store.due("containers", time.time()), name)
    for tenant, container in found:
        await control_plane.look_at(tenant, container)
    _log.info("site %s: %d containers looked at", name, len(found))
