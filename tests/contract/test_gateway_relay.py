"""The relay over real sockets: links, calls, events, pairing, spares, tickets and limits."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from agent_gateway.control_plane_client import Linked, Refused
from agent_gateway.protocol import Result
from agent_gateway.relay import streams as relay_streams
from agent_gateway.stream_dial import WebsocketCarrier
from agent_gateway.streams import RemoteRelay, Stream, StreamError, new_stream_id
from agent_gateway.tickets import mint_agent_token, mint_gateway_token, mint_ticket
from agent_gateway.websockets import Socket, dial
from tests.contract.gateway_peers import (
    KEY,
    TENANT,
    AgentStream,
    FakeAgent,
    FakeControlPlane,
    echo,
    running_gateway,
)

SECONDS = 5.0


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def connected(gateway: Any, container: str = "c1", handler: Any = echo, **how: Any) -> FakeAgent:
    agent = FakeAgent(gateway.url, container, handler, **how)
    await agent.connect()
    async with asyncio.timeout(SECONDS):
        await agent.welcomed.wait()
    return agent


class Raw(Socket):
    """A websocket that records."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.data = b""
        self.code: int | None = None
        self.over = asyncio.Event()

    def text(self, text: str) -> None:
        self.texts.append(text)

    def binary(self, view: memoryview) -> None:
        self.data += bytes(view)

    def lost(self, code: int) -> None:
        self.code = code
        self.over.set()

    async def closed(self) -> int:
        async with asyncio.timeout(SECONDS):
            await self.over.wait()
        assert self.code is not None
        return self.code


async def status_of(url: str, token: str) -> int:
    try:
        await dial(url, Raw(), token)
    except Exception as error:
        return int(error.response.status)  # type: ignore[attr-defined]
    return 101


async def both_relays(gateway: Any) -> list[Any]:
    return [gateway.agents, RemoteRelay(gateway.url, KEY)]


async def test_hello_is_answered_and_calls_reach_the_agent() -> None:
    plane = FakeControlPlane()
    plane.welcome = {"action": "start", "spec": {"run": 1}}
    async with running_gateway(plane) as gateway:
        agent = await connected(gateway)
        assert agent.messages[0] == {"type": "welcome", "action": "start", "streams": [], "spec": {"run": 1}}
        assert plane.hellos[0]["container"] == "c1"

        def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
            if method == "pause":
                raise StreamError(409, "container c1 is not running")
            return {"got": params}

        agent.answer = answer
        for relay in await both_relays(gateway):
            assert await relay.call(TENANT, "c1", "signal", {"signal": 15}) == {"got": {"signal": 15}}
            with pytest.raises(StreamError, match="not running") as refusal:
                await relay.call(TENANT, "c1", "pause", {})
            assert refusal.value.status == 409
        await agent.close()


async def test_streams_open_from_both_kinds_of_relay_clients() -> None:
    async with running_gateway() as gateway:
        agent = await connected(gateway)
        for relay in await both_relays(gateway):
            stream = await relay.open(TENANT, "c1", "exec", {})
            assert await stream.result() == {"pid": 7}
            payload = bytes(range(256)) * 8192

            async def feed(stream: Stream = stream, payload: bytes = payload) -> None:
                await stream.send(payload)
                await stream.send_eof()

            feeding = asyncio.create_task(feed())
            got = b"".join([chunk async for chunk in stream.chunks()])
            await feeding
            assert got == payload
            assert stream.exit_code == 0
            await stream.close()
        await eventually(lambda: len(gateway._streams.pairs) == 0)
        await agent.close()


