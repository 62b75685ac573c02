"""Fields encrypted at rest, over any store (`test_store` runs the whole contract over `SealedStore` as well)."""

from __future__ import annotations

import json
import stat
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from control_plane.errors import ServerError
from control_plane.store.base import Document, Store
from control_plane.store.key_file import KeyFile, new_key, new_key_file
from control_plane.store.sealed import SealedStore
from tests.contract.store_fixtures import Open, next_change, reopen

__all__ = ["reopen"]

SECRET = "hunter2-ü"
BODY: dict[str, Any] = {"id": "c", "config": {"Env": [f"TOKEN={SECRET}", "A="], "Cmd": ["true"]}, "state": {"run": 1}}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "kek"
    new_key_file(path, "one")
    return path


def _sealed(inner: Store, keys: Path) -> SealedStore:
    return SealedStore(inner, KeyFile(keys))


def _text(document: Document | None) -> str:
    assert document is not None
    return json.dumps(document.body, ensure_ascii=False)


def _prepend(keys: Path, line: str) -> str:
    """Puts a key on top; what was there before."""
    old = keys.read_text()
    keys.write_text(line + old)
    return old


def _drop(keys: Path, old: str) -> None:
    keys.write_text(keys.read_text().removesuffix(old))


@pytest.mark.parametrize("collection", ["containers", "execs"])
async def test_secrets_are_not_in_the_store_beneath(reopen: Open, keys: Path, collection: Any) -> None:
    inner = await reopen()
    store = _sealed(inner, keys)
    created = await store.create(collection, "t", "k", BODY)
    assert created.body == BODY
    replaced = await store.replace(created, {**BODY, "state": {"run": 2}})
    assert "TOKEN" not in _text(await inner.get(collection, "t", "k"))
    beneath = await inner.get(collection, "t", "k")
    assert beneath is not None
    assert beneath.body["config"]["Cmd"] == ["true"]
    fresh = _sealed(await reopen(), keys)
    assert await fresh.get(collection, "t", "k") == replaced
    assert await fresh.list(collection) == await fresh.find(collection, "t", "k") == [replaced]


async def test_watches_tell_what_was_sealed_by_another(reopen: Open, keys: Path) -> None:
    reader, writer = _sealed(await reopen(), keys), _sealed(await reopen(), keys)
    async with aclosing(reader.watch("containers", "t", "k")) as changes:  # type: ignore[type-var]
        assert await next_change(changes) is None
        created = await writer.create("containers", "t", "k", BODY)
        assert await next_change(changes) == created
        await writer.delete(created)
        assert await next_change(changes) is None


async def test_the_writers_body_stays_as_it_is(reopen: Open, keys: Path) -> None:
    body = {"config": {"Env": ["A=1"]}}
    created = await _sealed(await reopen(), keys).create("containers", "t", "k", body)
    assert created.body == body == {"config": {"Env": ["A=1"]}}


async def test_equal_values_are_sealed_differently(reopen: Open, keys: Path) -> None:
    inner = await reopen()
    store = _sealed(inner, keys)
    for key in ("a", "b"):
        await store.create("containers", "t", key, BODY)
    one, other = await inner.list("containers")
    assert one.body["config"]["Env"]["data"] != other.body["config"]["Env"]["data"]


@pytest.mark.parametrize("place", [("execs", "t", "a"), ("containers", "other", "a"), ("containers", "t", "b")])
async def test_a_sealed_value_does_not_open_elsewhere(reopen: Open, keys: Path, place: Any) -> None:
    inner = await reopen()
    store = _sealed(inner, keys)
    await store.create("containers", "t", "a", BODY)
    sealed = await inner.get("containers", "t", "a")
    assert sealed is not None
    collection, tenant, key = place
    await inner.create(collection, tenant, key, sealed.body)
    with pytest.raises(ServerError, match="cannot be decrypted"):
        await store.get(*place)


@pytest.mark.parametrize("field", ["data", "key", "kek", "$sealed"])
async def test_a_sealed_value_that_was_changed_does_not_open(reopen: Open, keys: Path, field: str) -> None:
    inner = await reopen()
    store = _sealed(inner, keys)
    await store.create("containers", "t", "a", BODY)
    document = await inner.get("containers", "t", "a")
    assert document is not None
    body = json.loads(json.dumps(document.body))
    value = body["config"]["Env"][field]
    body["config"]["Env"][field] = 2 if value == 1 else value[:-6] + ("AAAAA=" if value[-6:] != "AAAAA=" else "BBBBB=")
    await inner.replace(document, body)
    with pytest.raises(ServerError) as refused:
        await store.get("containers", "t", "a")
    assert SECRET not in refused.value.message + str(refused.value.internal)


async def test_plain_fields_from_before_are_read_and_sealed_by_the_next_write(reopen: Open, keys: Path) -> None:
    inner = await reopen()
    await inner.create("containers", "t", "k", BODY)
    store = _sealed(inner, keys)
    document = await store.get("containers", "t", "k")
    assert document is not None
    assert document.body == BODY
    await store.replace(document, BODY)
    assert SECRET not in _text(await inner.get("containers", "t", "k"))


async def test_rotation_ends_the_old_key(reopen: Open, keys: Path) -> None:
    inner = await reopen()
    await inner.create("containers", "t", "plain", BODY)
    before = _sealed(inner, keys)
    for key in ("a", "b"):
        await before.create("containers", "t", key, BODY)
    await before.create("containers", "other", "c", {"config": {}})
    old = _prepend(keys, new_key("two"))
    during = _sealed(inner, keys)
    assert [d.body for d in await during.list("containers", "t")] == [BODY] * 3
    assert await during.reseal("containers") == 3
    assert await during.reseal("containers") == 0
    _drop(keys, old)
    after = _sealed(inner, keys)
    assert [d.body for d in await after.list("containers", "t")] == [BODY] * 3
    assert SECRET not in "".join(_text(d) for d in await inner.list("containers"))


async def test_a_missing_key_is_said_without_naming_it_to_users(reopen: Open, keys: Path, tmp_path: Path) -> None:
    inner = await reopen()
    await _sealed(inner, keys).create("containers", "t", "k", BODY)
    new_key_file(tmp_path / "others", "two")
    with pytest.raises(ServerError, match="does not have") as refused:
        await _sealed(inner, tmp_path / "others").get("containers", "t", "k")
    assert "one" in str(refused.value.internal)


def test_a_key_file_is_for_its_owner_alone(keys: Path) -> None:
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        new_key_file(keys)
    keys.chmod(0o640)
    with pytest.raises(ValueError, match="chmod 600"):
        KeyFile(keys)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no key"),
        ("# none\n", "no key"),
        ("one\n", "an id and a key"),
        ("one !!!\n", "not base64"),
        ("one AAAA\n", "3 bytes"),
        (2 * ("one " + "A" * 43 + "=\n"), "twice"),
    ],
)
def test_a_key_file_that_is_wrong_is_refused(keys: Path, text: str, complaint: str) -> None:
    keys.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        KeyFile(keys)
