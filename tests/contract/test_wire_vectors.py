"""protocol.py and stream_state.py against the frozen examples; the Go side is held to the same file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_gateway.front_door.attach_websocket import StdcopyPayload
from agent_gateway.protocol import (
    ProtocolViolation,
    Result,
    Resume,
    load,
    parse_control,
    parse_from_agent,
    parse_from_relay,
    serialise,
    serialise_control,
)
from agent_gateway.stream_state import StreamState

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "wire_vectors.json").read_text())
MESSAGES: list[dict[str, Any]] = VECTORS["messages"]
STREAM = [m for m in MESSAGES if m["channel"] == "stream"]
LINK = [m for m in MESSAGES if m["channel"] == "link"]


def _ids(vectors: list[dict[str, Any]]) -> list[str]:
    return [v["name"] for v in vectors]


def test_every_vector_is_checked() -> None:
    assert STREAM
    assert LINK
    assert {m["channel"] for m in MESSAGES} == {"stream", "link"}
    assert set(VECTORS) == {"messages", "stdcopy", "resume"}


@pytest.mark.parametrize("vector", STREAM, ids=_ids(STREAM))
def test_stream_controls_are_read_and_written_as_frozen(vector: dict[str, Any]) -> None:
    control = parse_control(json.dumps(vector["message"]))
    assert json.loads(serialise_control(control)) == vector["message"]


@pytest.mark.parametrize("vector", LINK, ids=_ids(LINK))
def test_link_messages_are_read_as_frozen(vector: dict[str, Any]) -> None:
    text = serialise(vector["message"])
    from_agent = vector["direction"] == "agent_to_relay"
    parse, other = (parse_from_agent, parse_from_relay) if from_agent else (parse_from_relay, parse_from_agent)
    assert parse(text) == vector["message"]
    with pytest.raises(ProtocolViolation):
        other(text)


@pytest.mark.parametrize("vector", VECTORS["stdcopy"], ids=_ids(VECTORS["stdcopy"]))
def test_stdcopy_frames_are_read_as_frozen(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["frame_hex"])
    for cut in range(len(frame) + 1):
        frames = StdcopyPayload()
        parts = frames.feed(memoryview(frame[:cut])) + frames.feed(memoryview(frame[cut:] + frame))
        assert b"".join(parts) == bytes.fromhex(vector["payload_hex"]) * 2


@pytest.mark.parametrize("vector", VECTORS["resume"], ids=_ids(VECTORS["resume"]))
def test_resumption_as_frozen(vector: dict[str, Any]) -> None:
    before = vector["state"]
    state = StreamState()
    held, end = before["held"]
    marks = list(before["marks"])
    position = 0
    for mark in [*marks, {"at": end, "control": None}]:
        if mark["at"] > position:
            state.send(b"x" * (mark["at"] - position))
            position = mark["at"]
        if mark["control"] is not None:
            state.send_control(parse_control(json.dumps(mark["control"])))  # type: ignore[arg-type]
    state.control_received(parse_control(f'{{"ack":{held}}}'))
    state.accept(before["received"])
    state.waiting = before["waiting"] or ""
    control = parse_control(json.dumps(vector["receive"]))
    assert isinstance(control, Resume)
    if "close" in vector:
        with pytest.raises(ProtocolViolation) as violation:
            state.control_received(control)
        assert violation.value.code == vector["close"]
        return
    _, answers = state.control_received(control)
    texts = [json.loads(a) for a in answers if isinstance(a, str)]
    payload = sum(len(a) for a in answers if not isinstance(a, str))
    answer = vector["answer"]
    assert [t for t in texts if "resume" in t] == ([] if answer is None else [answer])
    assert (state.waiting or None) == vector["waiting"]
    assert payload == (0 if vector["send_from"] is None else end - vector["send_from"])
    assert [t for t in texts if "resume" not in t] == vector["resend"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"eof":false}',
        '{"eof":1}',
        '{"eof":true,"ack":1}',
        '{"ack":-1}',
        '{"ack":1.5}',
        '{"ack":true}',
        '{"ack":"1"}',
        '{"resize":[1]}',
        '{"resize":[-1,2]}',
        '{"resize":[70000,2]}',
        '{"result":[]}',
        '{"exit":{}}',
        '{"exit":{"code":"1"}}',
        '{"error":{"status":200,"message":"x"}}',
        '{"error":{"status":500}}',
        '{"resume":{}}',
        '{"resume":{"received":1,"id":2}}',
        '{"signal":9}',
        "{" * 5000,
    ],
)
def test_malformed_controls_are_refused(text: str) -> None:
    with pytest.raises(ProtocolViolation):
        parse_control(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"type":7}',
        '{"type":"welcome","action":"wait"}',
        '{"type":"hello"}',
        '{"type":"hello","container":1,"boot":"b"}',
        '{"type":"exited","seq":0,"run":1,"code":0,"at":"x"}',
        '{"type":"exited","seq":true,"run":1,"code":0,"at":"x"}',
        '{"type":"exited","run":1,"code":0,"at":"x"}',
        '{"type":"result"}',
    ],
)
def test_malformed_link_messages_are_refused(text: str) -> None:
    with pytest.raises(ProtocolViolation):
        parse_from_agent(text)


def test_unknown_keys_are_ignored() -> None:
    assert parse_from_agent('{"type":"ping","new":1}')["new"] == 1
    assert parse_control('{"resume":{"received":3,"new":1}}') == Resume(3)
    assert parse_control('{"result":{"new":1}}') == Result({"new": 1})
    with pytest.raises(ProtocolViolation):
        load("7")
