"""Who makes the reconciler's passes, what a pass reads, and that nothing it leaves unread needed it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from control_plane.due import ALWAYS, due_of
from control_plane.model import AgentLink, Container, Execution, Lease, RunState
from control_plane.services.containers import Containers
from control_plane.services.gateways import Gateways
from control_plane.services.run_assembly import RunServices
from control_plane.services.turns import Turn
from control_plane.store.sqlite import SqliteStore
from control_plane.telemetry import hooks
from control_plane.timestamps import now, rfc3339
from tests.counted_store import CountedStore
from tests.unit.run_world import FAST, TENANT, World

GATEWAY = "http://gw"
LINKED = AgentLink(boot="b", gateway=GATEWAY, connected=True, instance="i", link=1)
GONE = LINKED.model_copy(update={"connected": False})
LATER = Lease(operation="start", owner="other/1", expires_at=time.time() + 10_000)
OVER = LATER.model_copy(update={"expires_at": 1.0})


class Counted:
    """A world whose store is counted, with any number of control planes on it."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(path)
        self.store = CountedStore(self.world.store)
        self.world.store = self.store  # type: ignore[assignment]
        self.world.containers = Containers(self.store)
        self._monkeypatch = monkeypatch
        self._began = time.time()
        self.later = 0.0

    def plane(self, name: str, **settings: Any) -> RunServices:
        return self.world.assemble(replace(FAST, instance=name, **settings))

    def pass_time(self, seconds: float) -> None:
        self.later += seconds
        self._monkeypatch.setattr(time, "time", lambda: self._began + self.later)

    async def costs(self, plane: RunServices) -> tuple[bool, int, int]:
        """A pass: whether it was this one's turn, documents read, documents written."""
        before = self.store.reads, self.store.writes
        done = await plane.reconciler.pass_once()
        return done, self.store.reads - before[0], self.store.writes - before[1]

    async def add(self, status: str, **what: Any) -> Container:
        container = await self.world.create(f"c{self.store.writes}")
        what.setdefault("execution", Execution(name="e", job="j", first_run=1, created_at=now()))
        return await self.world.change(
            container, state=RunState.model_validate({"status": status, "run": 1, "started_at": now()}), **what
        )


@pytest.fixture
async def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Counted]:
    counted = Counted(tmp_path, monkeypatch)
    yield counted
    hooks.containers = None
    await counted.world.close()


async def _at_rest(counted: Counted) -> None:
    """40 containers that nobody needs to look at."""
    for _ in range(10):
        await counted.add("running", agent=LINKED)
        await counted.add("exited", agent=LINKED)
        await counted.add("exited")
        await counted.add("created")


async def test_a_pass_reads_what_is_due_and_writes_its_lease(counted: Counted) -> None:
    await _at_rest(counted)
    plane = counted.plane("a")
    # The very first looks at all 40: documents of an older version say nothing.
    assert await counted.costs(plane) == (True, 1 + 40, 1)
    for _ in range(3):
        assert await counted.costs(plane) == (True, 1, 1)  # one: the answer that nothing is due
    for _ in range(2):
        await counted.add("running", agent=GONE)
    assert await counted.costs(plane) == (True, 2, 1)


async def test_of_several_control_planes_one_makes_the_passes(counted: Counted) -> None:
    await _at_rest(counted)
    a, b, c = (counted.plane(name) for name in "abc")
    await counted.costs(a)
    for _ in range(3):
        assert await counted.costs(a) == (True, 1, 1)
        assert await counted.costs(b) == (False, 1, 0)
        assert await counted.costs(c) == (False, 1, 0)
        counted.pass_time(FAST.reconcile_interval)


