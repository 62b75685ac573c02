"""The local cloud's token endpoints, asked by azure-identity and by hand."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CredentialUnavailableError
from azure.identity.aio import ManagedIdentityCredential

from tests.contract.local_azure_fixtures import azure_cloud

TENANT = "00000000-0000-0000-0000-000000000002"


async def test_the_managed_identity_gets_tokens(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (cloud, azure):
        token = await azure.credential.get_token("https://management.azure.com/.default")
        claims = jwt.decode(token.token, options={"verify_signature": False})
        assert claims["aud"].rstrip("/") == "https://management.azure.com"
        assert time.time() + 3600 < token.expires_on == claims["exp"]
        assert cloud.calls.counts()["Identity.Token"] == 1
        monkeypatch.setenv("IDENTITY_HEADER", "wrong")
        async with ManagedIdentityCredential() as other:
            with pytest.raises((ClientAuthenticationError, CredentialUnavailableError)):
                await other.get_token("https://management.azure.com/.default")
        answer = await azure.http.get("/msi/token?api-version=2019-08-01&resource=https://management.azure.com/")
        assert (answer.status_code, answer.json()["statusCode"]) == (401, 401)


async def test_the_key_outlives_the_local_cloud(tmp_path: Path, monkeypatch: Any) -> None:
    path = "/subscriptions/00000000-0000-0000-0000-000000000000/providers/Microsoft.Web/sites?api-version=2025-05-01"
    async with azure_cloud(tmp_path, monkeypatch) as (cloud, azure):
        token, identity = (
            (await azure.credential.get_token("https://management.azure.com/.default")).token,
            (cloud.azure_identity[1]),
        )
        expired, _ = cloud._azure._tokens.issue("https://management.azure.com/", lifetime=-1)
    async with azure_cloud(tmp_path, monkeypatch) as (cloud, azure):
        assert cloud.azure_identity[1] == identity
        answer = await azure.http.get(path, headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["value"]) == (200, [])
        answer = await azure.http.get(path, headers={"Authorization": f"Bearer {expired}"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "ExpiredAuthenticationToken")


async def test_client_credentials(tmp_path: Path, monkeypatch: Any) -> None:
    async with azure_cloud(tmp_path, monkeypatch) as (cloud, azure):
        form = {
            "grant_type": "client_credentials",
            "client_id": "x",
            "client_secret": cloud.azure_identity[1],
            "scope": "https://api.loganalytics.io/.default",
        }
        path = f"/{TENANT}/oauth2/v2.0/token"
        answer = await azure.http.post(path, data=form)
        assert (answer.status_code, answer.json()["token_type"]) == (200, "Bearer")
        for change, status, error in (
            ({"client_secret": "wrong"}, 401, "invalid_client"),
            ({"grant_type": "password"}, 400, "unsupported_grant_type"),
            ({"scope": "x"}, 400, "invalid_scope"),
        ):
            answer = await azure.http.post(path, data=form | change)
            assert (answer.status_code, answer.json()["error"]) == (status, error)


async def test_throttling_tells_when_to_come_again(tmp_path: Path, monkeypatch: Any) -> None:
    from local_cloud.quotas import Quotas

    quotas = Quotas(arm_reads=2, arm_reads_per_second=0.1)
    async with azure_cloud(tmp_path, monkeypatch, quotas=quotas) as (_, azure):
        token = (await azure.credential.get_token("https://management.azure.com/.default")).token
        path = "/subscriptions/00000000-0000-0000-0000-000000000000/providers/Microsoft.Web/sites"
        answers = [
            await azure.http.get(f"{path}?api-version=2025-05-01", headers={"Authorization": f"Bearer {token}"})
            for _ in range(3)
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].json()["error"]["code"] == "SubscriptionRequestsThrottled"
        assert 1 <= int(answers[2].headers["retry-after"]) <= 10
