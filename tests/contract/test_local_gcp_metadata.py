"""The metadata server of the local cloud, asked by google-auth."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest
from google.auth import jwt

from local_cloud.gcp.metadata.tokens import TokenRefused, Tokens
from tests.contract.local_gcp_services import serving

HEADERS = {"Metadata-Flavor": "Google"}
ROOT = "/computeMetadata/v1"
GOOGLE_AUTH = """
import google.auth
from google.auth import compute_engine
from google.auth.compute_engine import _metadata
from google.auth.transport.requests import Request
request = Request()
assert _metadata.ping(request)
credentials = compute_engine.Credentials()
credentials.refresh(request)
assert credentials.valid
assert _metadata.get_project_id(request) == 'local'
assert credentials.universe_domain == 'googleapis.com'
identity = compute_engine.IDTokenCredentials(request, 'https://here.a.run.app', use_metadata_identity_endpoint=True)
identity.refresh(request)
print(identity.token)
"""


async def test_google_auth_gets_its_tokens_here(tmp_path: Path) -> None:
    async with serving(tmp_path) as (cloud, _):
        host = cloud.http_url.removeprefix("http://")
        env = {"GCE_METADATA_HOST": host, "GCE_METADATA_IP": host, "PATH": "/usr/bin:/bin"}
        asked = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", GOOGLE_AUTH], env=env, capture_output=True, text=True, timeout=30
        )
        assert asked.returncode == 0, asked.stderr
        token = asked.stdout.strip()
        claims = jwt.decode(token, verify=False)
        assert claims["aud"] == "https://here.a.run.app"
        assert claims["iss"] == "https://accounts.google.com"
        assert claims["email"].endswith("-compute@developer.gserviceaccount.com")
        counts = cloud.calls.counts()
        assert counts["Metadata.IdentityToken"] == counts["Metadata.AccessToken"] == 1


async def test_answers_only_those_who_say_what_they_ask(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, sdk):
        path = f"{ROOT}/instance/service-accounts/default/token"
        assert (await sdk.http.get(path)).status_code == 403
        assert (await sdk.http.get(path, headers={**HEADERS, "X-Forwarded-For": "1.2.3.4"})).status_code == 403
        answer = await sdk.http.get(path, headers=HEADERS)
        assert answer.json()["token_type"] == "Bearer"
        assert answer.headers["metadata-flavor"] == "Google"
        missing = f"{ROOT}/instance/service-accounts/default/identity"
        assert (await sdk.http.get(missing, headers=HEADERS)).status_code == 400
        assert (await sdk.http.get(f"{ROOT}/instance/nothing", headers=HEADERS)).status_code == 404
        assert (await sdk.http.get(f"{ROOT}/project/project-id", headers=HEADERS)).text == "local"
        listing = await sdk.http.get(f"{ROOT}/", headers=HEADERS)
        assert listing.text.split() == ["instance/", "project/", "universe/"]
        everything = await sdk.http.get(f"{ROOT}/?recursive=true", headers=HEADERS)
        assert everything.json()["project"]["projectId"] == "local"
        assert "default" in everything.json()["instance"]["serviceAccounts"]


async def test_tokens_count_for_their_audience_and_their_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys" / "tokens.pem"
    issuer = Tokens(path)
    token = await issuer.identity("https://a", "me@example.org", full=False)
    assert path.stat().st_mode & 0o777 == 0o600
    await Tokens(path).check(token, {"https://a"})
    with pytest.raises(TokenRefused):
        await issuer.check(token, {"https://b"})
    with pytest.raises(TokenRefused):
        await Tokens(tmp_path / "other.pem").check(token, {"https://a"})
    head, _, signature = token.split(".")
    forged = (await issuer.identity("https://b", "me@example.org", full=False)).split(".")[1]
    for bad in ("", "a.b.c", f"{head}.{forged}.{signature}", token + "x" * 20_000, f"{head}.{forged}."):
        with pytest.raises(TokenRefused):
            await issuer.check(bad, {"https://a", "https://b"})
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3601)
    with pytest.raises(TokenRefused, match="expired"):
        await issuer.check(token, {"https://a"})
