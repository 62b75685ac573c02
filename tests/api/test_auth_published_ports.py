"""Who may dial a published port: whoever may exec in its container, and only what is published."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_gateway.tickets import verify_ticket
from control_plane.model import Container, Published
from control_plane.services.records import Records
from tests.auth_world import CONTAINER, KEY, Hosted, hosted

PORTS = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Hosted]:
    async with hosted(tmp_path) as opened:

        def change(container: Container) -> Container:
            state = container.state.model_copy(update={"status": "running"})
            return container.model_copy(
                update={"state": state, "published": Published(publication="p" * 32, ports=PORTS)}
            )

        await Records(opened.store, "containers", Container).update("acme", CONTAINER, change)
        yield opened


async def dial(endpoint: Hosted, who: str, reference: str = CONTAINER, query: str = "port=80") -> tuple[int, str]:
    path = f"/internal/v1/containers/{reference}/dial"
    answer = await endpoint.request(
        "POST", "/internal/v1/tickets", who, json={"method": "POST", "path": path, "query": query}
    )
    return answer.status_code, answer.json().get("ticket") or answer.json()["message"]


@pytest.mark.parametrize("who", ["acme-full", "acme-run"])
async def test_a_ticket_for_one_port(endpoint: Hosted, who: str) -> None:
    status, _ = await dial(endpoint, who)
    assert status == 200
    asked = {"method": "POST", "path": f"/internal/v1/containers/{CONTAINER}/dial", "query": "port=80"}
    answer = (await endpoint.request("POST", "/internal/v1/tickets", who, json=asked)).json()
    granted = verify_ticket(KEY, answer["ticket"], stream=answer["stream_id"])
    assert (granted.tenant, granted.container, granted.kind) == ("acme", CONTAINER, "dial")
    assert granted.params == {"port": 80, "network": "tcp"}
    assert endpoint.audit[-1]["action"] == "POST /internal/v1/containers/{id}/dial"


async def test_readers_and_others_have_none(endpoint: Hosted) -> None:
    assert (await dial(endpoint, "acme-read"))[0] == 403
    assert (await dial(endpoint, ""))[0] == 401
    theirs = await dial(endpoint, "rival-full")
    assert theirs == (404, (await dial(endpoint, "rival-full", "b" * 64))[1].replace("b" * 64, CONTAINER))
    assert await dial(endpoint, "rival-full", "acme-web") == (404, "No such container: acme-web")
    for query in ("port=22", "port=8080", "", "port=80&port=22", "port=-1"):
        status, text = await dial(endpoint, "acme-full", query=query)
        assert (status == 200) == (query == "port=80&port=22"), text


async def test_the_path_itself_serves_nobody(endpoint: Hosted) -> None:
    answer = await endpoint.request("POST", f"/internal/v1/containers/{CONTAINER}/dial?port=80", "acme-full")
    assert answer.status_code in (401, 404, 501)
    assert "ticket" not in answer.json()
