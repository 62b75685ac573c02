"""How long a front door waits for a control plane whose connection broke."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from agent_gateway.faults import Lost
from agent_gateway.forwarding import upstream
from agent_gateway.forwarding.address import Address
from agent_gateway.forwarding.connections import Connections
from agent_gateway.forwarding.upstream import Bearer, Upstream


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Upstream:
    monkeypatch.setattr(upstream, "_RECONNECT_SECONDS", 0.05)
    connections = Connections(Address("http://127.0.0.1:1"))
    connections.reached = True
    return Upstream(connections, Bearer("t"))


async def test_a_long_request_that_breaks_is_sent_again(asked: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = 0

    async def once(*_: Any) -> httpx.Response:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await asyncio.sleep(0.1)  # longer than anybody waits for an endpoint that is away
            raise Lost("killed")
        return httpx.Response(204, headers={"api-version": "1.50"})

    monkeypatch.setattr(asked, "_once", once)
    assert (await asked.ask("POST", "/containers/a/start", again=True)).status_code == 204
    assert attempts == 2


async def test_a_request_that_is_cut_again_and_again_while_it_is_served_goes_on(
    asked: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "_SERVED_SECONDS", 0.02)
    attempts = 0

    async def once(*_: Any) -> httpx.Response:
        nonlocal attempts
        attempts += 1
        if attempts < 5:
            await asyncio.sleep(0.04)
            raise Lost("the front end's limit")
        return httpx.Response(204, headers={"api-version": "1.50"})

    monkeypatch.setattr(asked, "_once", once)
    assert (await asked.ask("POST", "/containers/a/start", again=True)).status_code == 204


@pytest.mark.parametrize(("killed", "status"), [(4, 204), (1000, 502)])
async def test_a_request_whose_control_planes_are_killed_one_after_the_other(
    asked: Upstream, monkeypatch: pytest.MonkeyPatch, killed: int, status: int
) -> None:
    """A front end says so with an answer of its own. A request that kills each of them is not sent for ever."""
    monkeypatch.setattr(upstream, "_SERVED_SECONDS", 0.02)
    attempts = 0

    async def once(*_: Any) -> httpx.Response:
        nonlocal attempts
        attempts += 1
        if attempts <= killed:
            await asyncio.sleep(0.06)
            return httpx.Response(502)
        return httpx.Response(204, headers={"api-version": "1.50"})

    monkeypatch.setattr(asked, "_once", once)
    async with asyncio.timeout(20):
        assert (await asked.ask("POST", "/containers/a/start", again=True)).status_code == status
    assert attempts > 4


async def test_an_endpoint_that_stays_away_is_given_up(asked: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    async def once(*_: Any) -> httpx.Response:
        raise Lost("killed")

    monkeypatch.setattr(asked, "_once", once)
    with pytest.raises(Lost):
        await asked.ask("POST", "/containers/a/start", again=True)


class CutBody(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{"
        raise httpx.ReadError("reset")


async def test_answers_that_are_cut_again_and_again_are_given_up(
    asked: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long each of them took to come."""
    monkeypatch.setattr(upstream, "_SERVED_SECONDS", 0.01)
    attempts = 0

    async def once(*_: Any) -> httpx.Response:
        nonlocal attempts
        attempts += 1
        await asyncio.sleep(0.02)
        return httpx.Response(200, headers={"api-version": "1.50", "content-length": "2"}, stream=CutBody())

    monkeypatch.setattr(asked, "_once", once)
    async with asyncio.timeout(20):
        with pytest.raises(Lost):
            await asked.ask("GET", "/version", again=True)
    assert attempts > 1
