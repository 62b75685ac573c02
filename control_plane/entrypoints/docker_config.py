"""What the docker CLI reads: a configuration directory with one context, its CA file and, in direct mode, the token.

`HttpHeaders` go to every endpoint that a configuration directory knows; so the token gets a directory of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_KEPT = ("auths", "credsStore", "credHelpers", "detachKeys", "proxies", "plugins")
"""Of the user's own configuration: logins at registries, and habits."""


def write_config(
    directory: Path, context: str, host: str, *, token: str = "", ca: bytes = b"", own: Path | None = None
) -> None:
    """One context called `context`, in use. `host` is tcp:// or unix://; `own` the user's usual directory."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    document: dict[str, Any] = _carried_over(own) if own is not None else {}
    document["currentContext"] = context
    if token:
        document["HttpHeaders"] = {"Authorization": f"Bearer {token}"}
    identity = hashlib.sha256(context.encode()).hexdigest()
    endpoint = {"Host": host, "SkipTLSVerify": False}
    meta = {"Name": context, "Metadata": {"Description": "Sockerless"}, "Endpoints": {"docker": endpoint}}
    write_private(directory / "contexts" / "meta" / identity / "meta.json", json.dumps(meta).encode())
    # The docker CLI never looks at the system's CAs: without a ca.pem there is no TLS.
    ca_file = directory / "contexts" / "tls" / identity / "docker" / "ca.pem"
    if ca:
        write_private(ca_file, ca)
    else:
        ca_file.unlink(missing_ok=True)
    write_private(directory / "config.json", json.dumps(document, indent=2).encode())


def write_private(path: Path, content: bytes) -> None:
    """The file whole or not at all, and nobody else's to read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remember_host(path: Path, url: str, entry: Mapping[str, str]) -> None:
    """Adds a host to `hosts.json`, where `sockerless connect` finds its token. Raises ValueError when it is broken."""
    hosts: dict[str, Any] = {}
    if path.exists():
        hosts = json.loads(path.read_text())
        if not isinstance(hosts, dict):
            raise ValueError("not an object")
    hosts[url] = dict(entry)
    write_private(path, json.dumps(hosts, indent=2).encode())


def _carried_over(own: Path) -> dict[str, Any]:
    try:
        document = json.loads((own / "config.json").read_text())
    except (OSError, ValueError):
        document = {}
    kept = {name: document[name] for name in _KEPT if name in document} if isinstance(document, dict) else {}
    if (own / "cli-plugins").is_dir():
        kept["cliPluginsExtraDirs"] = [str(own / "cli-plugins")]
    return kept
