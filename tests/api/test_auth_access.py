"""OIDC and client certificates through the application, and what the configuration refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_gateway import tickets
from agent_gateway.tickets import mint_agent_token, mint_attestation, mint_gateway_token
from control_plane.auth.caller import LOCAL, Caller, single_tenant
from control_plane.auth.certificates import CertificateRule, Certificates
from control_plane.auth.exposure import Exposed, require_authentication
from control_plane.auth.oidc import Oidc
from control_plane.auth.oidc_rules import OidcRule
from control_plane.auth.settings import AccessSettings, build_access
from control_plane.auth.tokens import GatewayAuth
from control_plane.backends.settings_error import SettingsError
from control_plane.store.sqlite import SqliteStore
from tests.auth_issuer import AUDIENCE, Issuer
from tests.auth_world import CONTAINER, GATEWAY, KEY, hosted

SECRET = "s" * 40
ATTACH = {"method": "POST", "path": f"/containers/{CONTAINER}/attach", "query": "", "body": None}


async def test_keyless_access(tmp_path: Path) -> None:
    issuer = Issuer()
    client = issuer.client()
    rules = [
        OidcRule(issuer=issuer.url, audience=AUDIENCE, claims={"repository": "acme/*"}, tenant="acme"),
        OidcRule(issuer=issuer.url, audience=AUDIENCE, claims={"repository": "gone/*"}, tenant="nosuch"),
    ]
    async with hosted(tmp_path, oidc=Oidc(rules, client=lambda: client)) as endpoint:
        token = issuer.token()
        listed = await endpoint.request("GET", "/containers/json", token)
        assert [entry["Id"] for entry in listed.json()] == [CONTAINER]
        assert (await endpoint.request("POST", "/volumes/prune", token)).status_code == 403
        assert endpoint.audit[-1]["subject"].startswith("oidc:token.actions.githubusercontent.com:repo:acme/app")
        assert (await endpoint.request("POST", "/internal/v1/tickets", token, json=ATTACH)).status_code == 200
        assert (await endpoint.request("GET", "/_ping", issuer.token(repository="x/y"))).status_code == 403
        assert (await endpoint.request("GET", "/_ping", issuer.token(repository="gone/y"))).status_code == 401
        assert (await endpoint.request("GET", "/_ping", Issuer().token())).status_code == 401
        await endpoint.tenants.revoke("acme")
        assert (await endpoint.request("GET", "/_ping", token)).status_code == 401


async def test_certificates_count_only_with_their_proxys_proof(tmp_path: Path) -> None:
    rules = [CertificateRule(subject="CN=ci,O=acme", tenant="acme", scope="run")]
    certificates = Certificates(rules, SECRET, GatewayAuth(KEY).check_attestation)
    subject = {"x-sockerless-client-certificate": "CN=ci,O=acme"}
    async with hosted(tmp_path, certificates=certificates) as endpoint:

        async def ping(**headers: str) -> int:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            return (await endpoint.client.get("/_ping", headers=given | subject)).status_code

        assert await ping() == 403
        assert await ping(x_sockerless_proxy="") == 403
        assert await ping(x_sockerless_proxy=SECRET[:-1]) == 403
        assert await ping(x_sockerless_proxy=mint_gateway_token(KEY, GATEWAY, 60)) == 403
        assert await ping(x_sockerless_proxy=SECRET) == 200
        # A forged subject is refused even of whoever has a token.
        assert await ping(authorization=f"Bearer {endpoint.token['acme-full']}") == 403
        # A token that is not valid is not made good by a certificate.
        assert await ping(x_sockerless_proxy=SECRET, authorization="Bearer x") == 401
        unknown = {"x-sockerless-client-certificate": "CN=other", "x-sockerless-proxy": SECRET}
        assert (await endpoint.client.get("/_ping", headers=unknown)).status_code == 403
        asked = {**ATTACH, "certificate": "CN=ci,O=acme"}
        path = "/internal/v1/tickets"
        assert (await endpoint.client.post(path, json=asked, headers=endpoint.gateway)).status_code == 200
        assert (await endpoint.request("POST", path, "rival-full", json=asked)).status_code == 404
        assert (await endpoint.client.post(path, json=asked)).status_code == 401


async def test_a_gateways_word_for_its_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = [CertificateRule(subject="CN=ci", tenant="acme", scope="read")]
    certificates = Certificates(rules, SECRET, GatewayAuth(KEY).check_attestation)
    async with hosted(tmp_path, certificates=certificates) as endpoint:

        async def ask(attested: str, method: str = "GET", path: str = "/containers/json", **more: str) -> int:
            headers = {"x-sockerless-attested": attested, **more}
            return (await endpoint.client.request(method, path, headers=headers)).status_code

        good = mint_attestation(KEY, GATEWAY, "192.0.2.7", "CN=ci")
        assert await ask(good) == 200
        # The scope is the rule's; the audit log has who it was, from where, and through whom.
        assert await ask(good, "POST", f"/containers/{CONTAINER}/kill") == 403
        line = endpoint.audit[-1]
        assert (line["tenant"], line["subject"], line["outcome"]) == ("acme", "certificate:CN=ci", "refused")
        assert (line["address"], line["gateway"]) == ("192.0.2.7", GATEWAY)
        token = f"Bearer {endpoint.token['rival-full']}"
        assert await ask(good, "POST", "/containers/prune", authorization=token) == 200
        line = endpoint.audit[-1]
        assert (line["tenant"], line["address"]) == ("rival", "192.0.2.7")
        assert await ask(good, authorization="Bearer x") == 401
        assert await ask(mint_attestation(KEY, GATEWAY, "192.0.2.7", "CN=other")) == 403
        # Without a certificate there is an address and no access.
        nobody = mint_attestation(KEY, GATEWAY, "192.0.2.8", "")
        assert await ask(nobody) == 401
        assert await ask(nobody, authorization=token) == 200
        assert await ask(nobody, "POST", "/containers/prune") == 401
        line = endpoint.audit[-1]
        assert (line["tenant"], line["subject"], line["address"]) == ("", "", "192.0.2.8")

        forged = [
            "",
            "CN=ci",
            mint_attestation(b"x" * 32, GATEWAY, "192.0.2.7", "CN=ci"),
            mint_gateway_token(KEY, GATEWAY, 60),
            mint_agent_token(KEY, "acme", CONTAINER, 60),
            good[:-4] + "AAAA",
        ]
        with monkeypatch.context() as patched:
            patched.setattr(tickets, "_ATTESTATION_SECONDS", -1)
            forged.append(mint_attestation(KEY, GATEWAY, "192.0.2.7", "CN=ci"))
        for text in forged:
            assert await ask(text) == 403, text
            assert await ask(text, "POST", "/containers/prune", authorization=token) == 403, text
            assert "address" not in endpoint.audit[-1]
        # A word for a client opens nothing of the gateways' own.
        for bearer in (good, nobody):
            given = {"authorization": f"Bearer {bearer}"}
            asked = await endpoint.client.post("/internal/v1/tickets", json=ATTACH, headers=given)
            assert asked.status_code == 401
        twice = [("x-sockerless-attested", good), ("x-sockerless-attested", good)]
        assert (await endpoint.client.get("/_ping", headers=twice)).status_code == 403


async def test_a_gateways_tickets_for_certificates_are_audited(tmp_path: Path) -> None:
    rules = [CertificateRule(subject="CN=ci", tenant="acme", scope="run")]
    certificates = Certificates(rules, "", GatewayAuth(KEY).check_attestation)
    asked = {**ATTACH, "certificate": "CN=ci", "address": "192.0.2.7"}
    async with hosted(tmp_path, certificates=certificates) as endpoint:
        granted = await endpoint.client.post("/internal/v1/tickets", json=asked, headers=endpoint.gateway)
        assert granted.status_code == 200
        line = endpoint.audit[-1]
        assert (line["subject"], line["address"]) == ("certificate:CN=ci", "192.0.2.7")
        # What a connector's user says about an address is hearsay.
        assert (await endpoint.request("POST", "/internal/v1/tickets", "acme-full", json=asked)).status_code == 200
        assert "address" not in endpoint.audit[-1]


async def test_certificates_that_are_not_configured_count_for_nothing(tmp_path: Path) -> None:
    async with hosted(tmp_path) as endpoint:
        headers = {"x-sockerless-client-certificate": "CN=ci", "x-sockerless-proxy": SECRET}
        assert (await endpoint.client.get("/_ping", headers=headers)).status_code == 401
        headers["x-sockerless-proxy"] = mint_gateway_token(KEY, GATEWAY, 60)
        assert (await endpoint.client.get("/_ping", headers=headers)).status_code == 401
        asked = {**ATTACH, "certificate": "CN=ci"}
        refused = await endpoint.client.post("/internal/v1/tickets", json=asked, headers=endpoint.gateway)
        assert refused.status_code == 401


async def someone(_: Any) -> Caller:
    return LOCAL


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "*", "10.0.0.1", "docker.example.com", "[::]", "::ffff:10.0.0.1"]
)
def test_no_listener_beyond_loopback_without_authentication(host: str) -> None:
    for nobody in (None, single_tenant):
        with pytest.raises(Exposed, match="without authentication"):
            require_authentication(host, nobody)
    require_authentication(host, someone)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "::ffff:127.0.0.1"])
def test_loopback_may_go_without(host: str) -> None:
    require_authentication(host, single_tenant)


RULE = {"issuer": "https://gitlab.com", "audience": AUDIENCE, "claims": {"project_path": "acme/*"}, "tenant": "acme"}


async def test_access_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(tmp_path / "store.db")
    check = GatewayAuth(KEY).check_attestation
    try:
        for name in ("SOCKERLESS_OIDC", "SOCKERLESS_CLIENT_CERTIFICATES", "SOCKERLESS_PROXY_SECRET"):
            monkeypatch.delenv(name, raising=False)
        await build_access(store, check).close()
        (tmp_path / "rules").write_text(json.dumps([RULE]))
        monkeypatch.setenv("SOCKERLESS_OIDC_FILE", str(tmp_path / "rules"))
        assert AccessSettings().rules()[0].tenant == "acme"
        monkeypatch.setenv("SOCKERLESS_OIDC", json.dumps([RULE]))
        refuse(store, "SOCKERLESS_OIDC and SOCKERLESS_OIDC_FILE")
        monkeypatch.setenv("SOCKERLESS_OIDC_FILE", "")
        await build_access(store, check).close()
        monkeypatch.setenv("SOCKERLESS_OIDC", json.dumps([{**RULE, "claims": {}}]))
        refuse(store, "SOCKERLESS_OIDC: rule 1: claims")
        monkeypatch.setenv("SOCKERLESS_OIDC", "")
        monkeypatch.setenv("SOCKERLESS_CLIENT_CERTIFICATES", '[{"subject": "CN=x"}]')
        refuse(store, "SOCKERLESS_CLIENT_CERTIFICATES: tenant")
        monkeypatch.setenv("SOCKERLESS_CLIENT_CERTIFICATES", "{")
        refuse(store, "SOCKERLESS_CLIENT_CERTIFICATES")
        monkeypatch.setenv("SOCKERLESS_CLIENT_CERTIFICATES", "")
        monkeypatch.setenv("SOCKERLESS_PROXY_SECRET", "short")
        refuse(store, "SOCKERLESS_PROXY_SECRET: at least 32")
        monkeypatch.setenv("SOCKERLESS_PROXY_SECRET", "")
        monkeypatch.setenv("SOCKERLESS_PROXY_SECRET_FILE", "/nonexistent")
        refuse(store, "SOCKERLESS_PROXY_SECRET_FILE: /nonexistent cannot be read")
    finally:
        await store.close()


def refuse(store: SqliteStore, text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        build_access(store, GatewayAuth(KEY).check_attestation)
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)
