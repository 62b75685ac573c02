"""`sockerless reseal`: what it needs, what it does, that it may be repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.store.key_list import KeyList, new_key
from control_plane.store.sealed import SealedStore
from control_plane.store.sqlite import SqliteStore
from tests.contract.test_entrypoints_cli import sockerless

BODY = {"config": {"Env": ["TOKEN=hunter2"]}}


async def _fill(path: Path, text: str) -> None:
    inner = SqliteStore(path)
    await inner.create("containers", "t", "plain", BODY)
    store = SealedStore(inner, KeyList(text, "the test"))
    for number in range(30):
        await store.create("containers", "t", f"c{number}", BODY)
    await store.create("execs", "t", "e", BODY)
    await store.close()


async def _opens(path: Path, text: str) -> bool:
    store = SealedStore(SqliteStore(path), KeyList(text, "the test"))
    try:
        return all(document.body == BODY for document in await store.list("containers"))
    finally:
        await store.close()


async def test_after_it_the_new_key_is_enough(tmp_path: Path) -> None:
    path, old, new = tmp_path / "store.db", new_key("one"), new_key("two")
    await _fill(path, old)
    place = f"sqlite://{path}"
    done = sockerless("reseal", SOCKERLESS_STORE=place, SOCKERLESS_SEALING_KEY=new + old)
    assert done.returncode == 0, done.stderr
    assert "containers: 31 sealed anew" in done.stdout
    assert "execs: 1 sealed anew" in done.stdout
    assert "containers: 31 of 31" in done.stderr
    assert await _opens(path, new)
    again = sockerless("reseal", SOCKERLESS_STORE=place, SOCKERLESS_SEALING_KEY=new)
    assert again.returncode == 0
    assert "containers: 0 sealed anew" in again.stdout


async def test_a_key_that_is_missing_changes_nothing(tmp_path: Path) -> None:
    path, old, new = tmp_path / "store.db", new_key("one"), new_key("two")
    await _fill(path, old)
    done = sockerless("reseal", SOCKERLESS_STORE=f"sqlite://{path}", SOCKERLESS_SEALING_KEY=new)
    assert done.returncode == 1
    assert "a key that this endpoint does not have" in done.stderr
    assert "no key one" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({}, "SOCKERLESS_STORE is not set"),
        ({"SOCKERLESS_STORE": "nonsense"}, "SOCKERLESS_STORE"),
        ({"SOCKERLESS_STORE": "sqlite:///{path}/s.db"}, "nothing is sealed"),
        ({"SOCKERLESS_STORE": "sqlite:///{path}/s.db", "SOCKERLESS_SEALING_KEY": "one AAAA"}, "3 bytes"),
        ({"SOCKERLESS_STORE": "sqlite:///{path}/s.db", "SOCKERLESS_SEALING_KEY_FILE": "/nonexistent"}, "KEY_FILE"),
    ],
)
def test_what_is_missing_is_one_line(tmp_path: Path, variables: dict[str, str], complaint: str) -> None:
    given = {name: value.replace("/{path}", str(tmp_path)) for name, value in variables.items()}
    done = sockerless("reseal", **given)
    assert done.returncode == 1
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
