"""What spans of a gateway are called, and when a stream counts as open."""

from __future__ import annotations

import pytest

from agent_gateway.relay.pairing import Pair, Pairs
from agent_gateway.traces import _name


class Half:
    redials = True

    def send_binary(self, data: bytes | memoryview) -> None: ...

    def send_text(self, text: str) -> None: ...

    def close(self, code: int = 1000, reason: str = "") -> None: ...

    def fail(self, status: int, message: str) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v1.50/containers/my-secret-name/json", "GET /containers"),
        ("GET", "/containers/json", "GET /containers"),
        ("GET", "/version", "GET /version"),
        ("GET", "/v1.50/version", "GET /version"),
        ("DELETE", "/volumes/x", "DELETE /volumes"),
        ("GET", "/_ping", "GET /_ping"),
        ("HEAD", "/", "HEAD (other)"),
        ("GET", "", "GET (other)"),
        ("GET", "/v1.50", "GET (other)"),
        ("GET", "//containers/x", "GET /containers"),
        ("BREW", "/v9/" + "x" * 10_000, "OTHER (other)"),
    ],
)
def test_names_hold_nothing_that_a_client_chooses(method: str, path: str, name: str) -> None:
    assert _name(method, path) == name


def pair() -> tuple[Pair, list[bool]]:
    told: list[bool] = []
    made = Pairs(lambda _: None, lambda _: None).for_client("s", "c", "exec", {})
    made.opening = told.append
    return made, told


async def test_a_stream_is_open_when_its_halves_meet_and_that_is_told_once() -> None:
    made, told = pair()
    made.place("client", Half())
    assert told == []
    made.place("agent", Half())
    assert told == [True]
    made.place("agent", Half())
    made.fail(500, "over")
    assert told == [True]


async def test_a_stream_that_ends_before_was_never_open() -> None:
    made, told = pair()
    made.place("client", Half())
    made.fail(409, "no agent")
    assert told == [False]
