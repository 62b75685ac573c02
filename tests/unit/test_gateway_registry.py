"""The registry of gateways, and what hellos and farewells of several gateways make of a container."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.errors import NotFound, Unavailable
from control_plane.model import AgentLink, Container, Execution, RunState
from control_plane.services.containers import Containers
from control_plane.services.gateways import Gateways
from control_plane.services.greeting import Hello, greet
from control_plane.services.moves import Moves, place
from control_plane.services.reports import LinkGone, apply_report
from control_plane.store.sqlite import SqliteStore
from tests.unit.run_world import World

A, B = "https://a", "https://b"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "state.db")
    yield store
    await store.close()


def container(**fields: Any) -> Container:
    base: dict[str, Any] = {"id": "c1", "tenant": "t", "name": "n", "created_at": "2026-01-01T00:00:00Z", "image": "i"}
    base |= {"image_id": "sha256:1", "config": {}, "host_config": {}, "backend": "fake", "gateway": A}
    return Container(**(base | fields))


async def test_the_least_busy_gateway_is_picked_and_load_is_spread_between_readings(store: SqliteStore) -> None:
    gateways = Gateways(store)
    with pytest.raises(Unavailable, match="no gateway is available"):
        await gateways.pick()
    assert await gateways.register(A, "i1", 5, draining=False) == []
    assert await gateways.register(B, "i2", 3, draining=False) == [A]
    picked = [await gateways.pick() for _ in range(6)]
    assert picked[:2] == [B, B]
    assert picked.count(A) == picked.count(B) - 2


async def test_one_that_drains_or_is_silent_is_not_picked(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    gateways = Gateways(store)
    await gateways.register(A, "i1", 0, draining=False)
    await gateways.register(B, "i2", 9, draining=False)
    await gateways.register(A, "i1", 0, draining=True)
    assert await gateways.pick() == B
    assert not await gateways.serves(A)
    later = time.time() + 31
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(Unavailable):
        await gateways.pick()


async def test_a_new_process_at_a_url_keeps_the_record_when_the_old_one_goes(store: SqliteStore) -> None:
    gateways = Gateways(store)
    await gateways.register(A, "old", 4, draining=False)
    await gateways.register(A, "new", 0, draining=False)
    await gateways.register(A, "old", 4, draining=True)
    await gateways.deregister(A, "old")
    assert await gateways.pick() == A
    await gateways.deregister(A, "new")
    with pytest.raises(Unavailable):
        await gateways.pick()


async def test_a_fixed_gateway_needs_no_registry(store: SqliteStore) -> None:
    assert await Gateways(store, only=A).pick() == A
    assert await store.list("gateways") == []


class Calls:
    """Gateways that are told of moves."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.dead: set[str] = set()

    async def call_at(self, url: str, container: Container, method: str, params: Any, timeout: float) -> dict[str, Any]:
        self.told.append((url, method))
        if url in self.dead:
            raise Unavailable("the gateway can't be reached")
        return {"streams": ["s1"]}


def check(authorization: str | None, stream: str) -> tuple[str, str]:
    return "t", stream


async def test_waiting_halves_are_sent_after_an_agent_once(store: SqliteStore) -> None:
    records, calls = Containers(store).records, Calls()
    moves = Moves(records, calls, Gateways(store), check)
    linked = AgentLink(boot="b1", gateway=B, connected=True)
    moved = await records.create("t", "c1", container(agent=linked))
    assert await moves.settle(container(), moved) == ["s1"]
    now = await records.get("t", "c1")
    assert now is not None
    assert now.gateway == B
    assert await moves.settle(now, now) == []
    assert calls.told == [(A, "move")]


async def test_a_dead_gateway_does_not_hold_a_hello_up(store: SqliteStore) -> None:
    records, calls = Containers(store).records, Calls()
    calls.dead.add(A)
    moves = Moves(records, calls, Gateways(store), check)
    moved = await records.create("t", "c1", container(agent=AgentLink(boot="b1", gateway=B, connected=True)))
    assert await moves.settle(container(), moved) == []
    now = await records.get("t", "c1")
    assert now is not None
    assert now.gateway == B


async def test_a_container_whose_gateway_died_gets_another_before_its_next_start(store: SqliteStore) -> None:
    records, gateways = Containers(store).records, Gateways(store)
    moves = Moves(records, Calls(), gateways, check)
    kept = await records.create("t", "c1", container())
    assert (await moves.home(kept)).gateway == A  # none lives: its own may be the first
    await gateways.register(B, "i2", 0, draining=False)
    assert (await moves.home(kept)).gateway == B
    assert await moves.where("Bearer x", "c1") == B
    with pytest.raises(NotFound):
        await moves.where("Bearer x", "c2")


