"""What the answer to an invocation means. Pure."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from control_plane.backends.base import RunOutcome
from control_plane.backends.cloud_functions.requests import Answer
from control_plane.timestamps import nanoseconds

Kind = Literal["ended", "released", "again", "busy", "denied", "refused", "gone"]
"""ended: the agent has ended · released: it wants another invocation · again: the front end could not pass the request
on, or broke it off · busy: no instance was free · denied: the caller's identity does not count ·
refused: no use in asking again · gone: there is no such function."""

_AGAIN = frozenset({408, 409, 500, 502, 503, 504})
_TAG = re.compile(r"<(script|style|title)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an invocation goes on."""

    kind: Kind
    outcome: RunOutcome
    """For the case that it does not go on."""


def judge(answer: Answer) -> Verdict:
    """By the agent's JSON (docs/wire-protocol.md, the agent's HTTP face), else by the front end's status."""
    said = _object(answer.body)
    if answer.status == 200:
        if said is None or "released" not in said:
            # The revision that has the container's image does not get the requests yet.
            return _failed("again", "the function answers, but not the container's agent")
        if said["released"] is True:
            return Verdict("released", RunOutcome(finished=False))
        return Verdict("ended", _exit(said.get("exit")))
    text = _text(answer, said)
    if answer.status == 404:
        return _failed("gone", f"the container's function does not exist any more: {text}")
    if answer.status == 429:
        return _failed("busy", f"the platform has no instance for the container: {text}")
    if answer.status in (401, 403):
        return _failed(
            "denied",
            f"the container's function refused the invocation ({answer.status}: {text}): the control plane's service "
            "account needs the role roles/run.invoker, and the endpoint's key must be the one it was made with",
        )
    if answer.status in _AGAIN:
        return _failed("again", f"the container could not be reached ({answer.status}): {text}")
    return _failed("refused", f"the container's function refused the invocation ({answer.status}): {text}")


def broken(text: str) -> Verdict:
    """The connection failed, or broke before an answer came."""
    return _failed("again", f"the connection to the container's function failed: {text}")


def _failed(kind: Kind, text: str) -> Verdict:
    return Verdict(kind, RunOutcome(finished=True, error=text))


def _exit(found: Any) -> RunOutcome:
    if not isinstance(found, dict) or not isinstance(found.get("code"), int):
        return RunOutcome(finished=True, error="the container's agent ended without an exit code")
    at = None
    with suppress(KeyError, ValueError):
        at = datetime.fromtimestamp(nanoseconds(str(found["at"])) / 1e9, UTC)
    return RunOutcome(finished=True, exit_code=found["code"], finished_at=at)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _text(answer: Answer, said: dict[str, Any] | None) -> str:
    """The message, or what a page says, in one line."""
    if said is not None and isinstance(said.get("message"), str):
        text = str(said["message"])
    else:
        text = _TAG.sub(" ", answer.body.decode("utf-8", "replace"))
    return " ".join(text.split())[:_LONGEST] or "no reason was given"
