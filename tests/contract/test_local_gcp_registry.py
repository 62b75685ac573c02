"""The Artifact Registry stand-in over plain HTTP, as a distribution client uses it."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.local_gcp_fixtures import MANIFEST, local_cloud, push

INDEX = "application/vnd.oci.image.index.v1+json"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def code(answer: httpx.Response) -> str:
    return str(answer.json()["errors"][0]["code"])


async def upload(client: httpx.AsyncClient, repository: str, content: bytes) -> str:
    digest = digest_of(content)
    answer = await client.post(f"/v2/{repository}/blobs/uploads/?digest={digest}", content=content)
    assert answer.status_code == 201, answer.text
    return digest


def manifest(config: str, *layers: str, **more: Any) -> str:
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": kind, "digest": layer, "size": 1} for layer in layers],
    }
    return json.dumps(body | more)


async def test_a_pushed_image_is_pulled_back_byte_for_byte(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, _), httpx.AsyncClient(base_url=cloud.http_url) as client:
        assert (await client.get("/v2/")).status_code == 200
        layer = b"layer" * 100_000
        await push(cloud.http_url, "local/apps/tool:v1", layers=[layer], Cmd=["x"])
        got = await client.get("/v2/local/apps/tool/manifests/v1")
        assert got.headers["content-type"] == MANIFEST
        digest = got.headers["docker-content-digest"]
        assert digest == digest_of(got.content)
        head = await client.head(f"/v2/local/apps/tool/manifests/{digest}")
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(got.content)))
        blob = got.json()["layers"][0]["digest"]
        assert (await client.get(f"/v2/local/apps/tool/blobs/{blob}")).content == layer
        head = await client.head(f"/v2/local/apps/tool/blobs/{blob}")
        assert (head.headers["content-length"], head.headers["docker-content-digest"]) == (str(len(layer)), blob)
        part = await client.get(f"/v2/local/apps/tool/blobs/{blob}", headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, b"layer")
        assert (await client.get("/v2/local/apps/tool/tags/list")).json() == {"name": "local/apps/tool", "tags": ["v1"]}


async def test_chunked_uploads_go_on_after_a_restart(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4000
    digest = digest_of(content)
    async with local_cloud(tmp_path) as (cloud, _), httpx.AsyncClient(base_url=cloud.http_url) as client:
        begun = await client.post("/v2/a/b/blobs/uploads/")
        assert begun.status_code == 202
        where = begun.headers["location"]
        first = await client.patch(where, content=content[:1000], headers={"Content-Range": "0-999"})
        assert (first.status_code, first.headers["range"]) == (202, "0-999")
        wrong = await client.patch(where, content=b"x", headers={"Content-Range": "5000-5000"})
        assert (wrong.status_code, code(wrong)) == (416, "RANGE_INVALID")
    async with local_cloud(tmp_path) as (cloud, _), httpx.AsyncClient(base_url=cloud.http_url) as client:
        assert (await client.get(where)).headers["range"] == "0-999"
        await client.patch(where, content=content[1000:5000])
        done = await client.put(f"{where}?digest={digest}", content=content[5000:])
        assert (done.status_code, done.headers["docker-content-digest"]) == (201, digest)
        assert (await client.get(f"/v2/a/b/blobs/{digest}")).content == content
        assert (await client.get(where)).status_code == 404


async def test_content_of_another_digest_is_refused(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, _), httpx.AsyncClient(base_url=cloud.http_url) as client:
        claimed = digest_of(b"something else")
        answer = await client.post(f"/v2/a/b/blobs/uploads/?digest={claimed}", content=b"this")
        assert (answer.status_code, code(answer)) == (400, "DIGEST_INVALID")
        assert (await client.get(f"/v2/a/b/blobs/{claimed}")).status_code == 404
        config = await upload(client, "a/b", b"{}")
        headers = {"Content-Type": MANIFEST}
        answer = await client.put(f"/v2/a/b/manifests/{claimed}", content=manifest(config), headers=headers)
        assert (answer.status_code, code(answer)) == (400, "DIGEST_INVALID")


async def test_manifests_need_their_blobs(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, _), httpx.AsyncClient(base_url=cloud.http_url) as client:
        config = await upload(client, "a/b", b"{}")
        headers = {"Content-Type": MANIFEST}
        missing = manifest(config, digest_of(b"missing"))
        answer = await client.put("/v2/a/b/manifests/x", content=missing, headers=headers)
        assert (answer.status_code, code(answer)) == (400, "MANIFEST_BLOB_UNKNOWN")
        for content in (b"", b"[]", b"{}", b"nonsense", manifest("sha256:xyz").encode(), b"[" * 100_000):
            answer = await client.put("/v2/a/b/manifests/x", content=content, headers=headers)
            assert answer.status_code == 400, content[:20]
        assert code(await client.get("/v2/a/b/manifests/x")) == "MANIFEST_UNKNOWN"


async def test_indexes_need_their_manifests(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, _), httpx.AsyncClient(base_url=cloud.http_url) as client:
        config = await upload(client, "a/b", b"{}")
        child = manifest(config)
        entry = {"mediaType": MANIFEST, "digest": digest_of(child.encode()), "size": len(child)}
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]})
        early = await client.put("/v2/a/b/manifests/all", content=index, headers={"Content-Type": INDEX})
        assert code(early) == "MANIFEST_BLOB_UNKNOWN"
        await client.put(f"/v2/a/b/manifests/{entry['digest']}", content=child, headers={"Content-Type": MANIFEST})
        assert (
            await client.put("/v2/a/b/manifests/all", content=index, headers={"Content-Type": INDEX})
        ).status_code == 201
        assert (await client.get("/v2/a/b/manifests/all")).headers["content-type"] == INDEX


async def test_blobs_are_mounted_between_repositories_and_seen_only_where_linked(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, _), httpx.AsyncClient(base_url=cloud.http_url) as client:
        digest = await upload(client, "one/app", b"shared")
        assert (await client.head(f"/v2/two/app/blobs/{digest}")).status_code == 404
        mounted = await client.post(f"/v2/two/app/blobs/uploads/?mount={digest}&from=one/app")
        assert mounted.status_code == 201
        refused = await client.post(f"/v2/two/app/blobs/uploads/?mount={digest_of(b'no')}&from=one/app")
        assert refused.status_code == 202  # the client uploads instead
        assert (await client.delete(f"/v2/one/app/blobs/{digest}")).status_code == 202
        assert (await client.get(f"/v2/one/app/blobs/{digest}")).status_code == 404
        assert (await client.get(f"/v2/two/app/blobs/{digest}")).content == b"shared"


async def test_tags_have_pages_and_are_deleted(tmp_path: Path) -> None:
    async with local_cloud(tmp_path) as (cloud, _), httpx.AsyncClient(base_url=cloud.http_url) as client:
        for tag in ("c", "a", "b"):
            await push(cloud.http_url, f"x/y:{tag}")
        first = await client.get("/v2/x/y/tags/list?n=2")
        assert first.json()["tags"] == ["a", "b"]
        following = first.headers["link"].split(">")[0].lstrip("<")
        assert (await client.get(following)).json()["tags"] == ["c"]
        assert (await client.delete("/v2/x/y/manifests/a")).status_code == 202
        assert (await client.get("/v2/x/y/tags/list")).json()["tags"] == ["b", "c"]
        digest = (await client.head("/v2/x/y/manifests/b")).headers["docker-content-digest"]
        await client.delete(f"/v2/x/y/manifests/{digest}")
        assert (await client.get("/v2/x/y/manifests/c")).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/v2/UPPER/x/manifests/a",
        "/v2/a/..%2f..%2fetc/manifests/a",
        "/v2/a/%2e%2e/b/manifests/x",
        "/v2/a/b/manifests/..%2f..%2fx",
        "/v2/a/b/blobs/sha256:..%2f..%2fetc%2fpasswd",
        "/v2/a/b/blobs/sha512:" + "0" * 128,
        "/v2/a/b/blobs/uploads/..%2f..%2fcloud.sqlite",
        "/v2/" + "a" * 300 + "/manifests/x",
    ],
)
async def test_hostile_names_are_refused(tmp_path: Path, path: str) -> None:
    async with local_cloud(tmp_path) as (cloud, _), httpx.AsyncClient(base_url=cloud.http_url) as client:
        assert (await client.get(path)).status_code in (400, 404)


async def test_basic_and_bearer_authentication(tmp_path: Path) -> None:
    users = {"ann": "secret"}
    basic = "Basic " + base64.b64encode(b"ann:secret").decode()
    async with (
        local_cloud(tmp_path / "a", registry_users=users) as (cloud, _),
        httpx.AsyncClient(base_url=cloud.http_url) as client,
    ):
        refused = await client.get("/v2/")
        assert (refused.status_code, code(refused)) == (401, "UNAUTHORIZED")
        assert refused.headers["www-authenticate"].startswith("Basic realm=")
        assert (await client.get("/v2/", headers={"Authorization": basic})).status_code == 200
        wrong = "Basic " + base64.b64encode(b"ann:wrong").decode()
        assert (await client.get("/v2/", headers={"Authorization": wrong})).status_code == 401
    options: dict[str, Any] = {"registry_users": users, "registry_auth": "bearer"}
    async with (
        local_cloud(tmp_path / "b", **options) as (cloud, _),
        httpx.AsyncClient(base_url=cloud.http_url) as client,
    ):
        challenge = (await client.get("/v2/a/b/manifests/x")).headers["www-authenticate"]
        assert f'realm="{cloud.http_url}/v2/token"' in challenge
        assert 'scope="repository:a/b:pull,push"' in challenge
        assert (await client.get("/v2/token")).status_code == 401
        token = (await client.get("/v2/token", headers={"Authorization": basic})).json()["token"]
        assert (await client.get("/v2/", headers={"Authorization": f"Bearer {token}"})).status_code == 200
        assert (await client.get("/v2/", headers={"Authorization": basic})).status_code == 401
