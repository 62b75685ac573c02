"""Key-encryption keys in Cloud KMS and in Key Vault, and a store sealed with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from control_plane.backends.calls import CloudError
from control_plane.entrypoints.hosted_settings import HostedSettings
from control_plane.entrypoints.stores import open_store
from control_plane.errors import DockerError, ServerError, Unavailable
from control_plane.store.key_list import KeyList, new_key
from control_plane.store.key_ring import KeyRing, read_keys
from control_plane.store.key_vault import VaultKey
from control_plane.store.key_wrapper import KeyWrapper, UnknownKey
from control_plane.store.kms import KmsKey
from control_plane.store.sealed import SealedStore
from control_plane.store.sqlite import SqliteStore
from tests.contract.key_services import NAME, Kms, Service, Vault

BODY: dict[str, Any] = {"id": "c", "config": {"Env": ["TOKEN=hunter2"]}}
Make = Callable[..., KeyWrapper]


class Tokens:
    """Gives one token, and after it is told that it does not count, the next."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts) or ["good"]

    async def __call__(self, fresh: bool) -> str:
        if fresh and len(self.texts) > 1:
            self.texts.pop(0)
        return self.texts[0]


@pytest.fixture(params=["kms", "vault"])
async def service(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    async with (Kms() if request.param == "kms" else Vault()).serving() as served:
        yield served


@pytest.fixture
def make(service: Service) -> Make:
    def made(*tokens: str, total: float = 5.0) -> KeyWrapper:
        if isinstance(service, Kms):
            return KmsKey(NAME, Tokens(*tokens), service.url, total)
        return VaultKey(f"{service.url}/keys/store", Tokens(*tokens), total)

    return made


async def test_a_data_key_comes_back(make: Make) -> None:
    key = make()
    key_id, wrapped = await key.wrap(b"k" * 32)
    assert wrapped != b"k" * 32
    assert await key.unwrap(key_id, wrapped) == b"k" * 32
    await key.close()


async def test_a_rotated_key_opens_what_the_old_version_wrapped(service: Service, make: Make) -> None:
    key = make()
    old, wrapped = await key.wrap(b"k" * 32)
    service.rotate()
    new, _ = await key.wrap(b"l" * 32)
    assert new != old
    assert await key.unwrap(old, wrapped) == b"k" * 32
    service.disabled.add("1")
    with pytest.raises(UnknownKey):
        await key.unwrap(old, wrapped)
    await key.close()


async def test_a_token_that_ended_is_replaced_once(service: Service, make: Make) -> None:
    key = make("stale", "good")
    await key.wrap(b"k" * 32)
    await key.close()
    refused = make("stale", "staler")
    with pytest.raises(CloudError) as error:
        await refused.wrap(b"k" * 32)
    assert error.value.code == "UNAUTHENTICATED"
    assert isinstance(error.value.docker(), ServerError)
    assert "stale" not in str(error.value)
    await refused.close()


async def test_passing_failures_are_sat_out(service: Service, make: Make) -> None:
    key = make()
    service.fail = [(503, {}), (500, {"error": {"code": 500, "message": "Internal", "status": "INTERNAL"}})]
    key_id, wrapped = await key.wrap(b"k" * 32)
    service.fail = [(429, {"error": {"code": "Throttled", "message": "Request was not processed: too many"}})]
    assert await key.unwrap(key_id, wrapped) == b"k" * 32
    await key.close()


async def test_a_quota_that_stays_exhausted_ends_with_503(service: Service, make: Make) -> None:
    key = make(total=0.2)
    service.fail = [(429, {})] * 50
    with pytest.raises(CloudError) as error:
        await key.wrap(b"k" * 32)
    assert isinstance(error.value.docker(), Unavailable)
    await key.close()


async def test_a_missing_right_is_told_at_once(service: Service, make: Make) -> None:
    key = make()
    service.fail = [(403, {"error": {"code": 403, "message": "Permission denied", "status": "PERMISSION_DENIED"}})]
    with pytest.raises(CloudError, match="Permission denied"):
        await key.wrap(b"k" * 32)
    assert len(service.asked) == 1
    await key.close()


async def test_what_was_wrapped_elsewhere_is_refused(service: Service, make: Make) -> None:
    key = make()
    key_id, wrapped = await key.wrap(b"k" * 32)
    with pytest.raises(ValueError, match="was not wrapped"):
        await key.unwrap(key_id, wrapped[:-1] + bytes([wrapped[-1] ^ 1]))
    await key.close()


async def test_the_store_does_not_choose_who_is_asked(service: Service, make: Make) -> None:
    key = make()
    for foreign in ("http://127.0.0.1:9/keys/store/" + "0" * 32, "projects/p/cryptoKeys/x", "", f"{NAME}/../x", "1"):
        with pytest.raises(UnknownKey):
            await key.unwrap(foreign, b"x" * 40)
    assert service.asked == []
    await key.close()


@pytest.mark.parametrize("answer", [{}, {"name": "projects/x", "key": {"kid": "x"}}, {"key": "no"}, []])
async def test_an_answer_that_is_none_is_told(service: Service, make: Make, answer: Any) -> None:
    key = make()
    service.fail = [(200, answer)]
    with pytest.raises(CloudError, match="cannot be read"):
        await key.wrap(b"k" * 32)
    await key.close()


async def test_writes_cost_no_call_each(service: Service, make: Make, tmp_path: Path) -> None:
    store = SealedStore(SqliteStore(tmp_path / "store.db"), make())
    await asyncio.gather(*(store.create("containers", "t", f"c{n}", BODY) for n in range(50)))
    assert service.count("encrypt") + service.count("/wrapkey") == 1
    assert service.count("decrypt") + service.count("/unwrapkey") == 1, "the check of the new data key"
    await store.close()
    service.asked.clear()
    other = SealedStore(SqliteStore(tmp_path / "store.db"), make())
    found = await asyncio.gather(*(other.get("containers", "t", f"c{n}") for n in range(50)))
    assert all(document is not None and document.body == BODY for document in found)
    assert len(service.asked) == 1, "many that ask at once wait for one call"
    await other.close()


async def test_a_store_sealed_with_a_rotated_key_is_resealed(service: Service, make: Make, tmp_path: Path) -> None:
    store = SealedStore(SqliteStore(tmp_path / "store.db"), make())
    for number in range(3):
        await store.create("containers", "t", f"c{number}", BODY)
    service.rotate()
    await store.close()
    told: list[tuple[int, int]] = []
    fresh = SealedStore(SqliteStore(tmp_path / "store.db"), make())
    assert await fresh.reseal("containers", lambda *seen: told.append(seen)) == 3
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert await fresh.reseal("containers") == 0
    await fresh.close()
    service.disabled.add("1")
    after = SealedStore(SqliteStore(tmp_path / "store.db"), make())
    assert [document.body for document in await after.list("containers", "t")] == [BODY] * 3
    await after.close()


async def test_nothing_is_sealed_while_the_service_is_away(service: Service, make: Make, tmp_path: Path) -> None:
    inner = SqliteStore(tmp_path / "store.db")
    store = SealedStore(inner, make(total=0.2))
    service.fail = [(503, {})] * 100
    with pytest.raises(DockerError):
        await store.create("containers", "t", "c", BODY)
    assert await inner.list("containers") == []
    service.fail = []
    await store.create("containers", "t", "c", BODY)
    await store.close()


async def test_an_endpoint_moves_from_a_key_list_to_a_service(make: Make, tmp_path: Path) -> None:
    keys = KeyList(new_key("one"), "the test")
    before = SealedStore(SqliteStore(tmp_path / "store.db"), keys)
    await before.create("containers", "t", "c", BODY)
    await before.close()
    store = SealedStore(SqliteStore(tmp_path / "store.db"), KeyRing([make(), keys]))
    found = await store.get("containers", "t", "c")
    assert found is not None
    assert found.body == BODY
    assert await store.reseal("containers") == 1
    await store.close()
    alone = SealedStore(SqliteStore(tmp_path / "store.db"), make())
    assert (await alone.list("containers"))[0].body == BODY
    await alone.close()


def test_keys_are_read_in_their_order() -> None:
    text = f"{new_key('one')}kms:{NAME}\nvault:https://acme.vault.azure.net/keys/store\n{new_key('two')}"
    assert [type(key) for key in read_keys(text, "X")] == [KeyList, KmsKey, VaultKey, KeyList]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "one",
        "kms:projects/p",
        f"kms:{NAME}/cryptoKeyVersions/1",
        "vault:http://acme.vault.azure.net/keys/store",
        "vault:https://evil.example/keys/store",
        "vault:https://acme.vault.azure.net/keys/store/0123456789abcdef0123456789abcdef",
    ],
)
def test_names_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"wanted|no key"):
        read_keys(text, "X")


async def test_the_environment_names_the_keys(tmp_path: Path) -> None:
    from pydantic import SecretStr

    settings = HostedSettings.model_construct(
        store=f"sqlite://{tmp_path}/store.db", sealing_key=SecretStr(new_key("one"))
    )
    store = open_store(settings)
    assert isinstance(store, SealedStore)
    await store.create("containers", "t", "c", BODY)
    await store.close()
    assert b"hunter2" not in (tmp_path / "store.db").read_bytes()
