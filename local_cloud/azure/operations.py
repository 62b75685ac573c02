"""Asynchronous operations of Resource Manager: 202, then a status to poll, kept in the state file.

An operation's work is done when its time has come, so a restart in between loses nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse, Response

from local_cloud.azure import errors
from local_cloud.azure.arm_face import Action, ArmCall, action
from local_cloud.azure.errors import ArmError
from local_cloud.azure.names import SUBSCRIPTION
from local_cloud.calls import operation_fault
from local_cloud.errors import ServiceError
from local_cloud.state import State

_log = logging.getLogger(__name__)
_KEEP_SECONDS = 24 * 3600.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS arm_operations(
    id TEXT PRIMARY KEY, work TEXT NOT NULL, resource TEXT NOT NULL, arguments TEXT NOT NULL, begun REAL NOT NULL,
    due REAL NOT NULL, ended REAL, doomed TEXT NOT NULL, error TEXT NOT NULL,
    result TEXT NOT NULL);
"""
Performer = Callable[[dict[str, Any]], dict[str, Any]]
"""Does an operation's work; returns the resource as it then is."""


class Operations:
    """All asynchronous operations of the local cloud. `delay`: seconds that each takes."""

    def __init__(self, state: State, delay: float) -> None:
        self._state = state
        self._delay = delay
        self._performers: dict[str, Performer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        state.define(_SCHEMA)
        state.execute("DELETE FROM arm_operations WHERE ended IS NOT NULL AND begun < ?", time.time() - _KEEP_SECONDS)

    def serve(self, work: str, performer: Performer) -> None:
        """Names what does the work of a kind of operation."""
        self._performers[work] = performer

    def run(self, call: ArmCall, work: str, resource: str, arguments: dict[str, Any]) -> Response:
        """Does the work: at once (200), or when its time has come (202)."""
        fault = operation_fault()
        delay = self._delay + (fault.delay if fault else 0.0)
        doomed = fault.error if fault else ""
        if not delay and not doomed:
            return JSONResponse(self._performers[work](arguments))
        number, now = str(uuid.uuid4()), time.time()
        self._state.execute(
            "INSERT INTO arm_operations VALUES (?, ?, ?, ?, ?, ?, NULL, ?, '', '')",
            number,
            work,
            resource,
            json.dumps(arguments),
            now,
            now + delay,
            doomed,
        )
        self._wait(number, now + delay)
        return JSONResponse(
            {"id": resource, "name": resource.rpartition("/")[2], "properties": {"provisioningState": "InProgress"}},
            202,
            headers=_places(call, number) | {"Retry-After": _retry_after(delay)},
        )

    def actions(self) -> list[Action]:
        """The polls."""
        return [
            action("GET", "*operations/{name}", "ArmOperations.Get", self.status),
            action("GET", "*operationresults/{name}", "ArmOperations.Get", self.result),
        ]

    async def status(self, call: ArmCall) -> Response:
        """What `Azure-AsyncOperation` leads to: always 200, with the status."""
        row = self._row(call.name)
        due, begun, ended, error = row[0], row[1], row[2], json.loads(row[3] or "null")
        state = "InProgress" if ended is None else "Failed" if error else "Succeeded"
        place = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Web/operations/{call.name}"
        body: dict[str, Any] = {"id": place, "name": call.name, "status": state, "startTime": _time(begun)}
        if ended is None:
            return JSONResponse(body, headers={"Retry-After": _retry_after(due - time.time())})
        body["endTime"] = _time(ended)
        if error:
            body["error"] = {"code": error["code"], "message": error["message"]}
        return JSONResponse(body)

    async def result(self, call: ArmCall) -> Response:
        """What `Location` leads to: 202 until it is done, then the resource or the error."""
        due, _, ended, error, result = self._row(call.name)
        if ended is None:
            places = _places(call, call.name) | {"Retry-After": _retry_after(due - time.time())}
            return Response(status_code=202, headers=places)
        if error:
            said = json.loads(error)
            raise ArmError(said["status"], said["code"], said["message"])
        return JSONResponse(json.loads(result))

    def _row(self, number: str) -> tuple[Any, ...]:
        row = self._state.one(
            "SELECT due, begun, ended, error, result FROM arm_operations WHERE id = ?", number.lower()
        )
        if row is None:
            raise ArmError(404, "NotFound", f"Cannot find operation with name {number}.")
        return row

    # --- the work

    def resume(self) -> None:
        """Takes up what an earlier process had begun."""
        for number, due in self._state.all("SELECT id, due FROM arm_operations WHERE ended IS NULL"):
            self._wait(number, due)

    async def detach(self) -> None:
        """Stops waiting; `resume` takes it up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _wait(self, number: str, due: float) -> None:
        task = asyncio.get_running_loop().create_task(self._finish(number, due))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, number: str, due: float) -> None:
        await asyncio.sleep(max(due - time.time(), 0.0))
        row = self._state.one("SELECT work, arguments, doomed FROM arm_operations WHERE id = ?", number)
        if row is None:
            return
        work, arguments, doomed = row
        error: ArmError | None = None
        result: dict[str, Any] = {}
        try:
            if doomed:
                raise ServiceError(doomed, "The operation fails because the local cloud was told to.")
            result = self._performers[work](json.loads(arguments))
        except ArmError as refused:
            error = refused
        except ServiceError as refused:
            error = errors.azure_error(refused)
        except Exception:
            _log.exception("operation %s failed", work)
            error = ArmError(500, "InternalServerError", "There was an unexpected InternalServerError.")
        said = {"status": error.status, "code": error.code, "message": error.message} if error else None
        self._state.execute(
            "UPDATE arm_operations SET ended = ?, error = ?, result = ? WHERE id = ?",
            time.time(),
            json.dumps(said) if said else "",
            json.dumps(result),
            number,
        )


def _places(call: ArmCall, number: str) -> dict[str, str]:
    base = f"{call.base_url}/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Web"
    version = f"?api-version={call.api_version}"
    return {
        "Azure-AsyncOperation": f"{base}/operations/{number}{version}",
        "Location": f"{base}/operationResults/{number}{version}",
    }


def _retry_after(seconds: float) -> str:
    return str(min(max(math.ceil(seconds), 1), 15))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
