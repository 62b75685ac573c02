"""`sockerless tenant`, `token` and `login`, as a user runs them; the docker CLI reads what `login` writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.entrypoints.docker_config import remember_host, write_config
from control_plane.services.tenants import Tenants
from control_plane.services.tokens import Tokens
from control_plane.store.sqlite import SqliteStore

ROOT = Path(__file__).parents[2]
docker = pytest.mark.skipif(shutil.which("docker") is None, reason="the docker CLI is not installed")


def run(*arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("SOCKERLESS_", "DOCKER_", "XDG_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "control_plane.entrypoints.cli", *arguments],
        cwd=ROOT,
        env={**kept, **env},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_tenants_and_tokens(tmp_path: Path) -> None:
    store = f"sqlite://{tmp_path / 'state.sqlite'}"
    made = run("tenant", "create", "acme", "--image", "ghcr.io/acme/*", "--max-memory", "2g", SOCKERLESS_STORE=store)
    assert (made.returncode, made.stdout) == (0, "acme\n"), made.stderr
    again = run("tenant", "create", "acme", SOCKERLESS_STORE=store)
    assert (again.returncode, again.stderr) == (1, "sockerless: tenant acme exists already\n")
    listed = run("tenant", "list", SOCKERLESS_STORE=store)
    assert "image ghcr.io/acme/*, 2048m" in listed.stdout
    token = run("token", "create", "acme", "--scope", "run", "--expires", "12h", "--note", "ci", SOCKERLESS_STORE=store)
    assert token.returncode == 0, token.stderr
    text = token.stdout.strip()
    tokens = run("token", "list", "--data", str(tmp_path))
    assert text.split("_")[1] in tokens.stdout
    assert "until" in tokens.stdout
    assert text.split("_", 2)[2] not in tokens.stdout + token.stderr
    opened = SqliteStore(tmp_path / "state.sqlite")
    try:
        known = Tokens(opened, Tenants(opened))
        assert await known.caller(text) is not None
        assert run("token", "revoke", text, SOCKERLESS_STORE=store).returncode == 0
        assert await known.caller(text) is None
        assert run("tenant", "revoke", "acme", SOCKERLESS_STORE=store).returncode == 0
        assert await Tenants(opened).active("acme") is None
    finally:
        await opened.close()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("tenant", "create", "Acme"), "invalid tenant name"),
        (("tenant", "create", "acme", "--max-memory", "much"), "--max-memory"),
        (("tenant", "create", "acme", "--max-time", "5"), "--max-time 5: a duration"),
        (("tenant", "create", "acme", "--image", "busybox:1"), "image pattern"),
        (("tenant", "limit", "nosuch"), "no such tenant: nosuch"),
        (("token", "create", "nosuch"), "no such tenant: nosuch"),
        (("token", "create", "nosuch", "--scope", "root"), "scope 'root'"),
        (("token", "revoke", "nosuch"), "no such token: nosuch"),
    ],
)
def test_refusals_are_one_line(tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    refused = run(*arguments, SOCKERLESS_STORE=f"sqlite://{tmp_path / 's'}")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("sockerless: ")
    assert text in refused.stderr


def test_no_store_and_a_strange_one(tmp_path: Path) -> None:
    assert "SOCKERLESS_STORE is not set" in run("tenant", "list", "--data", str(tmp_path)).stderr
    assert "is wanted" in run("tenant", "list", SOCKERLESS_STORE="mysql://x").stderr


@docker
def test_login_writes_a_context_that_the_docker_cli_reads(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".docker" / "cli-plugins").mkdir(parents=True)
    (home / ".docker" / "config.json").write_text('{"auths": {"r.example.com": {}}, "HttpHeaders": {"X": "1"}}')
    done = run("login", "tcp://docker.example.com:2376", "--no-check", stdin="skls_secret\n", HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert "skls_secret" not in done.stdout + done.stderr
    directory = home / ".config" / "sockerless" / "docker.example.com-2376"
    assert f"export DOCKER_CONFIG={directory}" in done.stdout
    config = json.loads((directory / "config.json").read_text())
    assert config["HttpHeaders"] == {"Authorization": "Bearer skls_secret"}
    assert config["auths"] == {"r.example.com": {}}
    for file in (directory / "config.json", directory.parent / "hosts.json"):
        assert file.stat().st_mode & 0o777 == 0o600
    shown = subprocess.run(
        ["docker", "--config", str(directory), "context", "inspect"], capture_output=True, text=True, timeout=20
    )
    context = json.loads(shown.stdout)[0]
    assert context["Name"] == "docker.example.com-2376"
    assert context["Endpoints"]["docker"] == {"Host": "tcp://docker.example.com:2376", "SkipTLSVerify": False}
    assert context["TLSMaterial"] == {"docker": ["ca.pem"]}


def test_login_for_the_connector(tmp_path: Path) -> None:
    home = str(tmp_path)
    done = run(
        "login", "https://docker.example.com/", "--no-check", "--name", "team", HOME=home, SOCKERLESS_TOKEN="t" * 9
    )
    assert done.returncode == 0, done.stderr
    assert "sockerless connect https://docker.example.com --listen unix://" in done.stdout
    directory = tmp_path / ".config" / "sockerless"
    assert json.loads((directory / "hosts.json").read_text()) == {
        "https://docker.example.com": {"token": "t" * 9, "docker_config": str(directory / "team")}
    }
    # The connector adds the token: it need not lie in a second place.
    assert "HttpHeaders" not in json.loads((directory / "team" / "config.json").read_text())


@pytest.mark.parametrize(
    "url",
    [
        "http://docker.example.com",
        "docker.example.com",
        "tcp://docker.example.com",
        "https://u:p@x",
        "tcp://x:y",
        "https://",
    ],
)
def test_login_refuses_addresses_that_would_leak_or_not_work(tmp_path: Path, url: str) -> None:
    refused = run("login", url, "--no-check", HOME=str(tmp_path), SOCKERLESS_TOKEN="t" * 9)
    assert refused.returncode == 1
    assert not (tmp_path / ".config").exists()


def test_login_asks_the_endpoint_first(tmp_path: Path) -> None:
    refused = run("login", "tcp://127.0.0.1:1", HOME=str(tmp_path), SOCKERLESS_TOKEN="t" * 9)
    assert (refused.returncode, "https://127.0.0.1:1 cannot be reached" in refused.stderr) == (1, True)
    assert not (tmp_path / ".config").exists()
    assert "no token was given" in run("login", "https://x.example.com", HOME=str(tmp_path)).stderr


def test_a_second_login_keeps_the_first(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.json"
    remember_host(hosts, "https://a", {"token": "1"})
    remember_host(hosts, "https://b", {"token": "2"})
    remember_host(hosts, "https://a", {"token": "3"})
    assert json.loads(hosts.read_text()) == {"https://a": {"token": "3"}, "https://b": {"token": "2"}}
    hosts.write_text("[]")
    with pytest.raises(ValueError, match="not an object"):
        remember_host(hosts, "https://c", {})


def test_a_context_without_tls_has_no_ca(tmp_path: Path) -> None:
    for ca in (b"one", b""):
        write_config(tmp_path / "x", "c1", "tcp://127.0.0.1:1", token="t", ca=ca)
        assert len(list((tmp_path / "x").rglob("ca.pem"))) == bool(ca)
