"""Agents and streams that move between two gateways of this process; tickets, limits, tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent_gateway.control_plane_client import Linked
from agent_gateway.relay import reports
from agent_gateway.relay.used_tickets import UsedTickets
from agent_gateway.server import Gateway, GatewaySettings
from agent_gateway.streams import RemoteRelay, StreamError, new_stream_id
from agent_gateway.tickets import KIND_CALL, mint_ticket
from tests.contract.gateway_peers import KEY, TENANT, FakeAgent, FakeControlPlane, docker_api, echo
from tests.contract.http_client import EXEC, Client
from tests.contract.relay_peers import SECONDS, connected, eventually, status_of


class Place:
    """Where the container's agent is, as a control plane knows it."""

    def __init__(self) -> None:
        self.url = ""
        self.asked = 0

    async def where(self, stream_id: str, ticket: str) -> str:
        self.asked += 1
        return self.url


@asynccontextmanager
async def two(**settings: Any) -> AsyncIterator[tuple[Any, Any, Place]]:
    place, gateways = Place(), []
    for name in ("http://a", "http://b"):
        plane = FakeControlPlane(name)
        made: Any = Gateway(
            GatewaySettings(KEY, name, ["tcp://127.0.0.1:0"], ["tcp://127.0.0.1:0"], **settings),
            plane,
            docker_api,
            place.where,
        )
        await made.start()
        made.plane = plane
        made.url = "http://" + made.agent_addresses[0].removeprefix("tcp://")
        made.port = int(made.docker_addresses[0].rsplit(":", 1)[1])
        gateways.append(made)
    try:
        yield gateways[0], gateways[1], place
    finally:
        for made in gateways:
            await made.stop(0)


async def test_a_docker_client_of_one_gateway_goes_on_when_the_agent_moves_to_the_other() -> None:
    async with two() as (first, second, place):
        agent = await connected(first)
        client = await Client.connect(first.port)
        client.request("POST", "/exec/e1/start", EXEC)
        assert (await client.head())[0] == 101
        client.send(b"one ")
        async with asyncio.timeout(SECONDS):
            assert await client.reader.readexactly(4) == b"one "
        # The agent's link and streams break, and are dialled at the other gateway.
        place.url = agent.url = second.url
        for stream in agent.streams.values():
            carrier: Any = stream.carrier
            carrier._url = carrier._url.replace(first.url, second.url)
        assert agent.link is not None
        agent.link.abort()
        await agent.connect(link=2)
        assert await first.agents.call(TENANT, "c1", "move", {"boot": "b1", "link": 2}) == {"streams": []}
        for stream in agent.streams.values():
            carrier = stream.carrier
            carrier._socket.ws.disconnect(False)
        client.send(b"two ")
        client.writer.write_eof()
        assert await client.rest() == b"two "
        assert place.asked
        await agent.close()


async def test_a_docker_client_whose_container_was_given_a_gateway_that_is_dead(unused_tcp_port: int) -> None:
    async with two() as (first, second, place):
        first.plane.relay_url = place.url = f"http://127.0.0.1:{unused_tcp_port}"
        client = await Client.connect(first.port)
        client.request("POST", "/exec/e1/start", EXEC)
        client.send(b"one")
        client.writer.write_eof()
        await eventually(lambda: place.asked > 1)
        agent = await connected(second)  # it has found the other
        place.url = second.url
        assert (await client.head())[0] == 101
        assert await client.rest() == b"one"
        await agent.close()


async def test_attachments_that_wait_are_sent_off_and_named() -> None:
    async with two() as (first, second, place):
        place.url = second.url
        stream = await RemoteRelay(first.url, KEY, place.where).open(TENANT, "c1", "attach", {})
        await eventually(lambda: len(first._streams.pairs))
        moved = await first.agents.call(TENANT, "c1", "move", {"boot": "b1", "link": 1})
        assert len(moved["streams"]) == 1
        await eventually(lambda: second._streams.waiting("c1") == moved["streams"])
        # One that comes to the old place later is sent on as well.
        late = await RemoteRelay(first.url, KEY, place.where).open(TENANT, "c1", "attach", {})
        await eventually(lambda: len(second._streams.waiting("c1")) == 2)
        await stream.close()
        await late.close()


async def test_a_move_does_not_cut_off_an_agent_that_has_come_back_since() -> None:
    async with two() as (first, _, __):
        agent = FakeAgent(first.url, "c1", echo)
        await agent.connect(link=3)
        await agent.welcomed.wait()
        assert await first.agents.call(TENANT, "c1", "move", {"boot": "b1", "link": 2}) == {"streams": []}
        assert await first.agents.call(TENANT, "c1", "top", {}) == {"method": "top"}
        await first.agents.call(TENANT, "c1", "move", {"boot": "b1", "link": 4})
        async with asyncio.timeout(SECONDS):
            await agent.link_lost.wait()
        await agent.close()


async def test_agents_are_told_of_other_gateways_and_where_to_go_when_one_drains() -> None:
    async with two() as (first, second, _):
        agent = await connected(first)
        first.others([second.url])
        await eventually(lambda: {"type": "gateways", "urls": [second.url]} in agent.messages)
        await first.stop(0.2)
        assert {"type": "drain", "gateway": second.url} in agent.messages
        await agent.close()


