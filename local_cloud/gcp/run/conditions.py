"""The conditions that jobs, executions and tasks carry."""

from __future__ import annotations

import time
from typing import Any

from google.cloud import run_v2

_State = run_v2.Condition.State
_Execution = run_v2.Condition.ExecutionReason
_Common = run_v2.Condition.CommonReason

PENDING = int(_State.CONDITION_PENDING)
RECONCILING = int(_State.CONDITION_RECONCILING)
FAILED = int(_State.CONDITION_FAILED)
SUCCEEDED = int(_State.CONDITION_SUCCEEDED)

NON_ZERO_EXIT_CODE = int(_Execution.NON_ZERO_EXIT_CODE)
CANCELLED = int(_Execution.CANCELLED)
CANCELLING = int(_Execution.CANCELLING)
DELETED = int(_Execution.DELETED)
DELAYED_START_PENDING = int(_Execution.DELAYED_START_PENDING)
CONTAINER_MISSING = int(_Common.CONTAINER_MISSING)
INTERNAL = int(_Common.INTERNAL)


def put(message: Any, kind: str, state: int, text: str = "", *, execution_reason: int = 0, reason: int = 0) -> None:
    """Sets the condition of a kind (`Completed`, `Started`, `ResourcesAvailable`) on an execution or a task."""
    for condition in message.conditions:
        if condition.type_ == kind:
            condition.Clear()
            break
    else:
        condition = message.conditions.add()
    fill(condition, kind, state, text, execution_reason=execution_reason, reason=reason)


def fill(condition: Any, kind: str, state: int, text: str = "", *, execution_reason: int = 0, reason: int = 0) -> None:
    """Writes one condition."""
    condition.type_, condition.state, condition.message = kind, state, text
    condition.last_transition_time.FromNanoseconds(time.time_ns())
    if execution_reason:
        condition.execution_reason = execution_reason
    elif reason:
        condition.reason = reason
