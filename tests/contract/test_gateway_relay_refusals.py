"""What the relay does not let agents and clients do: tokens, foreign streams, limits."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from agent_gateway.streams import Stream, StreamError, new_stream_id
from agent_gateway.tickets import mint_agent_token, mint_gateway_token, mint_ticket
from agent_gateway.websockets import dial
from tests.contract.gateway_peers import KEY, TENANT, FakeAgent, FakeControlPlane, echo, running_gateway
from tests.contract.relay_peers import SECONDS, Raw, connected, eventually, status_of


async def test_wrong_tokens_open_nothing() -> None:
    async with running_gateway() as gateway:
        stream = new_stream_id()
        agent = mint_agent_token(KEY, TENANT, "c1", 60)
        ticket = mint_ticket(KEY, TENANT, "c1", "exec", stream)
        forged = mint_ticket(b"x" * 32, TENANT, "c1", "exec", stream)
        other = mint_ticket(KEY, TENANT, "c1", "exec", new_stream_id())
        call = mint_ticket(KEY, TENANT, "c1", "call")
        for path, tokens in {
            "/agent/link": (ticket, mint_gateway_token(KEY, "g", 60), "", "x.y.z"),
            "/agent/streams": (ticket, ""),
            f"/agent/streams/{stream}": (ticket, call, ""),
            f"/streams/{stream}": (agent, forged, other, call, ""),
        }.items():
            for token in tokens:
                assert await status_of(gateway.url + path, token) == 401, (path, token)
        assert await status_of(f"{gateway.url}/agent/streams/nothex", agent) == 404
        assert await status_of(f"{gateway.url}/streams/{stream.upper()}", ticket) == 404
        assert len(gateway._streams.pairs) == 0
        async with httpx.AsyncClient(base_url=gateway.url) as client:
            for token in (agent, ticket, mint_ticket(KEY, TENANT, "c2", "call"), "x"):
                answer = await client.post(
                    "/links/c1/calls", json={"method": "top"}, headers={"authorization": f"Bearer {token}"}
                )
                assert answer.status_code == 401
                assert "message" in answer.json()
            answer = await client.post("/links/c1/calls", content=b"[", headers={"authorization": f"Bearer {call}"})
            assert answer.status_code == 400
            assert (await client.get("/agent/binary/linux-amd64")).status_code == 401
            # The agents' listener is not Docker's.
            assert (await client.get("/_ping")).status_code == 404
            assert (await client.post("/containers/x/attach")).status_code == 404


async def test_no_agent_joins_another_containers_stream() -> None:
    async with running_gateway() as gateway:
        stream = new_stream_id()
        client = Raw()
        await dial(f"{gateway.url}/streams/{stream}", client, mint_ticket(KEY, TENANT, "c1", "attach", stream))
        await eventually(lambda: len(gateway._streams.pairs) == 1)
        assert await status_of(f"{gateway.url}/agent/streams/{stream}", mint_agent_token(KEY, TENANT, "c2", 60)) == 403
        # One that came first loses its place to the ticket's word.
        stream = new_stream_id()
        squatter = Raw()
        await dial(f"{gateway.url}/agent/streams/{stream}", squatter, mint_agent_token(KEY, TENANT, "c2", 60))
        rightful = Raw()
        await dial(f"{gateway.url}/streams/{stream}", rightful, mint_ticket(KEY, TENANT, "c1", "attach", stream))
        assert await squatter.closed() == 1008
        assert not rightful.over.is_set()


async def test_a_link_must_say_hello_for_its_own_container() -> None:
    async with running_gateway() as gateway:
        token = mint_agent_token(KEY, TENANT, "c1", 60)
        for text in (
            '{"type":"hello","container":"c2","boot":"b"}',
            '{"type":"ping"}',
            '{"type":"no such"}',
            "not json",
            "{}",
        ):
            link = Raw()
            await dial(f"{gateway.url}/agent/link", link, token)
            link.send_text(text)
            assert await link.closed() == 1008
        link = Raw()
        await dial(f"{gateway.url}/agent/link", link, token)
        link.send_binary(b"x")
        assert await link.closed() == 1008


async def test_links_that_stay_silent_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_gateway.relay.links.HELLO_SECONDS", 0.1)
    async with running_gateway() as gateway:
        link = Raw()
        await dial(f"{gateway.url}/agent/link", link, mint_agent_token(KEY, TENANT, "c1", 60))
        assert await link.closed() == 1006


async def test_fragments_and_oversized_frames_are_refused() -> None:
    async with running_gateway() as gateway:
        stream = new_stream_id()
        agent = Raw()
        await dial(f"{gateway.url}/agent/streams/{stream}", agent, mint_agent_token(KEY, TENANT, "c1", 60))
        assert agent.ws is not None
        agent.ws.send(2, b"part", fin=False)  # type: ignore[arg-type]
        assert await agent.closed() == 1002
        agent = Raw()
        await dial(f"{gateway.url}/agent/streams/{stream}", agent, mint_agent_token(KEY, TENANT, "c1", 60))
        agent.send_binary(b"x" * (1024 * 1024 + 5000))
        assert await agent.closed() in (1009, 1006)


async def test_an_agent_without_a_client_may_not_send_more_than_the_window() -> None:
    async with running_gateway() as gateway:
        stream = new_stream_id()
        agent = Raw()
        await dial(f"{gateway.url}/agent/streams/{stream}", agent, mint_agent_token(KEY, TENANT, "c1", 60))
        for _ in range(3):
            agent.send_binary(b"x" * 1024 * 1024)
        assert await agent.closed() in (1008, 1006)
        assert len(gateway._streams.pairs) == 0


async def test_streams_per_container_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_gateway.relay.pairing.MAX_STREAMS_PER_CONTAINER", 2)
    async with running_gateway() as gateway:
        for _ in range(2):
            await gateway.agents.open(TENANT, "c1", "attach", {})
        with pytest.raises(StreamError) as refusal:
            await gateway.agents.open(TENANT, "c1", "attach", {})
        assert refusal.value.status == 429
        await gateway.agents.open(TENANT, "c2", "attach", {})


async def test_a_stream_that_ended_is_not_opened_again() -> None:
    async with running_gateway() as gateway:
        stream = new_stream_id()
        ticket = mint_ticket(KEY, TENANT, "c1", "attach", stream)
        client = Raw()
        await dial(f"{gateway.url}/streams/{stream}", client, ticket)
        client.close(1000)
        await eventually(lambda: len(gateway._streams.pairs) == 0)
        assert await status_of(f"{gateway.url}/streams/{stream}", ticket) == 410
        assert await status_of(f"{gateway.url}/agent/streams/{stream}", mint_agent_token(KEY, TENANT, "c1", 60)) == 410


async def test_an_expired_ticket_rejoins_but_never_opens() -> None:
    async with running_gateway() as gateway:
        agent = await connected(gateway)
        stream = new_stream_id()
        old = mint_ticket(KEY, TENANT, "c1", "exec", stream, seconds=-1)
        client = Raw()
        await dial(f"{gateway.url}/streams/{stream}", client, old)
        await asyncio.sleep(0.1)
        assert not any(m["type"] == "open" for m in agent.messages)
        half = Raw()
        await dial(f"{gateway.url}/agent/streams/{stream}", half, agent.token)
        half.send_binary(b"again")
        await eventually(lambda: client.data == b"again")
        with pytest.raises(StreamError):
            await gateway.agents.join(Stream(), new_stream_id(), old)
        await agent.close()


async def test_events_of_any_size_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_gateway() as gateway:
        for message in (
            {"type": "failed", "seq": 1, "run": 1, "code": 127, "message": "x" * 70_000, "at": "t"},
            {"type": "exec_exited", "seq": 1, "exec": "e" * 70_000, "code": 0, "at": "t"},
        ):
            agent = await connected(gateway)
            agent.send(message)
            async with asyncio.timeout(SECONDS):
                await agent.link_lost.wait()
            await agent.close()
        long = FakeAgent(gateway.url, "c1", echo)
        await long.connect(execs=["e" * 70_000])
        async with asyncio.timeout(SECONDS):
            await long.link_lost.wait()
        await long.close()


async def test_hellos_that_wait_for_the_control_plane_are_not_piled_up() -> None:
    plane = FakeControlPlane()
    plane.failures = 10_000
    async with running_gateway(plane) as gateway:
        agents = []
        for number in range(6):
            agent = FakeAgent(gateway.url, "c1", echo, boot=f"b{number}")
            await agent.connect()
            agent.send({"type": "started", "seq": 1, "run": 1, "pid": 7, "at": "t"})
            agents.append(agent)
        link = gateway._streams.links.get("c1")
        await eventually(lambda: [m["boot"] for _, m in link.queue if m["type"] == "hello"][-1:] == ["b5"])
        # The first of the queue may be on its way.
        assert sum(message["type"] == "hello" for _, message in link.queue) <= 2
        for agent in agents:
            await agent.close()
