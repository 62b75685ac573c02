"""The messages of docs/wire-protocol.md: stream controls and link messages, parsed and written. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

WINDOW = 1024 * 1024
"""Bytes a sender keeps unacknowledged at most."""
ACK_BYTES = 256 * 1024
"""A receiver acknowledges at the latest after so many delivered bytes."""
ACK_IDLE_SECONDS = 0.05
MAX_BINARY = 1024 * 1024
MAX_TEXT = 1024 * 1024
GRACE_SECONDS = 60.0
"""How long a lone half of a stream is kept, and how long a broken end redials."""
REDIAL_FIRST_SECONDS = 0.05
REDIAL_LAST_SECONDS = 5.0

CLOSE_OK = 1000
CLOSE_GOING_AWAY = 1001
CLOSE_PROTOCOL_ERROR = 1002
CLOSE_POLICY = 1008


class ProtocolViolation(Exception):
    """The peer broke the wire protocol. `code` is the websocket close code it is answered with."""

    def __init__(self, message: str, code: int = CLOSE_POLICY) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Eof:
    """No more payload from this end."""


@dataclass(frozen=True, slots=True)
class Ack:
    """Bytes received and delivered since the stream began."""

    count: int


@dataclass(frozen=True, slots=True)
class Resize:
    """Terminal size."""

    rows: int
    cols: int


@dataclass(frozen=True, slots=True)
class Result:
    """The kind's JSON result."""

    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exit:
    """The process ended."""

    code: int


@dataclass(frozen=True, slots=True)
class Error:
    """Docker's error."""

    status: int
    message: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Payload bytes this end has received; what follows must begin there.

    After a redial it carries an `id`; in answer to one, that as `answer`; neither is an older peer's form.
    """

    received: int
    id: str = ""
    answer: str = ""


Control = Eof | Ack | Resize | Result | Exit | Error | Resume


def _count(value: object, what: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ProtocolViolation(f"{what}: a count is wanted")
    return value


def _integer(value: object, what: str) -> int:
    if type(value) is not int:
        raise ProtocolViolation(f"{what}: an integer is wanted")
    return value


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolViolation(f"{what}: an object is wanted")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ProtocolViolation(f"{what}: a string is wanted")
    return value


def load(text: str | bytes | memoryview) -> dict[str, Any]:
    """A JSON object. Raises ProtocolViolation for anything else."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ProtocolViolation(f"not JSON: {error}") from None
    return _object(value, "message")


def parse_control(text: str | bytes | memoryview) -> Control:
    """A text message of a stream. Raises ProtocolViolation (1008) for an unknown or malformed one."""
    message = load(text)
    if len(message) != 1:
        raise ProtocolViolation("a control message has exactly one key")
    ((name, value),) = message.items()
    match name:
        case "ack":
            return Ack(_count(value, "ack"))
        case "eof":
            if value is not True:
                raise ProtocolViolation("eof: true is wanted")
            return Eof()
        case "resize":
            if not isinstance(value, list) or len(value) != 2:
                raise ProtocolViolation("resize: [rows, cols] is wanted")
            return Resize(_size(value[0]), _size(value[1]))
        case "result":
            return Result(_object(value, "result"))
        case "exit":
            return Exit(_integer(_object(value, "exit").get("code"), "exit.code"))
        case "error":
            return _error(value)
        case "resume":
            resume = _object(value, "resume")
            received = _count(resume.get("received"), "resume.received")
            return Resume(received, _text(resume.get("id", ""), "id"), _text(resume.get("answer", ""), "answer"))
    raise ProtocolViolation("unknown control message")


def _size(value: object) -> int:
    size = _count(value, "resize")
    if size > 0xFFFF:
        raise ProtocolViolation("resize: out of range")
    return size


def _error(value: object) -> Error:
    error = _object(value, "error")
    status = _count(error.get("status"), "error.status")
    if not 400 <= status <= 599:
        raise ProtocolViolation("error.status: 400 to 599 is wanted")
    return Error(status, _text(error.get("message"), "error.message"))


def serialise_control(control: Control) -> str:
    """The text message of a control."""
    body: dict[str, Any]
    match control:
        case Ack(count):
            return f'{{"ack":{count}}}'
        case Eof():
            return '{"eof":true}'
        case Resize(rows, cols):
            return f'{{"resize":[{rows},{cols}]}}'
        case Result(value):
            body = {"result": value}
        case Exit(code):
            body = {"exit": {"code": code}}
        case Error(status, message):
            body = {"error": {"status": status, "message": message}}
        case Resume(received, question, answer):
            names = {"id": question, "answer": answer}
            body = {"resume": {"received": received, **{name: text for name, text in names.items() if text}}}
    return orjson.dumps(body).decode()


