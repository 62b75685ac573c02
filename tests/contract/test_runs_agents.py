"""`Agents` on the gateway's relay: errors come as Docker's, broken calls are repeated where that is harmless."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agent_gateway.client_half import ClientHalf, StreamError
from agent_gateway.streams import GatewayUnreachable, Stream
from agent_gateway.tickets import verify_agent_token, verify_ticket
from control_plane.agents import RelayedAgents
from control_plane.auth.tokens import GatewayAuth
from control_plane.errors import Conflict, DockerError, GatewayTimeout, NotFound, ServerError, Unavailable
from control_plane.model import AgentLink, Container
from control_plane.services.ports import AgentUnreachable

KEY = b"k" * 32
CONTAINER = Container(
    id="c" * 64,
    tenant="t1",
    name="web",
    created_at="2026-01-01T00:00:00Z",
    image="i",
    image_id="sha256:1",
    config={},
    host_config={},
    backend="fake",
    gateway="http://gw",
)


class ScriptedRelay:
    """Answers calls with what it is given, in order."""

    def __init__(self, *answers: StreamError | dict[str, Any]) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, str, str]] = []

    async def join(self, half: ClientHalf, stream_id: str, ticket: str) -> None:
        raise NotImplementedError

    async def open(self, tenant: str, container: str, kind: str, params: Mapping[str, Any]) -> Stream:
        stream = Stream()
        answer = self.answers.pop(0)
        if isinstance(answer, StreamError):
            stream.on_end(answer)
        return stream

    async def call(
        self, tenant: str, container: str, method: str, params: Mapping[str, Any], timeout: float = 60
    ) -> dict[str, Any]:
        self.calls.append((tenant, container, method))
        answer = self.answers.pop(0)
        if isinstance(answer, StreamError):
            raise answer
        return answer


def agents(relay: ScriptedRelay) -> RelayedAgents:
    return RelayedAgents(KEY, {"http://gw": relay})


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (404, "no such file", NotFound),
        (409, "container c is not running", Conflict),
        (409, "agent of container c is not connected", AgentUnreachable),
        (504, "late", GatewayTimeout),
        (418, "teapot", ServerError),
    ],
)
async def test_errors(status: int, text: str, expected: type[DockerError]) -> None:
    relay = ScriptedRelay(StreamError(status, text), StreamError(status, text))
    with pytest.raises(expected) as told:
        await agents(relay).call(CONTAINER, "signal", {})
    assert (type(told.value), told.value.message) == (expected, text)
    stream = await agents(relay).open(CONTAINER, "logs", {})
    with pytest.raises(expected):
        async for _ in stream.chunks():
            pass


async def test_a_broken_call_is_repeated_once() -> None:
    relay = ScriptedRelay(StreamError(503, "broke"), {"a": 1})
    assert await agents(relay).call(CONTAINER, "pause", {}) == {"a": 1}
    assert relay.calls == [("t1", CONTAINER.id, "pause")] * 2


@pytest.mark.parametrize(
    ("method", "times", "expected"),
    [("signal", 2, AgentUnreachable), ("start", 2, Unavailable), ("exec", 1, Unavailable)],
)
async def test_a_call_that_stays_broken(method: str, times: int, expected: type[DockerError]) -> None:
    relay = ScriptedRelay(*[StreamError(503, "broke")] * 3)
    with pytest.raises(expected):
        await agents(relay).call(CONTAINER, method, {})
    assert len(relay.calls) == times


def test_tokens_open_what_they_are_for() -> None:
    auth = GatewayAuth(KEY)
    assert verify_agent_token(KEY, auth.agent_token(CONTAINER)).container == CONTAINER.id
    ticket = verify_ticket(KEY, auth.stream_ticket(CONTAINER, "attach", "s" * 32, {"stdin": True}), stream="s" * 32)
    assert (ticket.tenant, ticket.kind, ticket.params) == ("t1", "attach", {"stdin": True})


def _linked(gateway: str, *, connected: bool = True) -> Container:
    return CONTAINER.model_copy(update={"agent": AgentLink(boot="b", gateway=gateway, connected=connected)})


async def test_a_call_finds_the_agent_at_the_gateway_that_it_has_moved_to() -> None:
    gone = ScriptedRelay(GatewayUnreachable(503, "the gateway can't be reached"))
    here = ScriptedRelay({"pid": 7})
    agents = RelayedAgents(KEY, {"http://gw": gone, "http://gw2": here})

    async def present(tenant: str, key: str) -> Container:
        return _linked("http://gw2")

    agents.follow(present)
    # Nobody has heard of it: also an exec, which is never said twice, may be said again.
    assert await agents.call(_linked("http://gw"), "exec", {}) == {"pid": 7}


async def test_a_start_that_no_gateway_has_heard_is_not_taken_for_heard() -> None:
    unreachable = GatewayUnreachable(503, "the gateway can't be reached")
    agents = RelayedAgents(KEY, {"http://gw": ScriptedRelay(unreachable, unreachable)})
    with pytest.raises(AgentUnreachable):
        await agents.call(_linked("http://gw"), "start", {})


async def test_the_end_is_told_wherever_client_halves_may_wait() -> None:
    home, other = ScriptedRelay({}), ScriptedRelay({})
    agents = RelayedAgents(KEY, {"http://gw": home, "http://gw2": other})
    await agents.call(_linked("http://gw2", connected=False), "end", {"message": "gone"})
    assert [relay.calls[0][2] for relay in (home, other)] == ["end", "end"]
