"""Faults on demand: read strictly, drawn on their own, and handed to the operation that a call begins."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from local_cloud import admin
from local_cloud.calls import Calls, OperationFault, operation_fault
from local_cloud.errors import ServiceError
from local_cloud.faults import Fault, parse_faults


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ([], "want an object"),
        ({"Jobs.*": 1}, "Jobs.*: a fault is an object"),
        ({"Jobs.*": [{}, "no"]}, "Jobs.*[1]: a fault is an object"),
        ({"Jobs.*": {"dely": 1}}, "unknown key 'dely'"),
        ({"Jobs.*": {"status": "NONSENSE"}}, "unknown status 'NONSENSE'"),
        ({"Jobs.*": {"status": "OK"}}, "unknown status 'OK'"),
        ({"Jobs.*": {"status": 14}}, "unknown status 14"),
        ({"Jobs.*": {"status": ["x"]}}, "unknown status"),
        ({"Jobs.*": {"operation_error": "BROKEN"}}, "unknown operation_error 'BROKEN'"),
        ({"Jobs.*": {"delay": "1"}}, "delay is a number"),
        ({"Jobs.*": {"delay": True}}, "delay is a number"),
        ({"Jobs.*": {"delay": -1}}, "delay is a number from 0 to 3600"),
        ({"Jobs.*": {"operation_delay": 1e9}}, "operation_delay is a number from 0 to 3600"),
        ({"Jobs.*": {"probability": float("nan")}}, "probability is a number from 0 to 1"),
        ({"Jobs.*": {"lost_response": "yes"}}, "lost_response is true or false"),
        ({"Jobs.*": [{}] * 101}, "at most 100 faults"),
    ],
)
def test_mistakes_are_told(wanted: Any, told: str) -> None:
    with pytest.raises(ServiceError) as refused:
        parse_faults(wanted)
    assert refused.value.code == "INVALID_ARGUMENT"
    assert told in refused.value.message


async def faulty(**wanted: Any) -> Calls:
    calls = Calls()
    calls.set_faults(parse_faults({glob.replace("_", "."): value for glob, value in wanted.items()}))
    return calls


async def test_what_is_refused_and_what_is_lost() -> None:
    calls = await faulty(A_b={"status": "UNAVAILABLE"}, A_c={"lost_response": True, "status": "INTERNAL"})
    with pytest.raises(ServiceError) as refused:
        await calls.before("A.b")
    assert refused.value.code == "UNAVAILABLE"
    worked = []

    async def work() -> None:
        worked.append(True)

    with pytest.raises(ServiceError) as lost:
        await calls.call("A.c", work)
    assert (lost.value.code, worked) == ("INTERNAL", [True])
    await calls.call("A.d", work)
    assert calls.counts() == {"A.b": 1, "A.c": 1, "A.d": 1}


async def test_each_fault_of_a_list_is_drawn_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    random_numbers = iter([0.5, 0.05, 0.5, 0.5, 0.05, 0.05])
    monkeypatch.setattr(random, "random", lambda: next(random_numbers))
    calls = await faulty(
        A_b=[{"status": "ABORTED", "probability": 0.1}, {"operation_error": "INTERNAL", "probability": 0.1}]
    )
    await calls.before("A.b")
    assert operation_fault() == OperationFault(0.0, "INTERNAL")
    await calls.before("A.b")
    assert operation_fault() is None
    with pytest.raises(ServiceError):
        await calls.before("A.b")


async def test_an_operation_hears_of_its_own_call_only() -> None:
    calls = Calls()
    slow, failing = Fault(operation_delay=1.5), Fault(operation_delay=2.0, operation_error="RESOURCE_EXHAUSTED")
    calls.set_faults({"A.slow": slow, "A.both": [slow, failing], "A.*": Fault()})
    gate = asyncio.Event()

    async def call(method: str) -> tuple[OperationFault | None, OperationFault | None]:
        await calls.before(method)
        await gate.wait()  # all calls are between their beginning and their operation
        begun = asyncio.create_task(later())
        return calls.operation_fault(), await begun

    async def later() -> OperationFault | None:
        return operation_fault()

    served = [asyncio.create_task(call(method)) for method in ("A.slow", "A.both", "A.none", "B.none")]
    await asyncio.sleep(0)
    gate.set()
    slower, both = OperationFault(1.5, ""), OperationFault(3.5, "RESOURCE_EXHAUSTED")
    assert [await task for task in served] == [(slower, slower), (both, both), (None, None), (None, None)]
    assert both.refusal is not None
    assert (both.refusal.code, slower.refusal) == ("RESOURCE_EXHAUSTED", None)
    assert operation_fault() is None


async def test_the_admin_face() -> None:
    calls = Calls()
    app = Starlette(routes=admin.routes(calls, lambda: {"functions": 2}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://local") as web:
        put = await web.put("/_local/faults", json={"A.*": [{"status": "ABORTED"}, {"delay": 0.01}]})
        assert put.status_code == 204
        with pytest.raises(ServiceError):
            await calls.before("A.b")
        for body, told in ((b"{", "not JSON"), (b'{"A.*": [{"x": 1}]}', "A.*[0]: unknown key 'x'")):
            refused = await web.put("/_local/faults", content=body)
            assert (refused.status_code, told in refused.json()["message"]) == (400, True)
        with pytest.raises(ServiceError):  # a refused body changes nothing
            await calls.before("A.b")
        assert (await web.delete("/_local/faults")).status_code == 204
        await calls.before("A.b")
        assert (await web.get("/_local/calls")).json() == {"A.b": 3}
        assert (await web.get("/_local/resources")).json() == {"functions": 2}
