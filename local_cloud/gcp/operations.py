"""Long-running operations (google.longrunning.Operations), kept in the state file."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from typing import Any

from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from local_cloud.calls import Calls, OperationFault, operation_fault
from local_cloud.errors import ServiceError, invalid, not_found
from local_cloud.gcp.grpc_face import Message, unary
from local_cloud.state import State

_Operation: Any = operations_pb2.Operation
_Empty: Any = getattr(empty_pb2, "Empty")  # noqa: B009 - the class is made at run time
SERVICE = "google.longrunning.Operations"
_KEEP_SECONDS = 24 * 3600.0
_WAIT_LIMIT = 600.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS operations(
    id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, parent TEXT NOT NULL, done INTEGER NOT NULL, created REAL NOT
    NULL, body BLOB NOT NULL);
"""


class Operations:
    """All operations of the local cloud."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._waiting: dict[str, asyncio.Event] = {}
        self._faults: dict[str, OperationFault] = {}
        state.define(_SCHEMA)
        state.execute("DELETE FROM operations WHERE done AND created < ?", time.time() - _KEEP_SECONDS)

    def create(self, parent: str, metadata: Message) -> Message:
        """A new unfinished operation under `projects/P/locations/R`, its metadata set at once."""
        operation = _Operation(name=f"{parent}/operations/{uuid.uuid4()}")
        operation.metadata.Pack(metadata)
        self._state.execute(
            "INSERT INTO operations(name, parent, done, created, body) VALUES (?, ?, 0, ?, ?)",
            operation.name,
            parent,
            time.time(),
            operation.SerializeToString(),
        )
        fault = operation_fault()
        if fault is not None:
            self._faults[operation.name] = fault
        return operation

    def delayed(self, name: str) -> bool:
        """Whether a fault makes an operation take longer: whoever began it is not to wait for its end."""
        fault = self._faults.get(name)
        return fault is not None and fault.delay > 0

    async def begin(self, name: str) -> None:
        """Takes the time that a fault adds to an operation; raises the ServiceError that it is to end with.

        Called before the operation's work is done.
        """
        fault = self._faults.get(name)
        if fault is None:
            return
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.refusal is not None:
            raise fault.refusal

    def finish(
        self,
        name: str,
        response: Message | None = None,
        error: ServiceError | None = None,
        metadata: Message | None = None,
    ) -> Message | None:
        """Ends an operation with its response or its error. One that was deleted meanwhile stays deleted.

        `metadata`: its last metadata, where that is not the response itself.
        """
        fault = self._faults.pop(name, None)
        if fault is not None and fault.refusal is not None:
            error = fault.refusal
        row = self._state.one("SELECT body FROM operations WHERE name = ?", name)
        if row is None:
            return None
        operation = _Operation.FromString(row[0])
        operation.done = True
        if metadata is not None:
            operation.metadata.Pack(metadata)
        elif response is not None and error is None:
            operation.metadata.Pack(response)
        if error is not None:
            operation.error.code, operation.error.message = error.number, error.message
        elif response is not None:
            operation.response.Pack(response)
        self._state.execute(
            "UPDATE operations SET done = 1, body = ? WHERE name = ?", operation.SerializeToString(), name
        )
        waiting = self._waiting.pop(name, None)
        if waiting is not None:
            waiting.set()
        return operation

    def get(self, name: str) -> Message:
        """Operations.GetOperation."""
        row = self._state.one("SELECT body FROM operations WHERE name = ?", name)
        if row is None:
            not_found(f"Operation '{name}' not found.")
        return _Operation.FromString(row[0])

    async def wait(self, name: str, timeout: float) -> Message:
        """Operations.WaitOperation: the operation when it is done or the time (seconds) is over."""
        operation = self.get(name)
        if not operation.done:
            event = self._waiting.setdefault(name, asyncio.Event())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), timeout)
            operation = self.get(name)
        return operation

    def delete(self, name: str) -> None:
        """Operations.DeleteOperation: forgets the record; what it stands for goes on."""
        self.get(name)
        self._state.execute("DELETE FROM operations WHERE name = ?", name)

    def list(self, parent: str, page_size: int, page_token: str) -> tuple[list[Message], str]:
        """Operations.ListOperations, newest first."""
        size = min(page_size or 100, 1000)
        if page_size < 0 or (page_token and not page_token.isdecimal()):
            invalid("Invalid page_size or page_token.")
        before = int(page_token) if page_token else 1 << 62
        rows = self._state.all(
            "SELECT id, body FROM operations WHERE parent = ? AND id < ? ORDER BY id DESC LIMIT ?",
            parent,
            before,
            size + 1,
        )
        token = str(rows[size - 1][0]) if len(rows) > size else ""
        return [_Operation.FromString(body) for _, body in rows[:size]], token


def handlers(operations: Operations, calls: Calls) -> dict[str, Any]:
    """The gRPC methods of google.longrunning.Operations."""

    async def get(request: Message) -> Message:
        return operations.get(request.name)

    async def wait(request: Message) -> Message:
        seconds = request.timeout.ToMilliseconds() / 1000 if request.HasField("timeout") else _WAIT_LIMIT
        return await operations.wait(request.name, min(max(seconds, 0.0), _WAIT_LIMIT))

    async def delete(request: Message) -> Message:
        operations.delete(request.name)
        return _Empty()

    async def list_operations(request: Message) -> Message:
        found, token = operations.list(request.name.removesuffix("/operations"), request.page_size, request.page_token)
        return operations_pb2.ListOperationsResponse(operations=found, next_page_token=token)

    return {
        "GetOperation": unary(calls, "Operations.GetOperation", operations_pb2.GetOperationRequest, get),
        "WaitOperation": unary(calls, "Operations.WaitOperation", operations_pb2.WaitOperationRequest, wait),
        "DeleteOperation": unary(calls, "Operations.DeleteOperation", operations_pb2.DeleteOperationRequest, delete),
        "ListOperations": unary(
            calls, "Operations.ListOperations", operations_pb2.ListOperationsRequest, list_operations
        ),
    }
