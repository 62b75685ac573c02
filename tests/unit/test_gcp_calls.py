"""Retries, quotas and log entries of the GCP side."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.api_core import exceptions as api
from google.cloud.logging_v2.types import LogEntry

from control_plane.backends import calls
from control_plane.backends.calls import CloudError, call
from control_plane.backends.gcp import log_entries
from control_plane.backends.gcp.clients import Endpoint
from control_plane.backends.gcp.log_entries import Source
from control_plane.backends.minute_quota import MinuteQuota
from control_plane.errors import DockerError, Unavailable


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST_PAUSE", "_FIRST_QUOTA_PAUSE"):
        monkeypatch.setattr(calls, name, 0.0001)


def failing(*errors: Exception) -> tuple[list[float], Any]:
    left = list(errors)
    timeouts: list[float] = []

    async def attempt(timeout: float) -> str:
        timeouts.append(timeout)
        if left:
            raise left.pop(0)
        return "done"

    return timeouts, attempt


async def test_transient_failures_are_tried_again() -> None:
    timeouts, attempt = failing(
        api.ServiceUnavailable("x"), api.ResourceExhausted("x"), api.Aborted("x"), TimeoutError()
    )
    assert await call("trying", attempt) == "done"
    assert len(timeouts) == 5


@pytest.mark.parametrize("error", [api.InvalidArgument("x"), api.NotFound("x"), api.PermissionDenied("x")])
async def test_lasting_failures_are_not(error: Exception) -> None:
    timeouts, attempt = failing(error)
    with pytest.raises(CloudError):
        await call("trying", attempt)
    assert len(timeouts) == 1


async def test_a_bug_is_not_taken_for_a_failure_of_the_cloud() -> None:
    _, attempt = failing(KeyError("bug"))
    with pytest.raises(KeyError):
        await call("trying", attempt)


async def test_the_deadline_bounds_all_tries() -> None:
    timeouts, attempt = failing(*[api.ServiceUnavailable("x")] * 100_000)
    with pytest.raises(CloudError):
        await call("trying", attempt, total=0.05)
    assert max(timeouts) <= 0.1


@pytest.mark.parametrize(
    ("error", "status", "shown", "hidden"),
    [
        (api.ServiceUnavailable("host secret-1"), 503, "UNAVAILABLE", "secret-1"),
        (api.DeadlineExceeded("secret-1"), 504, "in time", "secret-1"),
        (api.PermissionDenied("on project secret-1"), 500, "operator", "secret-1"),
        (api.InvalidArgument("Invalid env name"), 400, "Invalid env name", "\n"),
        (api.ResourceExhausted("Quota exceeded for quota metric 'M' and limit 'L' of x"), 503, "M / L", "\n"),
    ],
)
async def test_errors_in_dockers_terms(error: Exception, status: int, shown: str, hidden: str) -> None:
    failure = calls.failure_of(error, "starting the container")
    assert failure is not None
    docker: DockerError = failure.docker()
    assert docker.status == status
    assert shown in docker.message
    assert hidden not in docker.message
    assert docker.internal is not None


async def test_quota_hands_out_turns_in_order_and_never_more_than_allowed() -> None:
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        await asyncio.sleep(0)

    quota = MinuteQuota("writes", 3, clock=lambda: now, sleep=sleep)
    taken: list[tuple[int, float]] = []

    async def take(number: int) -> None:
        await quota.turn()
        taken.append((number, now))

    await asyncio.gather(*(take(number) for number in range(7)))
    assert [number for number, _ in taken] == list(range(7))
    times = [at for _, at in taken]
    assert all(later - earlier >= 60 for earlier, later in zip(times, times[3:], strict=False))


async def test_quota_refuses_when_too_many_wait() -> None:
    quota = MinuteQuota("Cloud Run writes", 2)
    tasks = [asyncio.create_task(quota.turn()) for _ in range(7)]
    await asyncio.sleep(0)
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    refused = [task for task in done if task.exception()]
    assert len(refused) == 1
    with pytest.raises(Unavailable, match="Cloud Run writes"):
        refused[0].result()
    for task in waiting:
        task.cancel()


async def test_no_quota_is_no_limit() -> None:
    quota = MinuteQuota("x", 0)
    for _ in range(1000):
        await quota.turn()


def entry(**fields: Any) -> Any:
    plain = {"log_name": "projects/p/logs/run.googleapis.com%2Fstdout", "insert_id": "i"}
    return LogEntry.pb(LogEntry({**plain, **fields}))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"text_payload": "plain"}, b"plain\n"),
        ({"text_payload": ""}, b"\n"),
        ({"json_payload": {"message": "é", "sockerless": {"run": 1, "partial": False}}}, "é\n".encode()),
        ({"json_payload": {"message": "part", "sockerless": {"run": 1, "partial": True}}}, b"part"),
        ({"json_payload": {"base64": "/wA=", "sockerless": {"run": 1, "partial": False}}}, b"\xff\x00\n"),
        ({"json_payload": {"message": "", "sockerless": {"run": 1, "partial": False}}}, b"\n"),
        ({"json_payload": {"message": "only"}}, b"only\n"),
        ({"json_payload": {"a": "1", "sockerless": "x"}}, b'{"a":"1","sockerless":"x"}\n'),
    ],
)
def test_text_of_an_entry(fields: dict[str, Any], text: bytes) -> None:
    assert log_entries.line_of(entry(**fields)).text == text


@pytest.mark.parametrize(
    ("log", "severity", "stream"),
    [
        ("run.googleapis.com%2Fstdout", "ERROR", "stdout"),
        ("run.googleapis.com%2Fstderr", "DEFAULT", "stderr"),
        ("custom", "ERROR", "stderr"),
        ("custom", "CRITICAL", "stderr"),
        ("custom", "WARNING", "stdout"),
    ],
)
def test_stream_by_log_name_and_by_severity_where_that_does_not_tell(log: str, severity: str, stream: str) -> None:
    line = log_entries.line_of(entry(log_name=f"projects/p/logs/{log}", severity=severity, text_payload="x"))
    assert line.stream == stream


def test_filter_names_the_two_logs_the_job_and_the_execution() -> None:
    since = 1767323045_000000006
    text = log_entries.entries_filter("p", "", [Source("j", "j-1"), Source("j", "j-2")], since, None)
    assert text == (
        'resource.type="cloud_run_job" AND resource.labels.job_name="j" AND '
        'labels."run.googleapis.com/execution_name"=("j-1" OR "j-2") AND '
        'logName=("projects/p/logs/run.googleapis.com%2Fstdout" OR "projects/p/logs/run.googleapis.com%2Fstderr") AND '
        'NOT jsonPayload.sockerless.agent=true AND timestamp>="2026-01-02T03:04:05.000000006Z"'
    )
    assert 'OR "projects/p/logs/mine")' in log_entries.entries_filter("p", "mine", [Source("j", "j-1")], None, None)


@pytest.mark.parametrize(
    ("arguments", "endpoint"),
    [
        (("",), Endpoint()),
        (("http://127.0.0.1:8",), Endpoint("127.0.0.1:8", "http://127.0.0.1:8")),
        (("http://127.0.0.1:8/", "127.0.0.1:9", "http://h:1"), Endpoint("127.0.0.1:9", "http://h:1")),
        (("", "127.0.0.1:9"), Endpoint("127.0.0.1:9", "")),
    ],
)
def test_endpoint(arguments: tuple[str, ...], endpoint: Endpoint) -> None:
    assert Endpoint.of(*arguments) == endpoint
