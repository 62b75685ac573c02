"""Users' registries over the wire: authorisation, lists, resumption, mirrors, and what is not followed."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import orjson
import pytest

from control_plane.errors import InvalidParameter, Unauthorized
from control_plane.registry import credentials
from control_plane.registry.base import ANONYMOUS, Credentials, RegistryError
from control_plane.registry.client import UpstreamRegistries
from control_plane.registry.endpoints import RegistryPolicy
from control_plane.registry.manifest import OCI_INDEX
from control_plane.registry.platform import Platform
from control_plane.registry.reference import parse_named
from tests.image_world import publish
from tests.registry_server import RegistryServer, registry_server

_LOGIN = Credentials("user", "secret")
_ANY = Platform()


@pytest.fixture
async def server() -> AsyncIterator[RegistryServer]:
    async with registry_server() as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[UpstreamRegistries]:
    upstreams = UpstreamRegistries(RegistryPolicy())
    yield upstreams
    await upstreams.close()


async def _bytes(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def test_an_image_is_found_and_its_blobs_are_read(server: RegistryServer, client: UpstreamRegistries) -> None:
    described = publish(server, "a/b", "1")
    found = await client.find(parse_named(f"{server.host}/a/b:1"), _ANY, ANONYMOUS)
    assert found.digest == described["digest"]
    assert (await found.config()).startswith(b"{")
    seen: list[int] = []
    data = await _bytes(found.blob(found.manifest.layers[0], seen.append))
    assert data == server.blobs["a/b"][described["layers"][0]]
    assert seen[-1] == len(data)


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_the_login_is_used_when_the_registry_asks(auth: str, client: UpstreamRegistries) -> None:
    async with registry_server(auth) as server:
        publish(server, "a/b", "1")
        reference = parse_named(f"{server.host}/a/b:1")
        found = await client.find(reference, _ANY, _LOGIN)
        await found.config()
        if auth == "bearer":
            assert "scope=repository%3Aa%2Fb%3Apull" in server.token_requests[0]
            # One token for manifest and blobs.
            assert len(server.token_requests) == 1
        with pytest.raises(RegistryError) as caught:
            await client.find(reference, _ANY, ANONYMOUS)
        assert str(caught.value) == (
            "denied: requested access to the resource is denied"
            if auth == "bearer"
            else f'Get "{server.url}/v2/a/b/manifests/1": no basic auth credentials'
        )


async def test_an_identity_token_is_exchanged_for_an_access_token(client: UpstreamRegistries) -> None:
    async with registry_server("bearer") as server:
        publish(server, "a/b", "1")
        reference = parse_named(f"{server.host}/a/b:1")
        found = await client.find(reference, _ANY, Credentials(identity_token="refresh-me"))
        assert found.digest
        assert server.token_requests[0].startswith("POST")
        with pytest.raises(RegistryError, match="incorrect username or password"):
            await client.find(reference, _ANY, Credentials(identity_token="stolen"))


async def test_the_manifest_of_the_platform_is_chosen_from_a_list(
    server: RegistryServer, client: UpstreamRegistries
) -> None:
    entries = []
    for architecture in ("arm64", "amd64"):
        described = publish(server, "m", layers=(architecture.encode() * 512,), architecture=architecture)
        entries.append({**described, "platform": {"os": "linux", "architecture": architecture}})
    top = server.add_manifest("m", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}, "multi")
    reference = parse_named(f"{server.host}/m:multi")
    for place, architecture in enumerate(("arm64", "amd64")):
        found = await client.find(reference, Platform("linux", architecture), ANONYMOUS)
        assert (found.digest, found.manifest.digest) == (top, entries[place]["digest"])
    with pytest.raises(RegistryError, match="no matching manifest for linux/s390x in the manifest list entries"):
        await client.find(reference, Platform("linux", "s390x"), ANONYMOUS)


async def test_a_list_of_itself_ends(server: RegistryServer, client: UpstreamRegistries) -> None:
    # A digest can't name its own list; a deep chain stands for it.
    inner = server.add_manifest("m", {"mediaType": OCI_INDEX, "manifests": []})
    for _ in range(10):
        entry = {"digest": inner, "mediaType": OCI_INDEX, "size": 1}
        inner = server.add_manifest("m", {"mediaType": OCI_INDEX, "manifests": [entry]}, "deep")
    with pytest.raises(RegistryError, match="no matching manifest"):
        await client.find(parse_named(f"{server.host}/m:deep"), _ANY, ANONYMOUS)


async def test_a_broken_download_goes_on_where_it_stopped(server: RegistryServer, client: UpstreamRegistries) -> None:
    described = publish(server, "a", "1", layers=(bytes(range(256)) * 4000,))
    digest = described["layers"][0]
    data = server.blobs["a"][digest]
    found = await client.find(parse_named(f"{server.host}/a:1"), _ANY, ANONYMOUS)
    server.break_after[digest] = len(data) // 2
    assert await _bytes(found.blob(found.manifest.layers[0], lambda _: None)) == data
    assert server.requests.count(f"GET /v2/a/blobs/{digest}") == 2


async def test_a_blob_of_another_digest_is_an_error(server: RegistryServer, client: UpstreamRegistries) -> None:
    described = publish(server, "a", "1")
    server.corrupt.add(described["layers"][0])
    found = await client.find(parse_named(f"{server.host}/a:1"), _ANY, ANONYMOUS)
    with pytest.raises(RegistryError, match="verification failed"):
        await _bytes(found.blob(found.manifest.layers[0], lambda _: None))


async def test_a_manifest_of_another_digest_is_an_error(server: RegistryServer, client: UpstreamRegistries) -> None:
    publish(server, "a", "1")
    other = "sha256:" + "b" * 64
    server.manifests["a"][other] = server.manifests["a"]["1"]
    with pytest.raises(RegistryError, match="manifest verification failed"):
        await client.find(parse_named(f"{server.host}/a@{other}"), _ANY, ANONYMOUS)


async def test_a_manifest_too_large_is_an_error(server: RegistryServer, client: UpstreamRegistries) -> None:
    server.manifests["a"] = {"1": (b" " * (5 << 20), "application/json")}
    with pytest.raises(RegistryError, match="manifest is larger than"):
        await client.find(parse_named(f"{server.host}/a:1"), _ANY, ANONYMOUS)


async def test_a_passing_fault_is_tried_again_and_a_lasting_one_told(
    server: RegistryServer, client: UpstreamRegistries
) -> None:
    publish(server, "a", "1")
    reference = parse_named(f"{server.host}/a:1")
    server.fail_next = [503]
    assert (await client.find(reference, _ANY, ANONYMOUS)).digest
    server.fail_next = [503] * 10
    with pytest.raises(RegistryError, match="received unexpected HTTP status: 503"):
        await client.find(reference, _ANY, ANONYMOUS)


async def test_a_registry_that_is_not_there(client: UpstreamRegistries) -> None:
    async with registry_server() as server:
        host = server.host
    with pytest.raises(RegistryError, match=f"dial tcp {host}: connect: connection refused"):
        await client.find(parse_named(f"{host}/a:1"), _ANY, ANONYMOUS)


async def test_unknown_names_are_told_with_the_registrys_code(
    server: RegistryServer, client: UpstreamRegistries
) -> None:
    with pytest.raises(RegistryError) as caught:
        await client.find(parse_named(f"{server.host}/a:1"), _ANY, ANONYMOUS)
    assert (caught.value.code, str(caught.value)) == ("MANIFEST_UNKNOWN", "manifest unknown: manifest unknown")


async def test_all_tags_are_listed_page_by_page(server: RegistryServer, client: UpstreamRegistries) -> None:
    publish(server, "a", "1", "2", "3", "4", "5")
    assert await client.tags(parse_named(f"{server.host}/a"), ANONYMOUS) == ["1", "2", "3", "4", "5"]


async def test_a_mirror_is_asked_first_without_the_login_and_its_failure_is_no_end(server: RegistryServer) -> None:
    publish(server, "library/busybox", "latest")
    upstreams = UpstreamRegistries(RegistryPolicy(mirrors=["http://127.0.0.1:1", server.url]))
    found = await upstreams.find(parse_named("busybox:latest"), _ANY, _LOGIN)
    assert found.digest
    await upstreams.close()


async def test_a_redirect_away_loses_the_login_and_one_to_a_plain_address_is_refused() -> None:
    async with registry_server("basic") as server, registry_server() as storage:
        described = publish(server, "a", "1")
        storage.blobs = server.blobs
        server.redirect_blobs_to = storage.url
        upstreams = UpstreamRegistries(RegistryPolicy())
        found = await upstreams.find(parse_named(f"{server.host}/a:1"), _ANY, _LOGIN)
        # The storage asks for no login; were ours sent along, a basic one would be accepted there too: it must not be.
        storage.auth = ""
        assert await _bytes(found.blob(found.manifest.layers[0], lambda _: None))
        assert f"GET /v2/a/blobs/{described['layers'][0]}" in storage.requests
        storage.auth = "basic"
        with pytest.raises(RegistryError):
            await _bytes(found.blob(found.manifest.layers[0], lambda _: None))
        server.redirect_blobs_to = "http://192.0.2.1"
        with pytest.raises(RegistryError, match="redirect from https to http refused"):
            await _bytes(found.blob(found.manifest.layers[0], lambda _: None))
        server.redirect_blobs_to = "http://169.254.169.254"
        with pytest.raises(RegistryError, match=r"169\.254\.169\.254 is not a registry's address"):
            await _bytes(found.blob(found.manifest.layers[0], lambda _: None))
        server.redirect_blobs_to = server.url
        with pytest.raises(RegistryError, match="stopped after 5 redirects"):
            await _bytes(found.blob(found.manifest.layers[0], lambda _: None))
        await upstreams.close()


@pytest.mark.parametrize(
    ("realm", "message"),
    [
        ("http://192.0.2.1/token", "is not https"),
        ("file:///etc/passwd", "invalid token auth challenge realm"),
        ("http://169.254.169.254/token", "is not a registry's address"),
    ],
)
async def test_a_login_is_not_sent_to_any_token_service(realm: str, message: str, client: UpstreamRegistries) -> None:
    async with registry_server("bearer") as server:
        server.realm = realm
        with pytest.raises(RegistryError, match=message):
            await client.find(parse_named(f"{server.host}/a:1"), _ANY, _LOGIN)


async def test_a_metadata_service_is_no_registry(client: UpstreamRegistries) -> None:
    with pytest.raises(RegistryError, match="is not a registry's address"):
        await client.find(parse_named("169.254.169.254/a:1"), _ANY, ANONYMOUS)


@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_a_login_is_checked_at_the_registry(auth: str, client: UpstreamRegistries) -> None:
    async with registry_server(auth) as server:
        assert await client.login(Credentials("user", "secret", server_address=server.host)) == ""
        with pytest.raises(Unauthorized) as caught:
            await client.login(Credentials("user", "wrong", server_address=server.url))
        if auth == "bearer":
            assert caught.value.message == f'Get "{server.url}/v2/": unauthorized: incorrect username or password'
        else:
            assert caught.value.message == f"login attempt to {server.url}/v2/ failed with status: 401 Unauthorized"


async def test_without_insecure_loopback_nothing_plain_is_spoken(server: RegistryServer) -> None:
    publish(server, "a", "1")
    upstreams = UpstreamRegistries(RegistryPolicy(insecure_loopback=False))
    with pytest.raises(RegistryError, match="http: server gave HTTP response to HTTPS client"):
        await upstreams.find(parse_named(f"{server.host}/a:1"), _ANY, ANONYMOUS)
    await upstreams.close()


def test_a_login_comes_in_dockers_header() -> None:
    document = {"username": "u", "password": "p", "identitytoken": "i"}
    for encode in (base64.urlsafe_b64encode, base64.b64encode):
        given = credentials.from_header(encode(orjson.dumps(document)).decode())
        assert (given.username, given.password, given.identity_token) == ("u", "p", "i")
    packed = base64.b64encode(b"u:p:q").decode()
    given = credentials.from_document({"auth": packed})
    assert (given.username, given.password) == ("u", "p:q")
    for malformed in (None, "", "e30=", "%%%", "bnVsbA=="):
        assert credentials.from_header(malformed) == ANONYMOUS
    assert "secret" not in repr(_LOGIN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mirrors": ["mirror.example:5000"]}, "no scheme specified"),
        ({"mirrors": ["ftp://mirror.example"]}, "unsupported scheme"),
        ({"mirrors": ["https://u:p@mirror.example"]}, "username/password not allowed"),
        ({"mirrors": ["https://mirror.example?x"]}, "query or fragment"),
        ({"insecure": ["-x"]}, "hyphen"),
        ({"insecure": ["ftp://x"]}, "should not contain '://'"),
        ({"insecure": ["a b"]}, "invalid host"),
    ],
)
def test_a_malformed_setting_is_told(arguments: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        RegistryPolicy(**arguments)  # type: ignore[arg-type]


async def test_insecure_registries_are_named_by_host_or_network() -> None:
    policy = RegistryPolicy(insecure=["http://plain.example:5000", "10.0.0.0/8", "fd00::/8"])
    assert await policy.insecure("plain.example:5000")
    assert await policy.insecure("10.1.2.3:5000")
    assert await policy.insecure("[fd00::1]:5000")
    assert await policy.insecure("[::ffff:10.0.0.1]")
    assert await policy.insecure("localhost:5000")
    assert not await policy.insecure("192.0.2.1")