async def test_the_turn_of_one_that_is_lost_is_taken_over(counted: Counted) -> None:
    await _at_rest(counted)
    a, b = counted.plane("a"), counted.plane("b")
    await a.reconciler.pass_once()
    abandoned = await counted.add("removing", lease=OVER)
    counted.pass_time(FAST.reconcile_interval)
    assert not await b.reconciler.pass_once()
    counted.pass_time(FAST.reconcile_interval + 1)
    done, reads, _ = await counted.costs(b)
    assert done
    assert reads <= 1 + 1 + 5  # the lease, the one that is due, its removal
    assert await counted.world.containers.records.get(TENANT, abandoned.id) is None
    # The lost one is back: it is not its turn any more.
    assert not await a.reconciler.pass_once()
    assert await counted.costs(a) == (False, 1, 0)


async def test_one_that_leaves_hands_over_at_once(counted: Counted) -> None:
    a, b = counted.plane("a"), counted.plane("b")
    assert await a.reconciler.pass_once()
    assert not await b.reconciler.pass_once()
    await a.reconciler.leave()
    assert await b.reconciler.pass_once()


async def test_a_pass_that_fails_leaves_the_turn_to_others(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = counted.plane("a"), counted.plane("b")
    await a.reconciler.pass_once()

    async def fail(*_: object) -> list[Any]:
        raise OSError("no")

    with monkeypatch.context() as broken:
        broken.setattr(counted.store, "due", fail)
        with pytest.raises(OSError, match="no"):
            await a.reconciler.pass_once()
    assert await b.reconciler.pass_once()


async def test_passes_on_a_schedule_take_turns_whoever_makes_them(counted: Counted) -> None:
    await _at_rest(counted)
    a, b = counted.plane("a", reconcile_interval=0), counted.plane("b", reconcile_interval=0)
    await a.reconciler.pass_once()
    assert await counted.costs(b) == (True, 1 + 1, 2)  # the lease is taken, and given up after the pass
    assert await counted.costs(a) == (True, 1 + 1, 2)
    # A control plane with passes of its own has the turn for longer than they take.
    c = counted.plane("c")
    assert await c.reconciler.pass_once()
    assert await counted.costs(a) == (False, 1, 0)


async def test_all_are_looked_at_once_in_the_audit_interval_by_whoever_has_the_turn(counted: Counted) -> None:
    await _at_rest(counted)
    told: list[Any] = []
    hooks.containers = told.append
    a, b = counted.plane("a"), counted.plane("b")
    await a.reconciler.pass_once()
    assert told == [{"running": 10, "exited": 20, "created": 10}]
    counted.pass_time(FAST.audit_interval - 50)
    assert (await counted.costs(b))[0]
    assert len(told) == 1
    assert not await a.reconciler.pass_once()
    assert told.pop() is None  # its count would only be old
    await b.reconciler.leave()
    counted.pass_time(60)
    done, reads, _ = await counted.costs(a)  # made the first pass, but no audit: whose turn it was does not matter
    assert done
    assert reads >= 40
    assert told[-1] == {"running": 10, "exited": 20, "created": 10}
    assert (await counted.costs(a))[1] == 1


async def test_all_are_looked_at_when_a_gateway_has_died(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    await _at_rest(counted)
    a, b = counted.plane("a"), counted.plane("b")
    registry = Gateways(counted.store)
    for plane in (a, b):
        plane.reconciler.doubt_with(Gateways(counted.store))
    await registry.register(GATEWAY, "i", 0, draining=False)
    await registry.register("http://other", "j", 0, draining=False)
    await a.reconciler.pass_once()
    assert (await counted.costs(a))[1] <= 1 + 2
    linked = await counted.add("exited", agent=LINKED)
    await a.reconciler.leave()
    counted.pass_time(45)  # its lease is over; it is not dead for certain yet
    await registry.register("http://other", "j", 0, draining=False)
    await b.reconciler.pass_once()
    counted.pass_time(25)
    await registry.register("http://other", "j", 0, draining=False)
    b.reconciler._gateways = Gateways(counted.store)  # what it has read is kept for two seconds
    await b.reconciler.pass_once()
    lost = await counted.world.get(linked)
    assert lost.agent is not None
    assert not lost.agent.connected
    await counted.world.settle()
    counted.pass_time(1)
    assert (await counted.costs(b))[1] <= 10 + 3  # once: then only those whose agents are gone


_STATES: list[tuple[str, dict[str, Any]]] = [
    (status, {"agent": agent, "lease": lease, "run_limit": limit})
    for status in ("created", "starting", "running", "paused", "restarting", "removing", "exited", "dead")
    for agent in (None, LINKED, GONE)
    for lease in (None, LATER, OVER)
    for limit in (0, 1000)
]


async def test_what_is_not_due_needs_no_look(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every state there is, looked at all the same: nothing is asked, written or begun."""
    plane = counted.plane("a")
    began: list[str] = []
    monkeypatch.setattr(counted.world.cloud, "outcome", lambda *_: began.append("outcome"))
    monkeypatch.setattr(plane.background, "spawn", lambda work, name: began.append(name))
    resting = 0
    for status, what in _STATES:
        container = await counted.add(status, **what)
        due = due_of("containers", container.model_dump(mode="json"))
        if due is not None and due <= time.time():
            continue
        resting += 1
        writes = counted.store.writes
        await plane.reconciler._look(container, time.time(), audit=False)
        assert (counted.store.writes, began) == (writes, []), (status, what)
    assert 40 < resting < len(_STATES)


async def test_a_run_is_due_at_its_limit(counted: Counted) -> None:
    container = await counted.add("running", agent=LINKED, run_limit=100)
    began = 1_000_000_000
    state = container.state.model_copy(update={"started_at": rfc3339(began * 10**9)})
    assert due_of("containers", container.model_copy(update={"state": state}).model_dump()) == began + 100
    assert due_of("containers", container.model_copy(update={"agent": None}).model_dump()) == ALWAYS


@pytest.mark.parametrize("body", [{}, {"state": None}, {"state": {"status": "starting"}, "lease": 1}, {"state": {}}])
def test_a_body_that_is_no_containers_is_never_due_or_always(body: dict[str, Any]) -> None:
    assert due_of("containers", body) is None
    assert due_of("volumes", body) is None


async def test_clocks_that_differ(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    offsets = {"a": 0.0, "b": 0.0}
    turns = {name: Turn(store, "x", name, 10, lambda name=name: 1000 + offsets[name]) for name in offsets}  # type: ignore[misc]
    assert await turns["a"].take()
    offsets["b"] = 9
    assert not await turns["b"].take()
    offsets["b"] = -9
    assert not await turns["b"].take()
    # One that is an hour ahead dies with the turn: nobody waits an hour for it.
    offsets["a"] = 3600
    assert await turns["a"].take()
    assert await turns["b"].take()
    assert not await turns["a"].take()
    await store.close()


async def test_two_that_take_the_turn_at_once_do_not_both_get_it(tmp_path: Path) -> None:
    store, other = SqliteStore(tmp_path / "store.db"), SqliteStore(tmp_path / "store.db")
    a, b = Turn(store, "x", "a", 10, lambda: 1000), Turn(other, "x", "a", 10, lambda: 1000)
    found = await other.get("leases", "endpoint", "x")
    assert found is None
    assert await a.take()
    assert not await b._begin()
    assert not await b.take()
    await a.give_up()
    free = await store.get("leases", "endpoint", "x")
    assert free is not None
    assert await b.take()
    assert not await a._write(free, 2000)
    await store.close()
    await other.close()


async def test_what_was_got_to_is_handed_on(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    a, b = (Turn(store, "x", name, 10, lambda: 1000) for name in "ab")
    assert await a.take()
    assert a.first
    a.note(audited=7.0, gateways=("g",))
    await a.give_up()
    assert await b.take()
    assert not b.first
    assert (b.progress.audited, b.progress.gateways) == (7.0, ("g",))
    await store.close()
