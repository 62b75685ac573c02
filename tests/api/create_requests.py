"""`docker create` as the tests send it."""

from __future__ import annotations

from typing import Any

from tests.core_fakes import Endpoint


async def create(endpoint: Endpoint, body: dict[str, Any], query: str = "", version: str = "1.50") -> Any:
    return await endpoint.client.post(f"/v{version}/containers/create{query}", json={"Image": "busybox", **body})


async def made(endpoint: Endpoint, body: dict[str, Any], query: str = "", version: str = "1.50") -> Any:
    answer = await create(endpoint, body, query, version)
    assert answer.status_code == 201, answer.text
    return (await endpoint.client.get(f"/containers/{answer.json()['Id']}/json")).json()


async def refused(endpoint: Endpoint, body: dict[str, Any], version: str = "1.50") -> tuple[int, str]:
    answer = await create(endpoint, body, version=version)
    assert answer.status_code >= 400, answer.text
    assert await endpoint.containers.list("default") == []
    assert await endpoint.store.list("names", "default") == []
    return answer.status_code, answer.json()["message"]