async def test_a_call_ticket_is_good_for_one_call() -> None:
    async with two() as (first, _, __):
        agent = await connected(first)
        ticket = mint_ticket(KEY, TENANT, "c1", KIND_CALL)
        body = b'{"method":"top","params":{}}'
        statuses = []
        for _unused in range(2):
            client = await Client.connect(int(first.url.rsplit(":", 1)[1]))
            head = f"POST /links/c1/calls HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {ticket}\r\n"
            client.send(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            statuses.append((await client.answer())[0])
        assert statuses == [200, 401]
        await agent.close()


async def test_a_stream_ticket_rejoins_a_live_stream_and_opens_no_second_one() -> None:
    async with two() as (first, _, __):
        agent = await connected(first)
        stream = new_stream_id()
        ticket = mint_ticket(KEY, TENANT, "c1", "exec", stream, {})
        url = f"{first.url}/streams/{stream}"
        assert await status_of(url, ticket) == 101
        await eventually(lambda: agent.streams)
        assert await status_of(url, ticket) == 101  # while it lives: a redial
        first._streams.pairs.get(stream).fail(409, "over")
        assert await status_of(url, ticket) == 410
        # However many streams end meanwhile.
        for _unused in range(5000):
            first._streams.pairs.remove(first._streams.pairs.for_client(new_stream_id(), "c2", "exec", {}))
        assert await status_of(url, ticket) == 410
        await agent.close()


def test_used_tickets_are_forgotten_when_they_have_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("agent_gateway.relay.used_tickets.time.time", lambda: clock[0])
    used = UsedTickets()
    assert used.use("a", 1060)
    assert not used.use("a", 1060)
    clock[0] = 1061
    assert used.use("b", 1121)
    assert len(used) == 1


async def test_one_address_cannot_take_all_connections_before_it_shows_a_token() -> None:
    async with two(peer_connections=3) as (first, _, __):
        port = int(first.url.rsplit(":", 1)[1])
        idle = [await Client.connect(port) for _unused in range(3)]
        await eventually(lambda: len(first._agent.state.connections) == 3)
        refused = await Client.connect(port)
        refused.request("GET", "/health", upgrade=False)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await refused.head()
        idle.pop().writer.close()
        await eventually(lambda: len(first._agent.state.connections) == 2)
        # Websockets do not count: they have shown a token.
        agents = [await connected(first, f"c{number}") for number in range(5)]
        for agent in agents:
            await agent.close()
        for client in idle:
            client.writer.close()


async def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_gateway.front_door.http._HEAD_SECONDS", 0.1)
    async with two() as (first, _, __):
        client = await Client.connect(int(first.url.rsplit(":", 1)[1]))
        assert await client.rest() == b""


async def test_tokens_are_handed_over_and_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Renewing(FakeControlPlane):
        given = 0

        async def token(self, agent: Linked) -> str:
            self.given += 1
            return f"renewed-{self.given}"

    monkeypatch.setattr(reports, "TOKEN_SECONDS", 0.05)
    plane = Renewing()
    plane.welcome = {"action": "wait", "token": "first"}
    gateway: Any = Gateway(GatewaySettings(KEY, "http://a", [], ["tcp://127.0.0.1:0"]), plane, docker_api)
    await gateway.start()
    gateway.url = "http://" + gateway.agent_addresses[0].removeprefix("tcp://")
    agent = await connected(gateway)
    await eventually(lambda: {"type": "token", "token": "renewed-2"} in agent.messages)
    told = [m["token"] for m in agent.messages if m["type"] == "token"]
    assert told[:3] == ["first", "renewed-1", "renewed-2"]
    await agent.close()
    await gateway.stop(0)


async def test_a_stream_nobody_has_is_refused_where_it_is_now() -> None:
    class Ended(Place):
        async def where(self, stream_id: str, ticket: str) -> str:
            raise StreamError(404, "No such container: c1")

    async with two() as (first, _, __):
        agent = await connected(first)
        stream = await RemoteRelay(first.url, KEY, Ended().where).open(TENANT, "c1", "exec", {})
        await stream.result()
        carrier: Any = stream.carrier
        carrier._socket.ws.disconnect(False)
        with pytest.raises(StreamError) as over:
            async for _unused in stream.chunks():
                pass
        assert over.value.status == 404
        await agent.close()


@pytest.mark.parametrize(("shown", "status"), [("s" * 32, 101), ("x" * 32, 403), ("", 403)])
async def test_a_clients_certificate_counts_when_the_tls_proxy_vouches_for_it(shown: str, status: int) -> None:
    async with two(proxy_secret="s" * 32) as (first, _, __):
        agent = await connected(first)
        client = await Client.connect(first.port)
        head = "POST /exec/e1/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        head += f"X-Sockerless-Client-Certificate: CN=ci\r\nX-Sockerless-Proxy: {shown}\r\n"
        client.send(head.encode() + b"Content-Length: %d\r\n\r\n" % len(EXEC) + EXEC)
        assert (await client.head())[0] == status
        assert [request.certificate for request in first.plane.requests] == (["CN=ci"] if status == 101 else [])
        client.writer.close()
        await agent.close()