async def test_a_container_whose_agent_is_on_its_way_gets_another_gateway_too(store: SqliteStore) -> None:
    records, gateways, calls = Containers(store).records, Gateways(store), Calls()
    moves = Moves(records, calls, gateways, check)
    await gateways.register(B, "i2", 0, draining=False)
    execution = Execution(name="e", job="j", first_run=1, created_at="")
    await records.create("t", "c1", container(state=RunState(status="starting", run=1), execution=execution))
    assert await moves.where("Bearer x", "c1") == B
    # It says hello at the first one all the same, which has come back: what waits at the other follows it.
    linked = AgentLink(boot="b1", gateway=A, connected=True)
    before = await records.get("t", "c1")
    after = await records.update("t", "c1", lambda c: c.model_copy(update={"agent": linked}))
    assert before is not None
    assert after is not None
    assert await moves.settle(before, after) == ["s1"]
    assert calls.told == [(B, "move")]
    assert await moves.where("Bearer x", "c1") == A


async def test_a_few_of_the_others_are_named_to_an_agent(store: SqliteStore) -> None:
    gateways = Gateways(store)
    moves = Moves(Containers(store).records, Calls(), gateways, check)
    assert await moves.beside(container()) == []
    urls = [f"https://g{number}" for number in range(7)]
    for url in (A, *urls):
        await gateways.register(url, url, 0, draining=url == urls[0])
    named = await moves.beside(container())
    assert len(named) == len(set(named)) == 4
    assert set(named) < set(urls[1:])


async def test_where_gateways_do_not_register_nothing_is_read_or_written(store: SqliteStore) -> None:
    records = Containers(store).records
    moves = Moves(records, Calls(), Gateways(store, only=A), check)
    kept = await records.create("t", "c1", container())

    async def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the store was asked")

    for name in ("list", "get", "replace", "create"):
        assert hasattr(store, name)
        setattr(store, name, never)
    await moves.expect(kept, "ab" * 16)
    assert await moves.beside(kept) == []
    assert await moves.home(kept) == kept


@pytest.mark.parametrize("connected", [True, False])
def test_the_place_of_a_container(connected: bool) -> None:
    linked = AgentLink(boot="b1", gateway=B, connected=connected)
    assert place(container(agent=linked)) == (B if connected else A)


def hello(gateway: str, link: int, instance: str = "") -> Hello:
    return Hello("b1", 1, True, gateway, "2026-01-01T00:00:00Z", 0.0, instance=instance, link=link)


def test_an_older_hello_that_comes_late_changes_nothing() -> None:
    begun = container(state=RunState(status="running", run=1), agent=AgentLink(boot="b1", gateway=A, connected=True))
    moved, action = greet(begun, hello(B, 2))
    assert action == "resume"
    assert place(moved) == B
    late, action = greet(moved, hello(A, 1))
    assert action == "wait"
    assert late == moved


def test_only_the_process_that_has_the_link_says_that_it_is_gone() -> None:
    linked = AgentLink(boot="b1", gateway=A, connected=True, instance="new", link=2)
    running = container(state=RunState(status="running", run=1), agent=linked)
    assert apply_report(running, LinkGone("b1", "old")) == running
    for gone in (LinkGone("b1", "new"), LinkGone("b1")):
        after = apply_report(running, gone)
        assert after.agent is not None
        assert not after.agent.connected


async def test_a_gateway_is_dead_when_its_lease_is_long_over_and_others_live(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateways = Gateways(store)
    await gateways.register(A, "i1", 0, draining=False)
    assert not await gateways.dead(A)
    later = time.time() + 70
    monkeypatch.setattr(time, "time", lambda: later)
    assert not await gateways.dead(A)  # none lives: the registry itself may have been away
    await gateways.register(B, "i2", 0, draining=False)
    assert await gateways.dead(A)
    assert await gateways.dead("https://never-seen")
    assert not await gateways.dead(B)


async def test_the_reconciler_gives_up_the_links_of_a_dead_gateway(tmp_path: Path) -> None:
    world = World(tmp_path)
    try:
        made = await world.create()
        linked = AgentLink(boot="b1", gateway=A, connected=True, instance="i1", link=1)
        records = world.containers.records
        await records.update(made.tenant, made.id, lambda c: c.model_copy(update={"agent": linked}))
        alive = False

        class Known:
            async def living(self) -> set[str]:
                return {A, B} if alive else {B}

            async def dead(self, url: str) -> bool:
                return not alive and url == A

        world.services.reconciler.doubt_with(Known())
        alive = True
        for _ in range(2):
            await world.services.reconciler.pass_once()
        kept = await records.get(made.tenant, made.id)
        alive = False
        await world.services.reconciler.pass_once()
        lost = await records.get(made.tenant, made.id)
        assert kept is not None
        assert kept.agent == linked
        assert lost is not None
        assert lost.agent is not None
        assert not lost.agent.connected
    finally:
        await world.close()
