"""Images made on the spot, so that neither the demo nor the tests need a registry.

`busybox()` holds Debian's static busybox with its applets; `scratch()` holds one static binary and nothing else.
Both are written in the `docker save` format.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_APPLET_DIR = "bin"
_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\napp:x:1000:1000::/home/app:/bin/sh\n"  # noqa: E501
_GROUP = "root:x:0:\nstaff:x:50:app\nnogroup:x:65534:\napp:x:1000:\n"


def busybox_binary() -> Path:
    """The static busybox of Debian's `busybox-static`."""
    found = shutil.which("busybox")
    if found is None:
        raise FileNotFoundError("busybox is not installed (Debian: busybox-static)")
    return Path(found)


def _file(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644, uid: int = 0) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.uid, member.gid = len(content), mode, uid, uid
    tar.addfile(member, io.BytesIO(content))


def _directory(tar: tarfile.TarFile, name: str, mode: int = 0o755, uid: int = 0) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, mode, uid, uid
    tar.addfile(member)


def busybox_layer() -> bytes:
    """A small root file system: busybox and its applets, passwd, group, /tmp, /home/app."""
    binary = busybox_binary()
    applets = subprocess.run([str(binary), "--list"], check=True, capture_output=True, text=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in (_APPLET_DIR, "etc", "root", "home", "usr", "var", "dev", "proc", "sys"):
            _directory(tar, name)
        _directory(tar, "tmp", 0o1777)
        _directory(tar, "home/app", 0o755, uid=1000)
        _file(tar, f"{_APPLET_DIR}/busybox", binary.read_bytes(), 0o755)
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"{_APPLET_DIR}/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        _file(tar, "etc/passwd", _PASSWD.encode())
        _file(tar, "etc/group", _GROUP.encode())
    return out.getvalue()


def archive(tag: str, layers: list[bytes], config: Mapping[str, Any]) -> bytes:
    """A `docker save` archive of one image."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "made by the tests"} for _ in layers],
    }
    body = json.dumps(document, sort_keys=True).encode()
    name = hashlib.sha256(body).hexdigest()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        paths = []
        for layer in layers:
            path = f"{hashlib.sha256(layer).hexdigest()}/layer.tar"
            paths.append(path)
            _file(tar, path, layer)
        _file(tar, f"{name}.json", body)
        manifest = [{"Config": f"{name}.json", "RepoTags": [tag], "Layers": paths}]
        _file(tar, "manifest.json", json.dumps(manifest).encode())
    return out.getvalue()


def busybox(tag: str = "busybox:latest", *, extra: bytes = b"", **config: Any) -> bytes:
    """The busybox image, as `docker load` takes it; `extra` makes a second layer with `/extra` of that content."""
    defaults: dict[str, Any] = {
        "Cmd": ["sh"],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    }
    layers = [busybox_layer()]
    if extra:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            _file(tar, "extra", extra)
        layers.append(out.getvalue())
    return archive(tag, layers, defaults | config)


def scratch(tag: str = "single:latest") -> bytes:
    """An image with nothing but one static binary."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        _file(tar, "busybox", busybox_binary().read_bytes(), 0o755)
    return archive(tag, [out.getvalue()], {"Entrypoint": ["/busybox"], "Cmd": ["echo", "hello from scratch"]})