async def test_the_agents_error_is_the_callers() -> None:
    async def refuse(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        from agent_gateway.protocol import Error

        stream.finish(Error(404, "Could not find the file /x in container c1"))
        await stream.wait_ended()

    async with running_gateway() as gateway:
        agent = await connected(gateway, handler=refuse)
        for relay in await both_relays(gateway):
            stream = await relay.open(TENANT, "c1", "archive_get", {"path": "/x"})
            with pytest.raises(StreamError, match="Could not find") as refusal:
                await stream.result()
            assert refusal.value.status == 404
            with pytest.raises(StreamError):
                async for _ in stream.chunks():
                    pass
        await agent.close()


async def test_a_spare_saves_the_dial() -> None:
    async with running_gateway() as gateway:
        agent = await connected(gateway)
        spare = Raw()
        await dial(f"{gateway.url}/agent/streams", spare, agent.token)
        await eventually(lambda: "c1" in gateway._streams.links._spares)
        stream = await gateway.agents.open(TENANT, "c1", "logs", {"tail": -1})
        await eventually(lambda: spare.texts)
        opened = json.loads(spare.texts[0])
        assert opened["type"] == "open"
        assert (opened["kind"], opened["params"]) == ("logs", {"tail": -1})
        assert not any(m["type"] == "open" for m in agent.messages)
        spare.send_binary(b"line\n")
        spare.send_text('{"eof":true}')
        assert [c async for c in stream.chunks()] == [b"line\n"]
        await stream.close()
        assert await spare.closed() == 1000
        await agent.close()


async def test_a_spare_that_breaks_unheard_is_replaced_over_the_link() -> None:
    async with running_gateway() as gateway:
        agent = await connected(gateway)
        spare = Raw()
        await dial(f"{gateway.url}/agent/streams", spare, agent.token)
        await eventually(lambda: "c1" in gateway._streams.links._spares)
        spare.abort()
        stream = await gateway.agents.open(TENANT, "c1", "exec", {})
        await stream.send(b"x")
        await stream.send_eof()
        assert b"".join([c async for c in stream.chunks()]) == b"x"
        await agent.close()


async def test_attach_before_start_waits_and_is_named_in_the_welcome() -> None:
    async with running_gateway() as gateway:
        for relay in await both_relays(gateway):
            stream = await relay.open(TENANT, "c1", "attach", {"stdin": True})
            await stream.send(b"early")
            await asyncio.sleep(0.05)
            agent = await connected(gateway, boot=f"b{id(relay)}")
            opened = [m for m in agent.messages if m["type"] == "open"]
            welcome = next(m for m in agent.messages if m["type"] == "welcome")
            assert [m["stream"] for m in opened] == welcome["streams"]
            assert opened[0]["params"] == {"stdin": True}
            await stream.send_eof()
            assert b"".join([c async for c in stream.chunks()]) == b"early"
            await agent.close()


async def test_the_start_call_names_the_attachments() -> None:
    async with running_gateway() as gateway:
        agent = await connected(gateway)
        stream = await gateway.agents.open(TENANT, "c1", "attach", {})
        await eventually(lambda: agent.streams)
        agent.answer = lambda method, params: {"streams": params["streams"]}
        answer = await gateway.agents.call(TENANT, "c1", "start", {"spec": {"run": 2}})
        assert answer == {"streams": list(agent.streams)}
        await stream.close()
        await agent.close()


async def test_without_an_agent_streams_and_calls_end_with_409(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_streams, "REDIAL_WAIT_SECONDS", 0.1)
    monkeypatch.setattr("agent_gateway.relay.links.REDIAL_WAIT_SECONDS", 0.1)
    async with running_gateway() as gateway:
        for relay in await both_relays(gateway):
            stream = await relay.open(TENANT, "c1", "exec", {})
            with pytest.raises(StreamError, match="agent of container c1 is not connected") as refusal:
                await stream.result()
            assert refusal.value.status == 409
            with pytest.raises(StreamError, match="agent of container c1 is not connected") as refusal:
                await relay.call(TENANT, "c1", "signal", {})
            assert refusal.value.status == 409
        assert gateway._streams.links.all() == []


async def test_a_call_waits_for_a_redial_and_fails_when_the_link_breaks() -> None:
    async with running_gateway() as gateway:
        call = asyncio.create_task(gateway.agents.call(TENANT, "c1", "signal", {}))
        await asyncio.sleep(0.05)
        agent = await connected(gateway)
        assert await call == {"method": "signal"}

        def vanish(method: str, params: dict[str, Any]) -> dict[str, Any]:
            assert agent.link is not None
            agent.link.abort()
            return {}

        agent.answer = vanish
        with pytest.raises(StreamError) as broken:
            await gateway.agents.call(TENANT, "c1", "signal", {})
        assert broken.value.status == 503
        await agent.close()


async def test_a_silent_agent_is_504() -> None:
    async with running_gateway() as gateway:
        agent = FakeAgent(gateway.url, "c1", echo)
        await agent.connect()
        await agent.welcomed.wait()
        agent.received = lambda message: None  # type: ignore[method-assign]
        with pytest.raises(StreamError) as late:
            await gateway.agents.call(TENANT, "c1", "signal", {}, timeout=0.1)
        assert late.value.status == 504
        await agent.close()


async def test_events_are_reported_in_order_until_accepted_then_acknowledged() -> None:
    plane = FakeControlPlane()
    plane.failures = 2
    async with running_gateway(plane) as gateway:
        agent = await connected(gateway)
        at = "2026-01-02T03:04:05.000000006Z"
        started = {"type": "started", "seq": 1, "run": 1, "pid": 7, "at": at}
        exited = {"type": "exited", "seq": 2, "run": 1, "code": 3, "oom": False, "at": at}
        for event in (started, exited, started, exited):
            agent.send(event)
        await eventually(lambda: agent.acked == 2)
        assert plane.events == [started, exited]
        agent.acked = 0
        agent.send(exited)
        await eventually(lambda: agent.acked == 2)
        assert plane.events == [started, exited]
        # Another agent process numbers from 1 again.
        second = await connected(gateway, boot="b2")
        second.send({**started, "run": 2})
        await eventually(lambda: second.acked == 1)
        assert plane.events[-1]["run"] == 2
        await agent.close()
        await second.close()


async def test_an_event_the_control_plane_will_never_accept_is_not_kept_for_ever() -> None:
    class Strict(FakeControlPlane):
        async def event(self, agent: Linked, event: Any) -> None:
            raise Refused(404, "No such container: c1")

    async with running_gateway(Strict()) as gateway:
        agent = await connected(gateway)
        agent.send({"type": "started", "seq": 1, "run": 1, "pid": 7, "at": "x"})
        await eventually(lambda: agent.acked == 1)
        await agent.close()


async def test_an_agent_nobody_wants_is_told_to_shut_down() -> None:
    class Strict(FakeControlPlane):
        async def hello(self, agent: Linked, message: Any) -> dict[str, Any]:
            raise Refused(404, "No such container: c1")

    async with running_gateway(Strict()) as gateway:
        agent = await connected(gateway)
        assert agent.messages[-1]["action"] == "shutdown"
        await agent.close()


async def test_the_newest_hello_wins() -> None:
    async with running_gateway() as gateway:
        first = await connected(gateway)
        second = await connected(gateway, boot="b2")
        second.answer = lambda method, params: {"who": "second"}
        async with asyncio.timeout(SECONDS):
            await first.link_lost.wait()
        assert await gateway.agents.call(TENANT, "c1", "top", {}) == {"who": "second"}
        await first.close()
        await second.close()


async def test_a_link_that_stays_away_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_gateway.relay.reports.SILENT_SECONDS", 0.1)
    plane = FakeControlPlane()
    async with running_gateway(plane) as gateway:
        agent = await connected(gateway)
        assert agent.link is not None
        agent.link.abort()
        await eventually(lambda: plane.gones == ["c1"])
        assert gateway._streams.links.all() == []
        await agent.close()


async def test_attachments_end_when_the_process_has_ended_and_the_agent_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_streams, "_EXITED_SECONDS", 0.1)

    async def hang(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        await asyncio.sleep(3600)

    async with running_gateway() as gateway:
        agent = await connected(gateway, handler=hang)
        stream = await gateway.agents.open(TENANT, "c1", "attach", {})
        await eventually(lambda: agent.streams)
        agent.send({"type": "exited", "seq": 1, "run": 1, "code": 0, "at": "x"})
        await eventually(lambda: agent.acked == 1)
        half = next(iter(agent.streams.values()))
        half.carrier._socket.abort()  # type: ignore[union-attr]
        agent.link.abort()  # type: ignore[union-attr]
        with pytest.raises(StreamError) as over:
            async for _ in stream.chunks():
                pass
        assert over.value.status == 409
        await agent.close()


async def test_the_control_plane_may_end_waiting_attachments() -> None:
    async with running_gateway() as gateway:
        one = await gateway.agents.open(TENANT, "c1", "attach", {})
        gateway.agents.end("c1")
        assert [c async for c in one.chunks()] == []
        other = await gateway.agents.open(TENANT, "c1", "attach", {})
        gateway.agents.end("c1", "container c1 is not running")
        with pytest.raises(StreamError, match="not running"):
            await other.result()


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


async def test_lone_halves_are_closed_after_their_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_gateway.relay.pairing.GRACE_SECONDS", 0.1)
    async with running_gateway() as gateway:
        agent = Raw()
        await dial(f"{gateway.url}/agent/streams/{new_stream_id()}", agent, mint_agent_token(KEY, TENANT, "c1", 60))
        assert await agent.closed() == 1001


async def test_the_relay_listens_on_a_unix_socket_too(tmp_path: Any) -> None:
    path = tmp_path / "agents.sock"
    async with running_gateway(agent=["tcp://127.0.0.1:0", f"unix://{path}"]) as gateway:
        agent = FakeAgent(f"unix://{path}:", "c1", echo)
        await agent.connect()
        async with asyncio.timeout(SECONDS):
            await agent.welcomed.wait()
        stream = await gateway.agents.open(TENANT, "c1", "exec", {})
        await stream.send(b"x" * 300_000)
        await stream.send_eof()
        assert len(b"".join([c async for c in stream.chunks()])) == 300_000
        await agent.close()
    assert not path.exists()


async def test_draining_asks_agents_to_dial_again() -> None:
    async with running_gateway() as gateway:
        agent = await connected(gateway)
        stopping = asyncio.create_task(gateway.stop(1.0))
        await eventually(lambda: any(m["type"] == "drain" for m in agent.messages))
        await stopping
        async with asyncio.timeout(SECONDS):
            await agent.link_lost.wait()
        await agent.close()


async def test_a_client_half_without_relay_is_503() -> None:
    with pytest.raises(StreamError) as refusal:
        await RemoteRelay("http://127.0.0.1:9", KEY).open(TENANT, "c1", "exec", {})
    assert refusal.value.status == 503
    with pytest.raises(StreamError) as refusal:
        await RemoteRelay("http://127.0.0.1:9", KEY).call(TENANT, "c1", "top", {})
    assert refusal.value.status == 503


async def test_results_come_from_the_carrier_in_order() -> None:
    async def archive(stream: AgentStream, kind: str, params: dict[str, Any]) -> None:
        stream.finish(Result({"name": "x"}))
        await stream.send(b"tar")
        await stream.send_eof()
        await stream.wait_ended()

    async with running_gateway() as gateway:
        agent = await connected(gateway, handler=archive)
        stream = Stream()
        stream_id = new_stream_id()
        ticket = mint_ticket(KEY, TENANT, "c1", "archive_get", stream_id, {"path": "/x"})
        await WebsocketCarrier(stream, f"{gateway.url}/streams/{stream_id}", ticket).dial()
        assert await stream.result() == {"name": "x"}
        assert [c async for c in stream.chunks()] == [b"tar"]
        await stream.close()
        await stream.close()
        await agent.close()
