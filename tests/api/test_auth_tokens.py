"""Bearer tokens through the application: scopes, expiry, revocation, audit, tickets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from agent_gateway.tickets import verify_agent_token
from control_plane.auth.caller import LOCAL, Caller, single_tenant
from control_plane.errors import Conflict, InvalidParameter, NotFound
from control_plane.services.admission import NoBounds
from control_plane.services.audit import Audit, Entry
from control_plane.services.tenants import OPERATOR, Tenants
from control_plane.services.tokens import Tokens
from control_plane.store.sqlite import SqliteStore
from tests.auth_world import CONTAINER, EXEC, GATEWAY, KEY, Hosted, hosted

ATTACH = {"method": "POST", "path": f"/v1.50/containers/{CONTAINER[:12]}/attach", "query": "stream=1", "body": None}


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Hosted]:
    async with hosted(tmp_path) as opened:
        yield opened


async def test_a_token_is_good_until_it_is_revoked_and_not_a_request_longer(endpoint: Hosted) -> None:
    made = await endpoint.tokens.create("acme", "run", note="ci")
    assert (await endpoint.request("GET", "/_ping", made.text)).status_code == 200
    await endpoint.tokens.revoke(made.token.id)
    refused = await endpoint.request("GET", "/_ping", made.text)
    assert (refused.status_code, refused.json()["message"]) == (
        401,
        "the token is not valid, has expired or was revoked",
    )
    assert (await endpoint.tokens.revoke(made.token.id)).revoked_at


async def test_another_instance_hears_of_a_revocation_at_once(endpoint: Hosted, tmp_path: Path) -> None:
    made = await endpoint.tokens.create("acme", "full")
    other = SqliteStore(tmp_path / "store.db")
    try:
        tenants = Tenants(other)
        elsewhere = Tokens(other, tenants)
        assert await elsewhere.caller(made.text) == Caller("acme", "full", f"token:{made.token.id}")
        await endpoint.tokens.revoke(made.token.id)
        assert await elsewhere.caller(made.text) is None
        await endpoint.tenants.revoke("acme")
        assert await tenants.active("acme") is None
    finally:
        await other.close()


async def test_an_expired_token(endpoint: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await endpoint.tokens.create("acme", "full", 60)
    assert (await endpoint.request("GET", "/_ping", made.text)).status_code == 200
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    assert (await endpoint.request("GET", "/_ping", made.text)).status_code == 401


async def test_hostile_authorizations_are_all_the_same_401(endpoint: Hosted) -> None:
    good = endpoint.token["acme-full"]
    id, secret = good.split("_", 2)[1:]
    hostile = [
        "Bearer",
        "Bearer ",
        f"Basic {good}",
        f"Token {good}",
        f"Bearer {good}x",
        f"Bearer {good[:-1]}",
        f"Bearer skls_{id}_{'A' * 43}",
        f"Bearer skls_{'0' * 16}_{secret}",
        f"Bearer {good} {good}",
        f"Bearer {good.upper()}",
        f"Bearer skls_../../{id}_{secret}",
        "Bearer " + "x" * 100_000,
        "Bearer \u00ff\u00fe".encode("latin-1").decode("latin-1"),
    ]
    messages = set()
    for value in hostile:
        raw = [(b"authorization", value.encode("latin-1"))]
        answer = await endpoint.client.get("/v1.50/containers/json", headers=raw)
        assert answer.status_code == 401, value
        messages.add(answer.json()["message"])
    assert messages == {"the token is not valid, has expired or was revoked"}
    twice = [(b"authorization", f"Bearer {good}".encode())] * 2
    assert (await endpoint.client.get("/_ping", headers=twice)).status_code == 401
    nothing = await endpoint.client.get("/_ping")
    assert "sockerless login" in nothing.json()["message"]


async def test_the_store_has_no_secret(endpoint: Hosted) -> None:
    made = await endpoint.tokens.create("acme", "full", note="n")
    secret = made.text.split("_", 2)[2]
    documents = list(await endpoint.store.list("tokens"))
    assert documents
    assert all(secret not in str(document.body) and document.tenant == OPERATOR for document in documents)
    assert secret not in repr(made.token)


async def test_a_revoked_tenant_has_no_callers_and_no_new_tokens(endpoint: Hosted) -> None:
    await endpoint.tenants.revoke("acme")
    assert await endpoint.tokens.revoke_all("acme") == 3
    assert (await endpoint.request("GET", "/_ping", "acme-full")).status_code == 401
    assert (await endpoint.request("GET", "/_ping", "rival-full")).status_code == 200
    with pytest.raises(NotFound):
        await endpoint.tokens.create("acme", "full")
    with pytest.raises(Conflict):
        await endpoint.tenants.create("acme")


@pytest.mark.parametrize("name", ["", "a", "A-team", "-x", "x-", "a" * 33, "a/b", "_operator", "a.b", "ä-team"])
async def test_tenant_names_that_do_not_fit_everywhere(endpoint: Hosted, name: str) -> None:
    with pytest.raises(InvalidParameter):
        await endpoint.tenants.create(name)


async def test_a_gateway_asks_for_its_client(endpoint: Hosted) -> None:
    async def ticket(who: str, path: str = str(ATTACH["path"])) -> int:
        body = {**ATTACH, "path": path, "authorization": f"Bearer {endpoint.token[who]}" if who else None}
        return (await endpoint.client.post("/internal/v1/tickets", json=body, headers=endpoint.gateway)).status_code

    assert await ticket("acme-run") == 200
    assert await ticket("acme-read") == 403
    assert await ticket("rival-full") == 404
    assert await ticket("") == 401
    assert await ticket("acme-full", f"/exec/{EXEC}/start") in (200, 409)
    assert await ticket("rival-full", f"/exec/{EXEC}/start") == 404
    for path in ("/containers/json", "/v1.50/containers/create", "/internal/v1/tickets", "//x", "/exec/x/json"):
        assert await ticket("acme-full", path) == 404


async def test_a_connector_asks_with_its_users_token(endpoint: Hosted) -> None:
    granted = await endpoint.request("POST", "/internal/v1/tickets", "acme-run", json=ATTACH)
    assert granted.status_code == 200
    assert granted.json()["relay_url"] == GATEWAY
    refused = await endpoint.request("POST", "/internal/v1/tickets", "acme-read", json=ATTACH)
    assert (refused.status_code, "wants `run`" in refused.json()["message"]) == (403, True)
    assert (await endpoint.request("POST", "/internal/v1/tickets", "rival-full", json=ATTACH)).status_code == 404
    # Another's authorization in the body is of no use: the caller is who the header says.
    smuggled = {**ATTACH, "authorization": f"Bearer {endpoint.token['acme-full']}", "certificate": "CN=acme"}
    assert (await endpoint.request("POST", "/internal/v1/tickets", "rival-full", json=smuggled)).status_code == 404


async def test_agents_tokens_are_short_and_renewed_over_the_link(endpoint: Hosted) -> None:
    base = f"/internal/v1/links/{CONTAINER}"
    about = {"tenant": "acme", "boot": "boot1", "run": 1, "running": True}
    hello = (await endpoint.client.post(f"{base}/hello", json=about, headers=endpoint.gateway)).json()
    assert hello["action"] == "resume"
    renewed = (await endpoint.client.post(f"{base}/token", json=about, headers=endpoint.gateway)).json()
    for token in (hello["token"], renewed["token"]):
        told = verify_agent_token(KEY, token)
        assert (told.tenant, told.container, told.run) == ("acme", CONTAINER, 1)
        claims = jwt.decode(token, KEY, algorithms=["HS256"])
        assert claims["exp"] - time.time() <= 24 * 3600
    for stranger in ({**about, "boot": "boot2"}, {**about, "tenant": "rival"}):
        refused = await endpoint.client.post(f"{base}/token", json=stranger, headers=endpoint.gateway)
        assert refused.status_code == 404


async def test_a_token_of_an_earlier_run_begins_no_later_one(endpoint: Hosted) -> None:
    container = await endpoint.services.containers.resolve("acme", CONTAINER)
    starting = {"status": "starting", "run": 2}
    await endpoint.services.containers.update(
        container,
        lambda now: now.model_copy(update={"agent": None, "state": now.state.model_copy(update=starting)}),
    )
    base = f"/internal/v1/links/{CONTAINER}"
    for run, action in ((1, "shutdown"), (3, "shutdown"), (2, "start")):
        about = {"tenant": "acme", "boot": f"new{run}", "token_run": run}
        answer = await endpoint.client.post(f"{base}/hello", json=about, headers=endpoint.gateway)
        assert answer.json()["action"] == action


async def test_mutating_calls_and_streams_are_in_the_audit_log(endpoint: Hosted) -> None:
    await endpoint.request("POST", f"/v1.50/containers/{CONTAINER}/rename?name=new&secret=s3cret", "acme-full")
    await endpoint.request("POST", "/containers/new/exec", "acme-run", json={"Cmd": ["echo", "s3cret"]})
    await endpoint.request(
        "POST", "/internal/v1/tickets", "acme-run", json={**ATTACH, "path": "/containers/new/attach"}
    )
    await endpoint.request("DELETE", "/containers/new", "acme-read")
    await endpoint.request("POST", "/containers/acme-web/kill", "s3cret")
    await endpoint.request("POST", "/volumes/create", "acme-full", json={"Name": "v1"})
    for path in ("/containers/json", "/_ping", "/containers/new/json"):
        await endpoint.request("GET", path, "acme-full")
    told = [
        (line["action"], line["tenant"], line["target"], line["status"], line["outcome"]) for line in endpoint.audit
    ]
    assert told == [
        ("POST /containers/{id}/rename", "acme", CONTAINER, 204, "done"),
        ("POST /containers/{id}/exec", "acme", "new", 201, "done"),
        ("POST /containers/{id}/attach", "acme", "new", 200, "done"),
        ("DELETE /containers/{id}", "acme", "new", 403, "refused"),
        ("POST /containers/{id}/kill", "", "acme-web", 401, "refused"),
        ("POST /volumes/create", "acme", "", 201, "done"),
    ]
    assert endpoint.audit[0]["parameters"] == {"name": "new"}
    assert endpoint.audit[0]["subject"].startswith("token:")
    assert len(endpoint.audit[1]["made"]) == 64
    assert endpoint.audit[5]["made"] == "v1"
    assert "s3cret" not in str(endpoint.audit)


@pytest.mark.parametrize("query", ["name=" + "x" * 9999, "name=%00%1b%5b2J%0a", "&" * 500, "name=\udce4", "%%%"])
def test_audit_lines_stay_lines(query: str) -> None:
    lines: list[str] = []
    Audit(lines.append).record(Entry(None, "POST /x", "a\nb\x1b", query, 404))
    assert len(lines) == 1
    assert len(lines[0]) < 1000
    assert "\n" not in lines[0]
    assert "\x1b" not in lines[0]


POLICIES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"images": ["ghcr.io/acme/**"]}, {}, "was not pulled from ghcr.io/acme/**"),
    ({"images": [f"docker.io/acme/app@{'sha256:' + '0' * 64}"]}, {}, "was not pulled from"),
    ({"backends": ["other"]}, {}, "backend fake is not one of other"),
    ({"max_memory": 1 << 30}, {"Memory": 2 << 30}, "-m 2048m is more than 1024m"),
    ({"max_nano_cpus": 2 * 10**9}, {"NanoCpus": 4 * 10**9}, "--cpus 4 is more than 2"),
    ({"max_nano_cpus": 2 * 10**9}, {"CpuQuota": 400_000, "CpuPeriod": 100_000}, "--cpus 4 is more than 2"),
]


@pytest.mark.parametrize(("policy", "host", "text"), POLICIES)
async def test_what_the_policy_does_not_allow(
    endpoint: Hosted, policy: dict[str, Any], host: dict[str, Any], text: str
) -> None:
    await endpoint.limit(**policy)
    before = await endpoint.owned("acme")
    body = {"Image": "acme/app", "HostConfig": {**host, "Binds": ["fresh:/data"]}}
    refused = await endpoint.request("POST", "/containers/create", "acme-full", json=body)
    assert (refused.status_code, text in refused.json()["message"]) == (403, True), refused.text
    assert await endpoint.owned("acme") == before


async def test_what_the_policy_allows(endpoint: Hosted) -> None:
    await endpoint.limit(
        images=["docker.io/acme/*"],
        backends=["fake"],
        max_memory=1 << 30,
        max_nano_cpus=2 * 10**9,
        max_run_seconds=60,
        max_containers=2,
    )
    body = {"Image": "acme/app", "HostConfig": {"Memory": 1 << 30, "NanoCpus": 2 * 10**9}}
    made = await endpoint.request("POST", "/containers/create", "acme-run", json=body)
    assert made.status_code == 201, made.text
    shown = (await endpoint.request("GET", f"/containers/{made.json()['Id']}/json", "acme-run")).json()
    assert shown["Sockerless"]["RunLimitSeconds"] == 60
    update = await endpoint.request(
        "POST", f"/containers/{made.json()['Id']}/update", "acme-run", json={"Memory": 2 << 30, "MemorySwap": 4 << 30}
    )
    assert update.status_code == 403
    second = await endpoint.request("POST", "/containers/create", "acme-run", json=body)
    assert (second.status_code, second.json()["message"]) == (
        429,
        "quota: this tenant may have 2 containers, stopped ones included, and has as many; "
        "remove some (`docker container prune`, `docker run --rm`)",
    )


async def test_a_tag_or_a_load_does_not_make_an_image_allowed(endpoint: Hosted) -> None:
    await endpoint.limit(images=["docker.io/library/*"])
    assert (await endpoint.request("POST", "/images/acme%2Fapp/tag?repo=busybox&tag=1", "acme-full")).status_code == 201
    for reference in ("busybox:1", "acme/app"):
        refused = await endpoint.request("POST", "/containers/create", "acme-full", json={"Image": reference})
        assert refused.status_code == 403


async def test_a_quota_holds_when_many_come_at_once(endpoint: Hosted) -> None:
    await endpoint.limit(max_containers=4)
    create = [endpoint.request("POST", "/containers/create", "acme-run", json={"Image": "acme/app"}) for _ in range(12)]
    statuses = sorted(answer.status_code for answer in await asyncio.gather(*create))
    assert statuses == [201] * 3 + [429] * 9


async def test_the_embedded_endpoint_has_no_policy_and_asks_nobody() -> None:
    assert await single_tenant({}) is LOCAL
    assert await NoBounds().admit("default", None, 7) == 7  # type: ignore[arg-type]


async def test_other_tokens_of_the_endpoint_are_no_users(endpoint: Hosted) -> None:
    """Agents', gateways' tokens and tickets open what they are for; users' tokens open nothing of theirs."""
    container = await endpoint.services.containers.resolve("acme", CONTAINER)
    agent = endpoint.auth.agent_token(container)
    ticket = endpoint.auth.stream_ticket(container, "attach", "s1", {})
    gateway = endpoint.gateway["authorization"].partition(" ")[2]
    for token in (agent, ticket, gateway):
        for method, path in (("GET", "/containers/json"), ("POST", f"/containers/{CONTAINER}/kill")):
            assert (await endpoint.request(method, path, token)).status_code == 401
    for token in (agent, ticket):
        assert (await endpoint.request("POST", "/internal/v1/tickets", token, json=ATTACH)).status_code == 401
    about = {"tenant": "acme", "boot": "boot1"}
    for token in (agent, ticket, endpoint.token["acme-full"]):
        for call in ("hello", "events", "gone", "token"):
            path = f"/internal/v1/links/{CONTAINER}/{call}"
            assert (await endpoint.request("POST", path, token, json=about)).status_code == 401
