"""Where a connector listens, whom it serves, and what it says when it cannot."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.connect_endpoint import CONNECT, Connected, World, connected_world
from tests.contract.connect_http import client

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="no docker CLI on this machine")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with connected_world() as started:
        yield started


@pytest.fixture(scope="module")
def loopback(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connected]:
    near = Connected(tmp_path_factory.mktemp("near"), url=world.near.url, listen="tcp://127.0.0.1:0")
    near.start()
    try:
        yield near
    finally:
        near.down()


def refused(*arguments: str, token: str = "t") -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SOCKERLESS_")} | {"SOCKERLESS_TOKEN": token}
    done = subprocess.run([*CONNECT, *arguments], capture_output=True, timeout=30, env=environment, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_socket_is_the_users_own_and_gone_at_the_end(world: World, tmp_path: Path) -> None:
    path = tmp_path / "run" / "docker.sock"
    near = Connected(tmp_path, url=world.near.url, listen=f"unix://{path}")
    near.start()
    assert near.address == f"unix://{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert near.out("run", "--rm", "busybox", "echo", "hello") == "hello"
    assert "another server listens there" in refused(near.url, "--listen", f"unix://{path}", token=near.token)
    near.stop()
    assert not path.exists()


def test_socket_left_by_a_killed_connector_is_replaced(world: World, tmp_path: Path) -> None:
    near = Connected(tmp_path, url=world.near.url)
    near.start()
    near.kill()
    near.start()
    assert near.out("version", "-f", "{{.Server.Os}}") == "linux"
    near.stop()


def test_runtime_directory_is_the_default(world: World, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SOCKERLESS_TOKEN": world.near.token}
    with subprocess.Popen([*CONNECT, world.near.url], stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"export DOCKER_HOST=unix://{tmp_path}/sockerless/connect.sock\n"
        process.terminate()


def test_loopback_port(loopback: Connected) -> None:
    assert loopback.address.startswith("tcp://127.0.0.1:")
    assert loopback.docker("run", "--rm", "-i", "busybox", "cat", stdin=b"abc").stdout == b"abc"


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"host": "rebound.example.com"}])
def test_web_pages_cannot_use_the_loopback_port(loopback: Connected, headers: dict[str, str]) -> None:
    with client(loopback.address) as connection:
        assert connection.get("/containers/json", headers=headers).status_code == 403
        assert connection.post("/containers/create", headers=headers, json={"Image": "busybox"}).status_code == 403
        assert connection.post("/containers/c/attach", headers=headers).status_code == 403


def test_internal_calls_are_not_for_docker_clients(loopback: Connected) -> None:
    with client(loopback.address) as connection:
        assert connection.post("/internal/v1/tickets", json={"method": "POST", "path": "/"}).status_code == 404


def test_refusals_of_the_control_plane_come_through(world: World) -> None:
    done = world.near.docker("inspect", "no-such-thing")
    assert b"no-such-thing" in done.stderr
    done = world.near.docker("exec", "no-such-thing", "true")
    assert (done.returncode, done.stderr) == (1, b"Error response from daemon: No such container: no-such-thing\n")
    done = world.near.docker("create", "--privileged", "busybox")
    assert b"privileged" in done.stderr.lower()


def test_token_that_is_refused(world: World) -> None:
    said = refused(world.near.url, token="skls_wrong_token")
    assert said == f"sockerless: {world.near.url}: the token is not known\n"


def test_token_that_is_revoked_later_is_docker_s_error(world: World, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(world.near.token)
    near = Connected(tmp_path / "near", url=world.near.url, token="", arguments=("--token-file", str(file)))
    near.start()
    file.write_text("skls_other")
    assert near.out("ps", "-q") == ""  # the token is asked for again only when it expires or is refused
    near.stop()
    near = Connected(tmp_path / "near", url=world.near.url, token="", arguments=("--token-file", str(file)))
    near.start()
    assert near.address == ""
    assert "the token is not known" in near.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["http://127.0.0.1:1"], "http://127.0.0.1:1 can't be reached"),
        (["http://docker.example.com"], "refused, because http:// would show your token to the network"),
        (["docker.example.com:443"], "https://HOST[:PORT][/PREFIX] is wanted"),
        (["https://u:p@docker.example.com"], "https://HOST[:PORT][/PREFIX] is wanted"),
        (["https://docker.example.com", "--ca", "/no/such/file"], "the certificates in /no/such/file cannot be read"),
    ],
)
def test_wrong_addresses_are_told_in_one_line(arguments: list[str], said: str) -> None:
    assert said in refused(*arguments)


def test_what_is_no_endpoint_is_told(world: World) -> None:
    from tests.contract.connect_pages import some_web_server

    with some_web_server() as url:
        assert f"{url} is not a Sockerless endpoint" in refused(url)


@pytest.mark.parametrize(
    ("listen", "said"),
    [
        ("tcp://0.0.0.0:0", "whoever reaches it would act with your token"),
        ("tcp://127.0.0.1", "unix:///PATH or tcp://127.0.0.1:PORT is wanted"),
        ("unix://" + "/x" * 60, "has at most 107 bytes"),
        ("tcp://127.0.0.1:99999", "ort"),
    ],
)
def test_wrong_listen_addresses_are_told_in_one_line(world: World, listen: str, said: str) -> None:
    assert said in refused(world.near.url, "--listen", listen, token=world.near.token)


def test_endpoint_that_goes_away_is_docker_s_error(world: World, tmp_path: Path) -> None:
    near = Connected(tmp_path, url=world.near.url)
    near.start()
    with world.proxy.refusing():
        done = near.docker("exec", "c", "true", timeout=60)
    near.stop()
    assert done.returncode == 1
    assert b"Error response from daemon: " in done.stderr
