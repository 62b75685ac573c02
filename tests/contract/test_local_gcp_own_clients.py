"""The local cloud's HTTP port serves programs of this machine, and no web page."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.contract.local_gcp_fixtures import local_cloud


@pytest.mark.parametrize(
    ("headers", "served"),
    [
        ({}, True),
        ({"host": "localhost:1"}, True),
        ({"host": "registry.example:1"}, True),
        ({"host": "[::1]:1"}, True),
        ({"host": "rebound.example.com"}, False),
        ({"host": "127.0.0.1.example.com"}, False),
        ({"origin": "https://example.com"}, False),
        ({"origin": "null"}, False),
    ],
)
async def test_web_pages_are_turned_away(tmp_path: Path, headers: dict[str, str], served: bool) -> None:
    options = {"registry_hosts": ("registry.example:1",)}
    async with (
        local_cloud(tmp_path, **options) as (cloud, _),
        httpx.AsyncClient(base_url=cloud.http_url) as web,
    ):
        for path in ("/_local/calls", "/v2/", "/storage/v1/b"):
            assert (await web.get(path, headers=headers)).status_code == (200 if served else 403)
        written = await web.post("/storage/v1/b", json={"name": "planted"}, headers=headers)
        assert written.status_code == (200 if served else 403)
