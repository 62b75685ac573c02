"""What the runtime's tests run: this machine's own /usr, bound read-only over a layer of links. Nothing to install."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from local_cloud.runtime.api import MountSpec, RunSpec, Runtime, probe

_MERGED = ("bin", "sbin", "lib", "lib64", "lib32")


def require_namespaces() -> None:
    """Skips where this account can have no containers at all, in the probe's own words."""
    refused = [finding for finding in probe() if not finding.ok and finding.name in ("namespaces", "layers")]
    if refused:
        pytest.skip(f"{refused[0].text}; {refused[0].remedy}")


def make_layer(directory: Path) -> Path:
    """A layer that makes a root directory of this machine's /usr."""
    layer = directory / "layer"
    layer.mkdir()
    for name in _MERGED:
        place = Path("/", name)
        if place.is_symlink():
            (layer / name).symlink_to(os.readlink(place))
    (layer / "etc").mkdir()
    (layer / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1234:2345:App:/home/app:/bin/sh\n")
    (layer / "etc/group").write_text("root:x:0:\napp:x:2345:\nstaff:x:50:app\n")
    return layer


class Userland:
    """Builds specs for a runtime and reads what they wrote."""

    def __init__(self, runtime: Runtime, directory: Path) -> None:
        self.runtime = runtime
        self.directory = directory
        self.layer = make_layer(directory)
        usr = MountSpec(Path("/usr"), "/usr", True)
        self.binds = (usr, *(MountSpec(Path("/", n), f"/{n}", True) for n in _MERGED if _own_directory(n)))

    def spec(self, name: str, *argv: str, **fields: Any) -> RunSpec:
        """A spec with defaults; `mounts` are added to those of the userland."""
        values: dict[str, Any] = {
            "id": name, "layers": (self.layer,), "argv": argv, "env": {}, "workdir": "/", "user": "", "hostname": "box",
            "memory_bytes": 0, "cpus": 0,
            "stdout": self.directory / f"{name}.out", "stderr": self.directory / f"{name}.err",
        }  # fmt: skip
        mounts = fields.pop("mounts", ())
        return RunSpec(**{**values, **fields, "mounts": (*self.binds, *mounts)})

    async def sh(self, name: str, script: str, **fields: Any) -> tuple[int, str]:
        """Exit code and standard output of a shell script."""
        await self.runtime.run(self.spec(name, "/bin/sh", "-c", script, **fields))
        status = await self.runtime.wait(name)
        return status.code, self.output(name)

    def output(self, name: str) -> str:
        return (self.directory / f"{name}.out").read_text()

    def errors(self, name: str) -> str:
        return (self.directory / f"{name}.err").read_text()


def _own_directory(name: str) -> bool:
    place = Path("/", name)
    return place.is_dir() and not place.is_symlink()
