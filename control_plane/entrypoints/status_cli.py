"""`sockerless status`: how an endpoint stands, asked over its API."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT = 15.0
_OPERATOR = "status"
"""What the operator's token, made with the endpoint's key, says its bearer is."""
_TOKEN_SECONDS = 60


class CannotAsk(Exception):
    """Why there is no answer, in one line."""


def run(url: str | None, token: str, data: Path | None, *, as_json: bool = False) -> int:
    """Prints it; the exit code is 0 when the endpoint answers and has somewhere to run containers."""
    try:
        found = _ask(url or _local(data), token)
    except CannotAsk as reason:
        print(f"sockerless: {reason}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _show(found)
    return 0


def _local(data: Path | None) -> str:
    from control_plane.settings import default_data_dir

    if data is None and (host := os.environ.get("DOCKER_HOST")):
        return host
    return f"unix://{(data or default_data_dir()).absolute() / 'docker.sock'}"


def _ask(url: str, token: str) -> dict[str, Any]:
    import httpx

    parts = urlsplit(url)
    transport = None
    if parts.scheme == "unix":
        transport, base = httpx.HTTPTransport(uds=parts.path), "http://docker"
    elif parts.scheme in {"tcp", "http", "https"} and parts.netloc:
        base = url.replace("tcp://", "https://" if os.environ.get("DOCKER_TLS_VERIFY") else "http://", 1).rstrip("/")
    else:
        raise CannotAsk(f"{url}: https://HOST, tcp://HOST:PORT or unix:///PATH is wanted")
    headers = {}
    if proof := token or os.environ.get("SOCKERLESS_TOKEN", "") or _operator_token():
        headers["authorization"] = f"Bearer {proof}"
    try:
        with httpx.Client(transport=transport, timeout=_TIMEOUT) as client:
            answer = client.get(f"{base}/internal/v1/status", headers=headers)
    except httpx.HTTPError as error:
        raise CannotAsk(f"{url} does not answer: {error}") from None
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.status_code != 200 or not isinstance(body, dict):
        message = body.get("message") if isinstance(body, dict) else None
        raise CannotAsk(f"{url} answers {answer.status_code}: {message or 'this is no endpoint of ours'}")
    return body


def _operator_token() -> str:
    """Whoever has the endpoint's key in the environment sees everything."""
    file, key = os.environ.get("SOCKERLESS_KEY_FILE"), os.environ.get("SOCKERLESS_KEY", "").encode()
    if file:
        try:
            key = Path(file).read_bytes()
        except OSError as error:
            raise CannotAsk(f"SOCKERLESS_KEY_FILE: {file} cannot be read: {error.strerror}") from None
    key = key.strip()
    if not key:
        return ""
    from agent_gateway.tickets import mint_gateway_token

    return mint_gateway_token(key, _OPERATOR, _TOKEN_SECONDS)


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    out = Console()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("version", f"{found['Version']} (API {found['ApiVersion']})")
    default = found["DefaultBackend"]
    backends = [
        f"{name} ({title}){', default' if name == default else ''}" for name, title in found["Backends"].items()
    ]
    table.add_row("backends", "\n".join(backends))
    table.add_row("store", f"{found['Store']['Kind']}, {found['Store']['Milliseconds']} ms")
    table.add_row("gateways", "\n".join(_gateway(gateway) for gateway in found["Gateways"]) or "none registered")
    counted = ", ".join(f"{n} {status}" for status, n in found["Containers"].items()) or "none"
    table.add_row("containers", counted if found["Tenant"] is None else f"{counted} (of tenant {found['Tenant']})")
    out.print(table)


def _gateway(gateway: dict[str, Any]) -> str:
    lease = gateway["LeaseSeconds"]
    said = [gateway["Url"], f"lease {lease:.0f} s" if lease > 0 else "gone (its lease has ended)"]
    if "Agents" in gateway:
        said.append(f"{gateway['Agents']} agents")
    if gateway["Draining"]:
        said.append("draining")
    return ", ".join(said)
