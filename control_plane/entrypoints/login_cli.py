"""`sockerless login URL`: keeps the user's token, and makes a docker context for the endpoint."""

from __future__ import annotations

import os
import re
import ssl
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from control_plane.entrypoints.access_cli import fail

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,63}")
_TOKEN = re.compile(r"[\x21-\x7e]{8,16384}")
_TIMEOUT = 15.0
_CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


@app.command()
def login(
    url: Annotated[str, typer.Argument(help="https://HOST (with `sockerless connect`), or tcp://HOST:2376 directly.")],
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="File with the token; else SOCKERLESS_TOKEN, else it is asked for."),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Of the docker context; default: from the host.")] = "",
    ca: Annotated[Path | None, typer.Option("--ca", help="CA file of the endpoint; default: the system's.")] = None,
    check: Annotated[bool, typer.Option(help="Ask the endpoint whether it takes the token.")] = True,
) -> None:
    """Keep the token for an endpoint, and make a docker context for it."""
    scheme, host, key = _address(url)
    name = name or re.sub(r"[^a-zA-Z0-9_.-]", "-", host)
    if not _NAME.fullmatch(name):
        fail(f"--name {name}: two characters or more of letters, digits, `_`, `.`, `-` are wanted")
    token = _token(token_file)
    authorities = _authorities(ca)
    if check:
        _check(f"https://{host}" if scheme == "tcp" else key, token, ca)
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sockerless"
    own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        _write(config, name, scheme, key, token, authorities, own)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    _instruct(config / name, scheme, key, name)


def _write(config: Path, name: str, scheme: str, key: str, token: str, authorities: bytes, own: Path) -> None:
    from control_plane.entrypoints.docker_config import remember_host, write_config

    own_or_none = None if own.is_relative_to(config) else own
    if scheme == "tcp":
        write_config(config / name, name, key, token=token, ca=authorities, own=own_or_none)
    else:
        # The connector adds the token to what comes through its socket.
        write_config(config / name, name, f"unix://{_socket(config, name)}", own=own_or_none)
    try:
        remember_host(config / "hosts.json", key, {"token": token, "docker_config": str(config / name)})
    except ValueError:
        fail(f"{config / 'hosts.json'} is not JSON: mend it or remove it")


def _socket(config: Path, name: str) -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return (Path(runtime) / "sockerless" if runtime else config) / f"{name}.sock"


def _instruct(directory: Path, scheme: str, key: str, name: str) -> None:
    typer.echo(f"The token is kept in {directory.parent / 'hosts.json'}, a docker context in {directory}.")
    if scheme != "tcp":
        listen = f"unix://{_socket(directory.parent, name)}"
        typer.echo("Keep this running, for streams such as `docker run` and `docker exec`:")
        typer.echo(f"  sockerless connect {key} --listen {listen}")
        typer.echo("Then, in any shell:")
    else:
        typer.echo("In any shell:")
    typer.echo(f"  export DOCKER_CONFIG={directory}")
    typer.echo("  docker info")
    if os.environ.get("DOCKER_HOST"):
        typer.echo("DOCKER_HOST is set, and goes before contexts: `unset DOCKER_HOST` first.")


def _address(url: str) -> tuple[str, str, str]:
    """Scheme, host with port, and the URL in the form it is kept by."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        fail(f"{url}: the port is not a number")
    if parts.scheme == "tcp" and port is None:
        fail(f"{url}: docker wants a port after tcp://HOST, usually 2376")
    bare = host and parts.username is None and not parts.query and not parts.fragment
    if not bare or parts.scheme not in ("https", "tcp") or (parts.scheme == "tcp" and parts.path.strip("/")):
        fail(f"{url}: https://HOST or tcp://HOST:PORT is wanted; a token is never sent without TLS")
    return parts.scheme, parts.netloc, url.rstrip("/")


def _token(file: Path | None) -> str:
    if file is not None:
        try:
            text = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            fail(f"--token-file {file}: {error}")
    elif os.environ.get("SOCKERLESS_TOKEN"):
        text = os.environ["SOCKERLESS_TOKEN"]
    elif sys.stdin.isatty():
        import getpass

        text = getpass.getpass("Token: ")
    else:
        text = sys.stdin.readline()
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        fail("no token was given, or it is not one: ask whoever runs the endpoint (`sockerless token create`)")
    return token


def _authorities(ca: Path | None) -> bytes:
    """What goes into `ca.pem`."""
    places = [str(ca)] if ca is not None else [ssl.get_default_verify_paths().cafile or "", *_CA_FILES]
    for place in places:
        if place and Path(place).is_file():
            return Path(place).read_bytes()
    if ca is not None:
        fail(f"--ca {ca}: there is no such file")
    import certifi

    return Path(certifi.where()).read_bytes()


def _check(url: str, token: str, ca: Path | None) -> None:
    import httpx

    try:
        verify = ssl.create_default_context(cafile=str(ca) if ca is not None else None)
        headers = {"authorization": f"Bearer {token}"}
        answer = httpx.get(f"{url}/_ping", headers=headers, verify=verify, timeout=_TIMEOUT)
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as error:
        fail(f"{url} cannot be reached: {error}")
    if answer.status_code in (401, 403):
        try:
            message = str(answer.json()["message"])
        except (ValueError, KeyError, TypeError):
            message = f"answer {answer.status_code}"
        fail(f"{url} does not take the token: {message}")
    if answer.status_code != 200 or "api-version" not in answer.headers:
        fail(f"{url} is not a Docker endpoint (answer {answer.status_code})")
