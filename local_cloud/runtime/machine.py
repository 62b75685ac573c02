"""What a launcher knows about the machine it runs on, and the directories it works in."""

from __future__ import annotations

import hashlib
import os

from local_cloud.runtime.cgroups import Cgroups
from local_cloud.runtime.trash import empty_directory

PUBLIC_RESOLVERS = ("8.8.8.8", "8.8.4.4")
"""Docker's own fall-back, for a host that only resolves through its loopback."""

_RESOLV_CONF = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
_MAX_RESOLV_CONF = 64 << 10


class Machine:
    """Fixed for the life of a launcher.

    `privileged`: a real root; else the root of a user namespace. `single_id`: that namespace has one id only.
    """

    __slots__ = ("cgroups", "data_dir", "key", "privileged", "single_id")

    def __init__(self, data_dir: str, privileged: bool, single_id: bool) -> None:
        self.data_dir = data_dir
        self.privileged = privileged
        self.single_id = single_id
        self.key = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:8]
        for name in ("executions", "trash", "root", "empty"):
            os.makedirs(f"{data_dir}/{name}", mode=0o755, exist_ok=True)
        self.cgroups = Cgroups(self.key)

    def directory(self, name: str) -> str:
        """Of one execution: its writable layer, state and exit status."""
        return f"{self.data_dir}/executions/{name}"

    @property
    def mount_point(self) -> str:
        """An empty directory; every container mounts its root there, each in its own mount namespace."""
        return f"{self.data_dir}/root"

    @property
    def empty_layer(self) -> str:
        """The lowest layer of an image that has none."""
        return f"{self.data_dir}/empty"

    def clean(self) -> None:
        """Removes what removed executions left: their writable layers, and cgroups nothing is in any more."""
        trash = f"{self.data_dir}/trash"
        empty_directory(trash)
        for name in self.cgroups.names():
            if not os.path.isdir(self.directory(name)) or os.path.exists(f"{self.directory(name)}/exit.json"):
                self.cgroups.remove(name)


def resolvers(own_network: bool, paths: tuple[str, ...] = _RESOLV_CONF) -> str:
    """The text of a container's /etc/resolv.conf.

    In its own network namespace a resolver on the host's loopback is out of reach: those are left out, and where none
    is left, systemd-resolved's own list is taken, then public resolvers.
    """
    if not own_network:
        return _read(paths[0])
    options = ""
    for path in paths:
        lines = [line for line in _read(path).splitlines() if not _loopback(line)]
        options = options or "".join(f"{line}\n" for line in lines if not line.startswith("nameserver"))
        if any(line.startswith("nameserver") for line in lines):
            return "".join(f"{line}\n" for line in lines)
    return options + "".join(f"nameserver {address}\n" for address in PUBLIC_RESOLVERS)


def _loopback(line: str) -> bool:
    words = line.split()
    return len(words) > 1 and words[0] == "nameserver" and (words[1].startswith("127.") or words[1] == "::1")


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read(_MAX_RESOLV_CONF)
    except OSError:
        return ""