_INT: tuple[type, ...] = (int,)
_STR: tuple[type, ...] = (str,)
_BOOL: tuple[type, ...] = (bool,)
_DICT: tuple[type, ...] = (dict,)
_LIST: tuple[type, ...] = (list,)
_MAYBE_DICT: tuple[type, ...] = (dict, type(None))
_MAYBE_STR: tuple[type, ...] = (str, type(None))
_MAYBE_INT: tuple[type, ...] = (int, type(None))

EVENTS = frozenset({"started", "failed", "exited", "exec_started", "exec_exited", "health", "released"})
"""Link messages that carry `seq` and go to the control plane."""

# Per message: the fields that must be there, and those that may.
_FIELDS = dict[str, tuple[type, ...]]
_FROM_AGENT: dict[str, tuple[_FIELDS, _FIELDS]] = {
    "hello": (
        {"container": _STR, "boot": _STR},
        {
            "version": _STR,
            "os": _STR,
            "arch": _STR,
            "run": _INT,
            "running": _BOOL,
            "exit": _MAYBE_DICT,
            "pid": _MAYBE_INT,
            "started_at": _MAYBE_STR,
            "execs": (list, type(None)),
            "held": _BOOL,
            "link": _INT,
        },
    ),
    "started": ({"seq": _INT, "run": _INT, "pid": _INT, "at": _STR}, {}),
    "failed": ({"seq": _INT, "run": _INT, "code": _INT, "message": _STR, "at": _STR}, {}),
    "exited": ({"seq": _INT, "run": _INT, "code": _INT, "at": _STR}, {"oom": _BOOL, "error": _MAYBE_STR}),
    "released": ({"seq": _INT, "run": _INT, "at": _STR}, {}),
    "exec_started": ({"seq": _INT, "exec": _STR, "pid": _INT, "at": _STR}, {}),
    "exec_exited": ({"seq": _INT, "exec": _STR, "code": _INT, "at": _STR}, {}),
    "health": ({"seq": _INT, "run": _INT, "status": _STR}, {"failing_streak": _INT, "log": _MAYBE_DICT}),
    "result": ({"id": _STR}, {"result": _MAYBE_DICT, "error": _MAYBE_DICT}),
    "ping": ({}, {}),
}
_FROM_RELAY: dict[str, tuple[_FIELDS, _FIELDS]] = {
    "welcome": ({"action": _STR}, {"spec": _MAYBE_DICT, "streams": (list, type(None))}),
    "open": ({"stream": _STR, "kind": _STR}, {"params": _MAYBE_DICT}),
    "call": ({"id": _STR, "method": _STR}, {"params": _MAYBE_DICT}),
    "ack": ({"seq": _INT}, {}),
    "drain": ({}, {"gateway": _STR}),
    "gateways": ({"urls": _LIST}, {}),
    "token": ({"token": _STR}, {}),
    "pong": ({}, {}),
}

WelcomeAction = Literal["start", "wait", "resume", "shutdown"]
WELCOME_ACTIONS = frozenset({"start", "wait", "resume", "shutdown"})


def parse_from_agent(text: str | bytes | memoryview) -> dict[str, Any]:
    """A link message of an agent. Unknown fields stay; raises ProtocolViolation for an unknown or malformed message."""
    return _checked(load(text), _FROM_AGENT)


def parse_from_relay(text: str | bytes | memoryview) -> dict[str, Any]:
    """A link message of the relay, as an agent reads it."""
    message = _checked(load(text), _FROM_RELAY)
    if message["type"] == "welcome" and message["action"] not in WELCOME_ACTIONS:
        raise ProtocolViolation("welcome: unknown action")
    return message


def _checked(message: dict[str, Any], table: Mapping[str, tuple[_FIELDS, _FIELDS]]) -> dict[str, Any]:
    kind = message.get("type")
    fields = table.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise ProtocolViolation("unknown message type")
    required, optional = fields
    for name, types in required.items():
        if name not in message:
            raise ProtocolViolation(f"{kind}: {name} is missing")
        _typed(message[name], types, f"{kind}.{name}")
    for name, types in optional.items():
        if name in message:
            _typed(message[name], types, f"{kind}.{name}")
    if "seq" in required and message["seq"] < 1:
        raise ProtocolViolation(f"{kind}.seq: events are numbered from 1")
    return message


def _typed(value: object, types: tuple[type, ...], what: str) -> None:
    # bool is an int to isinstance, but not to the wire.
    if type(value) not in types:
        raise ProtocolViolation(f"{what}: of the wrong type")


def serialise(message: Mapping[str, Any]) -> str:
    """A link message as text."""
    return orjson.dumps(message).decode()


def is_stream_id(text: str) -> bool:
    """32 lower-case hex digits."""
    return len(text) == 32 and all(c in "0123456789abcdef" for c in text)
