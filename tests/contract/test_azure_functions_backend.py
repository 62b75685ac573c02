"""The Azure Functions backend against the local cloud: official SDKs on one side, stand-ins of Azure on the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.backends.azure_functions.site import app_plan, invoke_key
from control_plane.errors import DockerError, NotServed, ServerError, Unavailable
from tests.contract.azure_functions_fixtures import KEY, World, again, container, until, world

NONE = {"web.plans": 0, "web.sites": 0}
ONE = {"web.plans": 1, "web.sites": 1}
TOKEN = "token"


@pytest.fixture
async def azure(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as found:
        yield found


async def test_a_container_from_create_to_rm(azure: World) -> None:
    backend, box = azure.backend(), container()
    created = again(box, 0)
    await backend.prepare(created, azure.image, TOKEN)
    assert await azure.resources() == ONE
    assert azure.running() == []
    execution = await backend.run(box, azure.image, TOKEN)
    assert execution.name.endswith("/sites/skls-000000000001/runs/1")
    assert (execution.job, execution.first_run) == ("skls-000000000001", 1)
    await until(lambda: azure.output(backend, box))
    assert await azure.output(backend, box) == ["run 1 of 600 seconds", "an error"]
    assert (await backend.outcome(execution)).finished is False
    spec = azure.runtime.specs[azure.running()[0]]
    assert spec.env["SOCKERLESS_AGENT_MODE"] == "app"
    assert spec.env["SOCKERLESS_AGENT_TOKEN"] == TOKEN
    assert spec.env["SOCKERLESS_INVOKE_KEY"] == invoke_key(KEY, execution.job)
    await backend.rest(box.model_copy(update={"execution": execution}))
    await until(lambda: not azure.running())
    outcome = await backend.outcome(execution)
    assert (outcome.finished, outcome.exit_code, outcome.error) == (True, None, "")
    await backend.remove(box)
    assert await azure.resources() == NONE
    await backend.remove(box)
    outcome = await backend.outcome(execution)
    assert outcome.finished
    assert "does not exist any more" in outcome.error


async def test_the_request_to_run_names_other_gateways(azure: World, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, box = azure.backend(callback_url=""), container(gateway="https://a")
    asked: list[Any] = []
    monkeypatch.setattr(backend._invocations, "begin", asked.append)
    await backend.prepare(again(box, 0), azure.image, TOKEN, gateways=["https://b"])
    await backend.run(box, azure.image, TOKEN, gateways=["https://c"])
    assert [one.body["callback"] for one in asked] == ["https://a https://c"]
    await until(azure.running)
    assert azure.runtime.specs[azure.running()[0]].env["SOCKERLESS_CALLBACK_URL"] == "https://a https://b"
    await backend.remove(box)


async def test_how_many_calls_each_command_costs(azure: World) -> None:
    backend, box = azure.backend(), container()
    await backend.prepare(again(box, 0), azure.image, TOKEN)
    assert await azure.counted() == {
        "Sites.Get": 1,
        "Plans.Get": 1,
        "Plans.CreateOrUpdate": 1,
        "Sites.CreateOrUpdate": 1,
    }
    await azure.local("DELETE", "calls")
    await backend.run(box, azure.image, TOKEN)
    await until(lambda: azure.output(backend, box))
    counted = await azure.counted()
    counted.pop("Monitor.Query")
    assert counted == {"Sites.Start": 1, "Sites.Invoke": 1}
    await azure.local("DELETE", "calls")
    await backend.rest(box)
    await backend.rest(box)
    await backend.remove(box)
    assert await azure.counted() == {"Sites.Stop": 1, "Sites.Delete": 1, "Plans.Delete": 1}


async def test_a_later_run_gets_a_fresh_container(azure: World) -> None:
    backend, box = azure.backend(), container()
    first = await backend.run(box, azure.image, TOKEN)
    await until(lambda: azure.output(backend, box))
    old = azure.running()
    second = await backend.run(again(box, 2), azure.image, TOKEN)
    assert second.name != first.name
    await until(lambda: azure.output(backend, box, tail=2), 20)
    await until(lambda: _has(azure, backend, box, "run 2 of 600 seconds"))
    assert not set(old) & set(azure.running())
    # What is said late of the first run does not touch the second.
    await backend.cancel(first)
    await backend.rest(box)
    assert (await backend.outcome(second)).finished is False
    assert (await backend.outcome(first)).finished is True
    await backend.rest(again(box, 2))
    await until(lambda: not azure.running())
    await azure.local("DELETE", "calls")
    await backend.run(again(box, 3), azure.image, TOKEN)
    assert "Sites.Stop" not in await azure.counted()
    await until(lambda: _has(azure, backend, box, "run 3 of 600 seconds"))


async def _has(azure: World, backend: object, box: object, line: str) -> bool:
    return line in await azure.output(backend, box)  # type: ignore[arg-type]


async def test_run_makes_what_prepare_has_not_and_is_idempotent(azure: World) -> None:
    backend, box = azure.backend(), container()
    prepared = asyncio.create_task(backend.prepare(again(box, 0), azure.image, TOKEN))
    await asyncio.sleep(0)
    executions = [await backend.run(box, azure.image, TOKEN), await backend.run(box, azure.image, TOKEN)]
    await prepared
    assert executions[0].name == executions[1].name
    counted = await azure.counted()
    assert counted["Sites.CreateOrUpdate"] == counted["Plans.CreateOrUpdate"] == 1
    assert "Sites.Stop" not in counted
    assert len(azure.runtime.specs) <= 1


async def test_another_control_plane_goes_on_where_one_died(azure: World) -> None:
    box = container()
    await azure.backend().prepare(again(box, 0), azure.image, TOKEN)
    second = azure.backend()
    assert await second.find(box, azure.image) is None
    await azure.local("DELETE", "calls")
    execution = await second.run(box, azure.image, "minted anew")
    counted = await azure.counted()
    assert "Sites.CreateOrUpdate" not in counted
    await until(lambda: azure.output(second, box))
    third = azure.backend()
    found = await third.find(box, azure.image)
    assert found is not None
    assert (found.name, found.first_run) == (execution.name, 1)
    # Nobody knows whether the run was asked for: it is asked for again, and goes on.
    before = azure.running()
    await third.run(box, azure.image, TOKEN, recovering=True)
    assert azure.running() == before
    # Of a later run the old container is no part.
    await third.run(again(box, 2), azure.image, TOKEN, recovering=True)
    await until(lambda: _has(azure, third, box, "run 2 of 600 seconds"))
    assert not set(before) & set(azure.running())


async def test_what_is_not_ours_is_left_alone(azure: World) -> None:
    stranger, backend, box = azure.backend(endpoint_name="other"), azure.backend(), container()
    await stranger.prepare(again(box, 0), azure.image, TOKEN)
    with pytest.raises(ServerError, match="not this endpoint's"):
        await backend.run(box, azure.image, TOKEN)
    assert await backend.find(box, azure.image) is None
    assert await azure.backend(sweep_grace=0).sweep(set()) == 0
    assert await azure.resources() == ONE


async def test_removing_while_the_app_is_made_leaves_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, azure_operation_delay=0.3) as azure:
        backend, box = azure.backend(), container()
        prepared = asyncio.create_task(backend.prepare(again(box, 0), azure.image, TOKEN))
        await until(lambda: _counted(azure, "Plans.CreateOrUpdate"))
        await backend.remove(again(box, 0))
        with pytest.raises(DockerError, match="removed"):
            await prepared
        assert await azure.resources() == NONE
        assert "Sites.CreateOrUpdate" not in await azure.counted()


async def _counted(azure: World, method: str) -> int:
    return (await azure.counted()).get(method, 0)


async def test_a_shared_plan_stays(azure: World) -> None:
    owner = azure.backend()
    await owner._sites.put_plan("big", _plan_body(azure))
    backend, box = azure.backend(app_service_plan="big"), container()
    await backend.run(box, azure.image, TOKEN)
    assert await azure.resources() == ONE
    await backend.remove(box)
    assert await azure.resources() == {"web.plans": 1, "web.sites": 0}


def _plan_body(azure: World) -> dict[str, object]:
    plan = app_plan(container(), "x/y@sha256:" + "1" * 64, azure.settings(), key=KEY, agent_token=TOKEN).plan
    assert plan is not None
    return plan | {"tags": {}}


async def test_lost_answers_and_failing_operations_make_no_second_app(azure: World) -> None:
    backend, box = azure.backend(), container()
    await azure.local(
        "PUT",
        "faults",
        {
            "Identity.Token": {"probability": 0.2, "status": "UNAVAILABLE"},
            "*.CreateOrUpdate": [
                {"probability": 0.3, "operation_error": "INTERNAL"},
                {"probability": 0.3, "lost_response": True},
                {"probability": 0.3, "operation_delay": 0.05},
            ],
            "*": [
                {"probability": 0.3, "status": "UNAVAILABLE"},
                {"probability": 0.2, "lost_response": True},
            ],
        },
    )
    execution = await backend.run(box, azure.image, TOKEN)
    await until(lambda: azure.running())
    await azure.no_faults()
    assert await azure.resources() == ONE
    await until(lambda: _has(azure, backend, box, "run 1 of 600 seconds"))
    await azure.fault("*", probability=0.4, lost_response=True)
    await backend.cancel(execution)
    await backend.remove(box)
    await azure.no_faults()
    assert await azure.resources() == NONE
    await until(lambda: not azure.running())


async def test_quotas_are_named(azure: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from control_plane.backends import calls

    monkeypatch.setattr(calls, "_LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(calls, "_FIRST_QUOTA_PAUSE", 0.01)
    backend = azure.backend()
    await backend.prepare(again(container(), 0), azure.image, TOKEN)
    await azure.fault("Sites.Start", status="RESOURCE_EXHAUSTED")
    monkeypatch.setattr("control_plane.backends.azure_functions.sites.START_DEADLINE", 0.2)
    with pytest.raises(Unavailable, match="quota exhausted while starting the container"):
        await backend.run(container(), azure.image, TOKEN)


async def test_a_plan_that_cannot_be_made_is_told_and_made_by_the_start(azure: World) -> None:
    backend, box = azure.backend(), container()
    await azure.fault("Plans.CreateOrUpdate", operation_error="FAILED_PRECONDITION")
    with pytest.raises(DockerError, match="making the container's plan"):
        await backend.prepare(again(box, 0), azure.image, TOKEN)
    await azure.no_faults()
    await backend.run(box, azure.image, TOKEN)
    assert await azure.resources() == ONE


async def test_an_app_that_refuses_the_run_is_stopped_and_told(azure: World) -> None:
    ended: list[tuple[str, str]] = []
    maker, box = azure.backend(), container()
    await maker.prepare(again(box, 0), azure.image, TOKEN)
    backend = azure.backend()
    backend._key = b"x" * 32  # another endpoint's
    backend.follow(lambda tenant, id: ended.append((tenant, id)))
    execution = await backend.run(box, azure.image, TOKEN)
    await until(lambda: ended)
    assert ended == [("blue", box.id)]
    outcome = await backend.outcome(execution)
    assert outcome.finished
    assert "refused to run it: HTTP 403" in outcome.error
    await until(lambda: not azure.running())


async def test_an_app_that_never_answers_is_given_up(azure: World) -> None:
    ended: list[str] = []
    image = azure.image.model_copy(update={"manifest_digest": "sha256:" + "0" * 64})
    backend, box = azure.backend(), container()
    backend._invocations._limit = 0.5
    backend.follow(lambda _, id: ended.append(id))
    execution = await backend.run(box, image, TOKEN)
    await until(lambda: ended)
    outcome = await backend.outcome(execution)
    assert outcome.finished
    assert "did not answer within 0.5 seconds (SOCKERLESS_AZF_START_LIMIT)" in outcome.error


async def test_without_its_agent_nothing_is_run(azure: World) -> None:
    with pytest.raises(NotServed, match="without one"):
        await azure.backend().run(container(), azure.image, TOKEN, agentless=True)
    assert await azure.resources() == NONE


async def test_the_sweep_takes_orphans_alone(azure: World) -> None:
    backend = azure.backend(sweep_grace=0)
    boxes = [container(number) for number in range(1, 4)]
    await asyncio.gather(*(backend.prepare(again(box, 0), azure.image, TOKEN) for box in boxes))
    await azure.backend()._sites.delete("skls-000000000003")  # its plan is left
    assert await azure.backend().sweep(set()) == 0  # all are younger than the default grace
    assert await backend.sweep({boxes[0].id}) == 3
    assert await azure.resources() == ONE
    assert await backend.sweep({boxes[0].id}) == 0


async def test_logs_of_one_container_with_both_streams(azure: World) -> None:
    backend = azure.backend()
    boxes = [container(1), container(2)]
    for box in boxes:
        await backend.run(box, azure.image, TOKEN)
    await until(lambda: azure.output(backend, boxes[0]))
    await until(lambda: azure.output(backend, boxes[1]))
    wanted = {"since": None, "until": None, "follow": False}
    lines = [line async for line in backend.logs(boxes[0], tail=None, **wanted)]  # type: ignore[arg-type]
    assert [(line.stream, line.text) for line in lines] == [
        ("stdout", b"run 1 of 600 seconds\n"),
        ("stderr", b"an error\n"),
    ]
    assert lines[0].at < lines[1].at
    assert await azure.output(backend, boxes[0], tail=1) == ["an error"]
    assert await azure.output(backend, boxes[0], tail=0) == []
    assert await azure.output(backend, boxes[0], since=lines[1].at) == ["an error"]
    assert await azure.output(backend, boxes[0], until=lines[0].at) == ["run 1 of 600 seconds"]


async def test_following_ends_with_the_app(azure: World) -> None:
    backend, box = azure.backend(), container()
    execution = await backend.run(box, azure.image, TOKEN)
    running = box.model_copy(update={"execution": execution})
    following = asyncio.create_task(azure.output(backend, running, follow=True))
    await until(lambda: azure.output(backend, box))
    assert not following.done()
    await backend.cancel(execution)
    assert await asyncio.wait_for(following, 15) == ["run 1 of 600 seconds", "an error"]


async def test_without_a_workspace_the_variable_is_named(azure: World) -> None:
    with pytest.raises(NotServed, match="SOCKERLESS_AZF_LOG_ANALYTICS_WORKSPACE"):
        await azure.output(azure.backend(log_analytics_workspace=""), container())


async def test_nothing_is_loaded_before_the_first_container(azure: World) -> None:
    backend = azure.backend()
    assert backend._clients._ready is None
    backend.check(container())
    await backend.check_image(container(), azure.image)
    assert backend._clients._ready is None
