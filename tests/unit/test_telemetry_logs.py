"""What is logged: JSON lines with the request's ids, and never a secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from control_plane.telemetry import context, logs
from control_plane.telemetry.redaction import HIDDEN, clean, cleaned

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJ0ZW4iOiJhIn0.c2lnbmF0dXJl"


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level, configuration = root.handlers[:], root.level, structlog.get_config()
    written = io.StringIO()
    logs.set_up(written, "INFO")
    yield written
    root.handlers[:] = before
    root.setLevel(level)
    structlog.configure(**configuration)


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_has_the_requests_ids(out: io.StringIO) -> None:
    with context.request(request="r1", trace="0af7651916cd43dd8448eb211c80319c"):
        context.note(tenant="team", container="abc")
        logging.getLogger("control_plane.services.x").warning("cannot %s", "start")
        structlog.get_logger("y").info("structured", more=1)
    plain, structured = lines(out)
    assert plain["severity"] == "WARNING"
    assert plain["message"] == "cannot start"
    assert plain["logger"] == "control_plane.services.x"
    for line in (plain, structured):
        assert (line["request"], line["tenant"], line["container"]) == ("r1", "team", "abc")
        assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
        assert line["time"].endswith("Z")
    assert structured["more"] == 1


def test_outside_of_requests_there_are_none(out: io.StringIO) -> None:
    context.note(tenant="nobody")
    logging.getLogger("x").info("alone")
    assert "tenant" not in lines(out)[0]


@pytest.mark.parametrize(
    "secret",
    [
        "skls_abc123_s3cr3tS3cr3tS3cr3t",
        JWT,
        "Bearer abcdef0123456789",
        "Basic dXNlcjpwYXNz",
        "https://user:hunter2@registry.example/v2/",
        "AccountEndpoint=https://x;AccountKey=aGVsbG8=;",
        "password=hunter2",
        "https://storage.example/x?sig=aGVsbG8%3D&se=1",
        '{"password": "hunter2"}',
        "ya29.a0AfH6SMB_secret",
        "-----BEGIN PRIVATE KEY-----\nMIIhunter2\n-----END PRIVATE KEY-----",
    ],
)
def test_secrets_in_texts_are_hidden(out: io.StringIO, secret: str) -> None:
    bare = {"s3cr3t", "c2lnbmF0dXJl", "abcdef0123456789", "dXNlcjpwYXNz", "hunter2", "aGVsbG8", "a0AfH6SMB"}
    logging.getLogger("x").error("refused: %s", secret)
    structlog.get_logger("x").info(f"got {secret}", detail=secret, nested={"list": [secret]})
    try:
        raise ValueError(secret)
    except ValueError:
        logging.getLogger("x").exception("failed")
    assert len(lines(out)) == 3
    for word in bare:
        assert word not in out.getvalue()


def test_secrets_by_the_name_of_the_field(out: io.StringIO) -> None:
    structlog.get_logger("x").info("e", authorization="zzz-1", Env=["A=zzz-2"], registry_auth="zzz-3", ticket="zzz-4")
    logging.getLogger("x").info("e", extra={"agent_token": "zzz-5"})
    assert "zzz" not in out.getvalue()


def test_what_is_no_secret_stays() -> None:
    assert clean("container abc123 of tenant team: exit 137") == "container abc123 of tenant team: exit 137"
    assert clean("skls_abc123_secretsecret") == f"skls_abc123_{HIDDEN}"
    assert cleaned({"status": 200, "monkey": "x", "deep": [1, None, True]}) == {
        "status": 200,
        "monkey": "x",
        "deep": [1, None, True],
    }
