"""The pure lifecycle: every state against every event, and random histories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.errors import Conflict, DockerError, NotModified, ServerError
from control_plane.model import AgentLink, Container, Execution, Lease
from control_plane.services.greeting import Hello, greet
from control_plane.services.lifecycle import (
    KillRequested,
    LifecycleEvent,
    PauseRequested,
    RemoveRequested,
    RestartRequested,
    StartRequested,
    StopRequested,
    UnpauseRequested,
    advance,
)
from control_plane.services.reports import Accepted, Exited, Failed, HealthReported, LinkGone, Started
from control_plane.services.restart_policy import next_delay, should_restart
from control_plane.timestamps import nanoseconds, rfc3339

ID = "ab" * 32
LEASE = Lease(operation="start", owner="me", expires_at=100.0)
REMOVE = Lease(operation="remove", owner="me", expires_at=100.0)
STATUSES = ("created", "starting", "running", "paused", "restarting", "removing", "exited", "dead")
AT = "2026-01-01T00:00:05Z"
STARTED = "2026-01-01T00:00:00Z"


def container(status: str = "created", run: int = 1, **more: Any) -> Container:
    state = {"status": status, "run": run, "started_at": STARTED if run > 1 or status in {"running", "paused"} else ""}
    if not state["started_at"]:
        del state["started_at"]
    return Container.model_validate(
        {
            "id": ID,
            "tenant": "t",
            "name": "web",
            "created_at": STARTED,
            "image": "i",
            "image_id": "sha256:1",
            "config": {},
            "host_config": {},
            "backend": "fake",
            "gateway": "g",
            "state": state,
            **more,
        }
    )


def refusal(status: str, event: LifecycleEvent) -> DockerError | None:
    try:
        advance(container(status), event)
    except DockerError as error:
        return error
    return None


STOP = StopRequested(AT)
TERM = KillRequested(15, AT)
KILL = KillRequested(9, AT)
START = StartRequested(LEASE)
RM = RemoveRequested(REMOVE, 50.0, "web")
FORCE = RemoveRequested(REMOVE, 50.0, "web", force=True)
DONE, ASK = True, False

Refusals = Mapping[str, tuple[type[DockerError], str]]
DEAD_KILL: Refusals = dict.fromkeys(
    ("created", "exited", "removing", "dead"), (Conflict, f"container {ID} is not running")
)

# For each request: the states that refuse it, and how.
REFUSED: list[tuple[LifecycleEvent, Refusals]] = [
    (
        START,
        {
            "running": (NotModified, "container is already running"),
            "restarting": (NotModified, "container is already running"),
            "paused": (Conflict, "cannot start a paused container, try unpause instead"),
            "removing": (Conflict, "container is marked for removal and cannot be started"),
            "dead": (Conflict, "container is marked for removal and cannot be started"),
        },
    ),
    (STOP, dict.fromkeys(("created", "exited", "removing", "dead"), (NotModified, "container is already stopped"))),
    (TERM, DEAD_KILL),
    (KILL, DEAD_KILL),
    (
        PauseRequested(),
        {
            **dict.fromkeys(
                ("created", "starting", "exited", "removing", "dead"), (Conflict, f"container {ID} is not running")
            ),
            "paused": (Conflict, f"Container {ID} is already paused"),
            "restarting": (Conflict, f"Container {ID} is restarting, wait until the container is running"),
        },
    ),
    (
        UnpauseRequested(),
        {status: (ServerError, f"Container {ID} is not paused") for status in STATUSES if status != "paused"},
    ),
    (RestartRequested(LEASE), {}),
    (
        RM,
        {
            status: (
                Conflict,
                f'cannot remove container "web": container is {shown}: '
                "stop the container before removing or force remove",
            )
            for status, shown in (("starting", "running"), ("running", "running"), ("restarting", "restarting"))
        }
        | {
            "paused": (
                Conflict,
                'cannot remove container "web": container is paused and must be unpaused first',
            )
        },
    ),
    (FORCE, {}),
]


@pytest.mark.parametrize(("event", "refusals"), REFUSED)
@pytest.mark.parametrize("status", STATUSES)
def test_refusals(status: str, event: LifecycleEvent, refusals: Refusals) -> None:
    error = refusal(status, event)
    expected = refusals.get(status)
    if expected is None:
        assert error is None
    else:
        assert error is not None
        assert (type(error), error.message) == expected


def test_a_removal_under_way_is_not_begun_again_while_its_lease_holds() -> None:
    removing = container("removing", lease=REMOVE)
    with pytest.raises(Conflict, match="removal of container web is already in progress"):
        advance(removing, FORCE)
    late = RemoveRequested(REMOVE.model_copy(update={"owner": "other"}), 101.0, "web")
    taken = advance(removing, late)
    assert taken.lease is not None
    assert taken.lease.owner == "other"


@pytest.mark.parametrize("status", ["created", "exited"])
def test_start_claims_the_next_run(status: str) -> None:
    link = AgentLink(boot="b", gateway="g", connected=True)
    held = container(status, run=3, agent=link, restart_count=4)
    starting = advance(held, START)
    assert (starting.state.status, starting.state.run, starting.lease) == ("starting", 4, LEASE)
    assert starting.agent == link
    assert starting.restart_count == 0
    gone = advance(container(status, agent=link.model_copy(update={"connected": False})), START)
    assert gone.agent is None
    assert gone.execution is None


def test_a_policys_start_needs_a_container_that_waits_for_it() -> None:
    automatic = StartRequested(LEASE, manual=False)
    assert advance(container("exited"), automatic) == container("exited")
    assert advance(container("restarting"), automatic).state.status == "starting"
    with pytest.raises(NotModified):
        advance(container("running"), automatic)


def test_kill_marks_the_users_wish_only_when_the_signal_means_it() -> None:
    usr1 = KillRequested(10, AT)
    assert advance(container("running"), usr1).state.stop_requested  # no StopSignal configured: moby's rule
    configured = container("running", config={"StopSignal": "TERM"})
    assert not advance(configured, usr1).state.stop_requested
    assert advance(configured, TERM).state.stop_requested
    assert advance(configured, KILL).state.stop_requested


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(
    "report",
    [
        Started(2, 5, AT),
        Failed(2, 127, "x", 0.0),
        Exited(2, 1, AT, 0.0),
        HealthReported(2, "healthy", 0),
        LinkGone("other"),
        Accepted(2, Execution(name="e", job="j", first_run=2, created_at=AT)),
    ],
)
def test_reports_of_other_runs_change_nothing(status: str, report: LifecycleEvent) -> None:
    for run in (1, 3):
        before = container(status, run=run, agent=AgentLink(boot="b", gateway="g", connected=True))
        assert advance(before, report) is before


def test_health_keeps_the_last_five_probes() -> None:
    now = container("running")
    for number in range(7):
        now = advance(now, HealthReported(1, "starting", number, {"ExitCode": number}))
    assert now.state.health is not None
    assert [probe["ExitCode"] for probe in now.state.health.log] == [2, 3, 4, 5, 6]
    again = advance(now, HealthReported(1, "starting", 6, {"ExitCode": 6}))
    assert again == now


def test_exit_before_the_start_was_told() -> None:
    ended = advance(container("starting"), Exited(1, 3, AT, 0.0))
    assert (ended.state.status, ended.state.exit_code, ended.state.started_at) == ("exited", 3, AT)
    fixed = advance(ended, Started(1, 9, STARTED))
    assert (fixed.state.started_at, fixed.state.pid, fixed.state.status) == (STARTED, 0, "exited")


@pytest.mark.parametrize(
    ("policy", "code", "count", "stopped", "expected"),
    [
        ({}, 1, 0, False, False),
        ({"Name": "no"}, 1, 0, False, False),
        ({"Name": "always"}, 0, 9, False, True),
        ({"Name": "always"}, 0, 0, True, False),
        ({"Name": "unless-stopped"}, 1, 0, False, True),
        ({"Name": "unless-stopped"}, 1, 0, True, False),
        ({"Name": "on-failure"}, 0, 0, False, False),
        ({"Name": "on-failure"}, 1, 99, False, True),
        ({"Name": "on-failure", "MaximumRetryCount": 3}, 1, 2, False, True),
        ({"Name": "on-failure", "MaximumRetryCount": 3}, 1, 3, False, False),
    ],
)
def test_policies(policy: dict[str, Any], code: int, count: int, stopped: bool, expected: bool) -> None:
    subject = container("running", host_config={"RestartPolicy": policy}, restart_count=count)
    subject = subject.model_copy(update={"state": subject.state.model_copy(update={"stop_requested": stopped})})
    assert should_restart(subject, code) is expected


def test_the_backoff_doubles_to_a_minute_and_begins_anew_after_a_long_run() -> None:
    subject, delays = container("running"), []
    for _ in range(12):
        delay = next_delay(subject, 0.5)
        delays.append(round(delay, 3))
        subject = subject.model_copy(update={"state": subject.state.model_copy(update={"restart_delay": delay})})
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60.0
    assert next_delay(subject, 10.0) == 0.1


def _hello(boot: str, run: int = 0, running: bool = False) -> Hello:
    return Hello(boot, run, running, "g", AT, 0.0)


LINKED = AgentLink(boot="b", gateway="g", connected=True)
LOST = AgentLink(boot="b", gateway="g", connected=False)


@pytest.mark.parametrize(
    ("status", "known", "hello", "action"),
    [
        ("starting", None, _hello("n"), "start"),
        ("starting", LOST, _hello("n"), "start"),
        ("starting", LINKED, _hello("n"), "shutdown"),
        ("starting", LINKED, _hello("b"), "start"),
        ("starting", LOST, _hello("b", run=1, running=True), "resume"),
        ("running", LOST, _hello("b", run=1, running=True), "resume"),
        ("running", LINKED, _hello("n"), "shutdown"),
        ("running", LOST, _hello("n"), "shutdown"),
        ("exited", LOST, _hello("b", run=1), "resume"),
        ("exited", LOST, _hello("n"), "shutdown"),
        ("exited", LOST, _hello("n", run=1), "shutdown"),
        ("created", None, _hello("n"), "shutdown"),
        ("removing", LINKED, _hello("b", run=1, running=True), "shutdown"),
        ("running", LOST, _hello("b", run=5, running=True), "shutdown"),
    ],
)
def test_greetings(status: str, known: AgentLink | None, hello: Hello, action: str) -> None:
    after, told = greet(container(status, agent=known), hello)
    assert told == action
    if action != "shutdown":
        assert after.agent is not None
        assert (after.agent.boot, after.agent.connected) == (hello.boot, True)


def test_a_new_process_in_the_place_of_a_lost_one_ends_the_run() -> None:
    after, told = greet(container("running", agent=LOST), _hello("n"))
    assert (after.state.status, after.state.exit_code, told) == ("exited", 137, "shutdown")


RUNS = st.integers(1, 3)
TIMES = st.integers(0, 50).map(lambda seconds: rfc3339(1_767_225_600_000_000_000 + seconds * 10**9))
EVENTS: st.SearchStrategy[LifecycleEvent] = st.one_of(
    st.just(START),
    st.just(StartRequested(LEASE, manual=False)),
    st.just(STOP),
    st.builds(KillRequested, st.sampled_from([9, 15, 10]), st.just(AT)),
    st.just(RestartRequested(LEASE)),
    st.builds(PauseRequested, st.booleans()),
    st.builds(UnpauseRequested, st.booleans()),
    st.builds(Started, RUNS, st.integers(1, 9), TIMES),
    st.builds(Failed, RUNS, st.sampled_from([126, 127]), st.just("x"), st.just(0.0)),
    st.builds(Exited, RUNS, st.integers(0, 255), TIMES, st.just(0.0), st.booleans()),
    st.builds(HealthReported, RUNS, st.sampled_from(["healthy", "unhealthy"]), st.integers(0, 3)),
    st.just(LinkGone("b")),
    st.just(FORCE),
)
POLICIES = st.sampled_from(["no", "always", "on-failure", "unless-stopped"])


@settings(max_examples=400, deadline=None)
@given(policy=POLICIES, remove=st.booleans(), history=st.lists(EVENTS, max_size=25))
def test_random_histories(policy: str, remove: bool, history: list[LifecycleEvent]) -> None:
    host = {"RestartPolicy": {"Name": policy}, "AutoRemove": remove}
    now = container("created", run=0, host_config=host, agent=LINKED)
    for event in history:
        before = now
        try:
            now = advance(before, event)
        except DockerError:
            continue
        assert now.state.run in (before.state.run, before.state.run + 1)
        if now.state.run != before.state.run:
            assert isinstance(event, StartRequested)
            assert now.state.status == "starting"
        if before.state.status == "removing":
            assert now.state.status == "removing"
        if now.state.status not in {"running", "paused", "removing"}:
            assert now.state.pid == 0
        if now.state.status in {"exited", "restarting"}:
            assert nanoseconds(now.state.finished_at) >= nanoseconds(now.state.started_at)
        if now.state.status in {"starting", "restarting", "removing"}:
            assert now.lease is not None
        if not isinstance(event, (KillRequested, StartRequested, RemoveRequested, RestartRequested)):
            # Every report and every stop may be told twice.
            try:
                assert advance(now, event) == now
            except DockerError:
                assert not isinstance(event, (Started, Failed, Exited, HealthReported, LinkGone))
