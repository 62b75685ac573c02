"""Holding an invocation: when it is sent again, when it is over, and what is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import orjson
import pytest

from control_plane.backends.cloud_functions import invocation as module
from control_plane.backends.cloud_functions.invocation import Holding, Invocation
from control_plane.backends.cloud_functions.invocations import Invocations
from control_plane.backends.cloud_functions.plan import invoke_key
from control_plane.backends.cloud_functions.requests import Answer
from control_plane.errors import ServerError
from control_plane.model import CloudFunction, Execution
from tests.unit.cloud_function_records import function

KEY = b"k" * 32
ENDED = Answer(200, orjson.dumps({"container": "c", "run": 1, "exit": {"code": 3, "at": ""}, "released": False}))
RELEASED = Answer(200, orjson.dumps({"container": "c", "run": 1, "exit": None, "released": True}))
BUSY, BROKEN, DENIED, GONE = Answer(429, b""), Answer(503, b"no"), Answer(401, b"who"), Answer(404, b"")

Step = Answer | Exception | asyncio.Event


class Platform:
    """Answers with the given steps in turn; the last one for ever. An event is waited for: the request is held."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.sent: list[tuple[str, str, str, Mapping[str, Any]]] = []
        self.forgotten: list[str] = []

    async def post(self, uri: str, token: str, key: str, body: Mapping[str, Any]) -> Answer:
        self.sent.append((uri, token, key, body))
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, asyncio.Event):
            await step.wait()
            return await self.post(uri, token, key, body)
        if isinstance(step, Exception):
            raise step
        return step

    async def token(self, audience: str) -> str:
        return f"token{len(self.forgotten)} for {audience}"

    def forget(self, audience: str) -> None:
        self.forgotten.append(audience)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.002)


def execution(run: int = 1, at: str = "2026-01-01T00:00:00.000000Z") -> Execution:
    return Execution(name="projects/p/locations/r/functions/skls-a", job="skls-a", first_run=run, created_at=at)


def invocation(patience: float = 5.0, **more: Any) -> Invocation:
    held = function("skls-a", container="c")
    return Invocation(held, execution(), "acme", "c", {"container": "c", "run": 1}, patience, **more)


async def held(platform: Platform, one: Invocation) -> Invocation:
    made: Any = platform
    await Holding(made, made, KEY).hold(one)
    return one


async def test_the_agents_answer_is_the_outcome() -> None:
    platform = Platform(ENDED)
    one = await held(platform, invocation())
    assert one.outcome is not None
    assert (one.outcome.finished, one.outcome.exit_code, one.clean) == (True, 3, True)
    uri, token, key, body = platform.sent[0]
    assert (uri, token) == (one.function.uri, f"token0 for {one.function.uri}")
    assert (key, body["container"]) == (invoke_key(KEY, "skls-a"), "c")


@pytest.mark.parametrize("passing", [BUSY, BROKEN, httpx.ConnectError("refused"), httpx.ReadError("reset"), RELEASED])
async def test_what_passes_is_asked_again(passing: Step) -> None:
    platform = Platform(passing, passing, ENDED)
    one = await held(platform, invocation())
    assert len(platform.sent) == 3
    assert one.outcome is not None
    assert one.outcome.exit_code == 3


@pytest.mark.parametrize("lasting", [BUSY, BROKEN, httpx.ConnectError("refused")])
async def test_what_lasts_is_an_error_at_the_deadline(lasting: Step) -> None:
    one = await held(Platform(lasting), invocation(patience=0.02))
    assert one.outcome is not None
    assert one.outcome.exit_code is None
    assert one.outcome.error
    assert not one.clean


async def test_a_busy_instance_that_may_be_our_own_is_no_end() -> None:
    one = await held(Platform(BUSY), invocation(busy_patience=0.0))
    assert one.outcome is None
    one = await held(Platform(BUSY, BUSY, ENDED), invocation(busy_patience=5.0))
    assert one.outcome is not None


async def test_a_refused_identity_is_renewed_once() -> None:
    platform = Platform(DENIED, ENDED)
    assert (await held(platform, invocation())).clean
    assert platform.forgotten == ["https://skls-a.a.run.app"]
    assert platform.sent[1][1].startswith("token1")
    platform = Platform(DENIED)
    one = await held(platform, invocation())
    assert len(platform.sent) == 2
    assert one.outcome is not None
    assert "roles/run.invoker" in one.outcome.error


async def test_a_function_that_is_gone_is_deployed_anew_once() -> None:
    deployed: list[str] = []

    async def renew() -> CloudFunction:
        deployed.append("again")
        return function("skls-a", uri="https://new.a.run.app", container="c")

    platform = Platform(GONE, GONE, ENDED)
    one = await held(platform, invocation(renew=renew))
    assert deployed == ["again"]
    assert platform.sent[-1][0] == "https://new.a.run.app"
    assert one.clean


async def test_a_function_that_is_gone_and_not_ours_to_deploy_has_ended() -> None:
    one = await held(Platform(GONE), invocation())
    assert one.outcome is not None
    assert "does not exist" in one.outcome.error


async def test_a_deployment_that_fails_ends_it_with_its_text() -> None:
    async def renew() -> CloudFunction:
        raise ServerError("the cloud refused it")

    one = await held(Platform(GONE), invocation(renew=renew))
    assert one.outcome is not None
    assert one.outcome.error == "the cloud refused it"


async def test_once_cancelled_whatever_comes_is_the_end() -> None:
    one = await held(Platform(BROKEN), invocation(cancelled=True))
    assert one.outcome is not None
    assert one.outcome.finished


# --- those of one process ---


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 (what is waited for is another task's)
            await asyncio.sleep(0.001)


def known(platform: Platform) -> tuple[Invocations, list[tuple[str, str]]]:
    made: Any = platform
    told: list[tuple[str, str]] = []
    found = Invocations(Holding(made, made, KEY))
    found.follow(lambda tenant, container: told.append((tenant, container)))
    return found, told


async def test_the_end_is_told_and_remembered() -> None:
    gate = asyncio.Event()
    invocations, told = known(Platform(gate, ENDED))
    one = invocation()
    invocations.start(one)
    await until(lambda: one.attempts)
    assert invocations.of("c") is one
    assert told == []
    gate.set()
    await until(lambda: told)
    assert told == [("acme", "c")]
    assert invocations.of("c") is None
    assert invocations.get("skls-a") is one


async def test_a_later_run_takes_the_place_of_an_earlier() -> None:
    invocations, told = known(Platform(asyncio.Event()))
    first, second = invocation(), invocation()
    invocations.start(first)
    await until(lambda: first.attempts)
    invocations.start(second)
    await until(lambda: second.attempts)
    assert not first.held
    assert invocations.of("c") is second
    assert told == []
    await invocations.close()


async def test_a_connection_that_died_unnoticed_is_replaced_when_the_agent_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("control_plane.backends.cloud_functions.invocations._NOTICE", 0.01)
    platform = Platform(asyncio.Event(), ENDED)
    invocations, told = known(platform)
    one = invocation()
    invocations.start(one)
    await until(lambda: one.attempts)
    invocations.doubt(one)
    await until(lambda: told)
    assert len(platform.sent) == 2


async def test_closing_lets_go_without_telling() -> None:
    invocations, told = known(Platform(asyncio.Event()))
    one = invocation()
    invocations.start(one)
    await until(lambda: one.attempts)
    await invocations.close()
    assert not one.held
    assert one.outcome is None
    assert told == []
