"""Where a connector's token comes from, and when it is replaced."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from pathlib import Path

import pytest

from agent_gateway.connector.tokens import TokenOptions, tokens
from agent_gateway.faults import CannotConnect

URL = "https://docker.example.com"


def jwt(seconds: float, mark: str = "") -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + seconds, "m": mark}).encode()).decode()
    return f"e30.{claims.rstrip('=')}.sig"


async def test_order_of_the_sources(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    (tmp_path / "sockerless").mkdir()
    (tmp_path / "sockerless" / "hosts.json").write_text(json.dumps({URL: {"token": "from-login"}}))
    everything = {
        "SOCKERLESS_TOKEN": "from-environment",
        "SOCKERLESS_TOKEN_FILE": str(file),
        "SOCKERLESS_TOKEN_COMMAND": "echo from-command",
        "SOCKERLESS_ID_TOKEN": "from-gitlab",
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    assert await tokens(TokenOptions(token="given"), URL, everything).current() == "given"
    assert await tokens(TokenOptions(command="echo option"), URL, everything).current() == "option"
    for name in list(everything):
        wanted = "from-" + {"SOCKERLESS_ID_TOKEN": "gitlab", "XDG_CONFIG_HOME": "login"}.get(
            name, name.removeprefix("SOCKERLESS_").removeprefix("TOKEN_").lower().replace("token", "environment")
        )
        assert await tokens(TokenOptions(), URL, everything).current() == wanted
        del everything[name]
    assert await tokens(TokenOptions(), URL, everything).current() == ""


async def test_token_is_fetched_again_before_it_expires(tmp_path: Path) -> None:
    file = tmp_path / "token"
    source = tokens(TokenOptions(file=str(file)), URL, {})
    file.write_text(jwt(0.6, "first"))
    first = await source.current()
    file.write_text(jwt(3600, "second"))
    assert await source.current() == first
    await asyncio.sleep(0.4)
    second = await source.current()
    assert second == file.read_text()
    file.write_text(jwt(3600, "third"))
    assert await source.current() == second


async def test_token_that_is_refused_is_fetched_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    source = tokens(TokenOptions(file=str(file)), URL, {})
    assert await source.current() == "one"
    assert await source.after_refusal("one") is None
    file.write_text("two")
    assert await source.after_refusal("one") == "two"
    assert await source.current() == "two"
    assert await tokens(TokenOptions(token="fixed"), URL, {}).after_refusal("fixed") is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (TokenOptions(command="false"), "exit code 1"),
        (TokenOptions(command="/no/such/command"), "cannot be run"),
        (TokenOptions(command="true"), "empty"),
        (TokenOptions(file="/no/such/file"), "cannot be read"),
        (TokenOptions(token="two words"), "characters"),
        (TokenOptions(token="line\nbreak"), "characters"),
    ],
)
async def test_sources_without_a_token_say_why(options: TokenOptions, said: str) -> None:
    with pytest.raises(CannotConnect, match=said):
        await tokens(options, URL, {}).current()


async def test_github_s_identity_token_is_asked_with_the_audience() -> None:
    import http.server
    import threading

    asked: list[tuple[str, str | None]] = []

    class GitHub(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"value": jwt(600)}).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), GitHub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"http://127.0.0.1:{server.server_port}/token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "job",
        }
        token = await tokens(TokenOptions(), URL, environment).current()
        assert token.startswith("e30.")
        server.shutdown()
    assert asked == [("/token?api-version=2.0&audience=https%3A%2F%2Fdocker.example.com", "bearer job")]
    assert sys.version_info >= (3, 11)
