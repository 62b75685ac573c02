"""`docker create` that is sent again because its answer was lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.core_fakes import Endpoint


async def attempt(endpoint: Endpoint, number: str, name: str = "", **body: Any) -> Any:
    headers = {"Sockerless-Attempt": number} if number else {}
    return await endpoint.client.post(
        f"/containers/create?name={name}", json={"Image": "busybox", **body}, headers=headers
    )


@pytest.mark.parametrize("name", ["", "box"])
async def test_the_second_finds_the_container_of_the_first(endpoint: Endpoint, name: str) -> None:
    first = await attempt(endpoint, "a1", name, Volumes={"/data": {}})
    second = await attempt(endpoint, "a1", name, Volumes={"/data": {}})
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["Id"] == second.json()["Id"]
    assert len(await endpoint.containers.list("default")) == 1
    assert len(await endpoint.store.list("names", "default")) == 1
    shown = (await endpoint.client.get(f"/containers/{first.json()['Id']}/json")).json()
    assert shown["Name"] == f"/{name}" if name else len(shown["Name"]) > 1


@pytest.mark.parametrize("name", ["", "box"])
async def test_both_at_once(endpoint: Endpoint, name: str) -> None:
    answers = await asyncio.gather(*(attempt(endpoint, "a1", name) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["Id"] for answer in answers}) == 1
    (container,) = await endpoint.containers.list("default")
    (held,) = await endpoint.store.list("names", "default")
    assert (held.key, held.body["container"]) == (container.name, container.id)


async def test_another_attempt_is_another_container(endpoint: Endpoint) -> None:
    made = [(await attempt(endpoint, number)).json()["Id"] for number in ("a1", "a2", "", "")]
    assert len(set(made)) == 4
    await attempt(endpoint, "a1", "box")  # found already: the name is not given to it now
    assert (await attempt(endpoint, "a3", "box")).status_code == 201
    refused = await attempt(endpoint, "a4", "box")
    assert refused.status_code == 409
    assert "is already in use" in refused.json()["message"]


async def test_a_refusal_stays_one(endpoint: Endpoint) -> None:
    for _ in range(2):
        assert (await attempt(endpoint, "a1", Image="nothing")).status_code == 404
    assert await endpoint.containers.list("default") == []
