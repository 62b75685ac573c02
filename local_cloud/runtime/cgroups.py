"""Limits of memory, processor and processes through cgroups, version 2 or 1, where this account may make them.

A container's groups are `<base>/<execution id>`; the base is named after the data directory, so two local clouds do
not meet.
"""

from __future__ import annotations

import os
import signal

PERIOD_US = 100_000
_WANTED = ("memory", "cpu", "pids")


def mounts_of(kind: str) -> list[tuple[str, set[str]]]:
    """(mount point, options) of this file system type."""
    found = []
    with open("/proc/self/mounts") as file:
        for line in file:
            fields = line.split(" ")
            if len(fields) > 3 and fields[2] == kind:
                found.append((fields[1], set(fields[3].split(","))))
    return found


class Cgroups:
    """Where containers' groups are made. `version` is 0 when this machine gives us none; `missing` then says why."""

    __slots__ = ("bases", "missing", "version")

    def __init__(self, key: str) -> None:
        self.version = 0
        self.missing = "no cgroup file system is mounted"
        self.bases: dict[str, str] = {}
        self._find_v1(key)
        if not self.version:
            self._find_v2(key)

    def _find_v1(self, key: str) -> None:
        roots: dict[str, str] = {}
        for place, options in mounts_of("cgroup"):
            for controller in (*_WANTED, "cpuacct"):
                if controller in options:
                    roots.setdefault(controller, place)
        if "memory" not in roots:
            return
        for controller, place in roots.items():
            base = f"{place}/sockerless-{key}"
            try:
                os.makedirs(base, exist_ok=True)
            except OSError as error:
                self.missing = f"{place} is not writable for this account ({error.strerror})"
                self.bases.clear()
                return
            self.bases[controller] = base
        self.version, self.missing = 1, ""

    def _find_v2(self, key: str) -> None:
        places = mounts_of("cgroup2")
        if not places:
            return
        root = places[0][0]
        try:
            parent = root if os.access(f"{root}/cgroup.subtree_control", os.W_OK) else _delegated(root)
            base = f"{parent}/sockerless-{key}"
            os.makedirs(base, exist_ok=True)
            _enable(parent)
            _enable(base)
        except OSError as error:
            self.missing = f"cgroups under {root} are not delegated to this account ({error.strerror})"
            return
        self.bases = {"": base}
        self.version, self.missing = 2, ""

    def groups(self, name: str) -> list[str]:
        """The directories of a container, without making them."""
        return [f"{base}/{name}" for base in dict.fromkeys(self.bases.values())]

    def make(self, name: str, memory_bytes: int, cpus: float, pids: int) -> list[str]:
        """Makes a container's groups with its limits (0: none); raises OSError."""
        for group in self.groups(name):
            os.makedirs(group, exist_ok=True)
        if self.version == 2:
            self._limit_v2(f"{self.bases['']}/{name}", memory_bytes, cpus, pids)
        elif self.version == 1:
            self._limit_v1(name, memory_bytes, cpus, pids)
        return self.groups(name)

    def _limit_v2(self, group: str, memory_bytes: int, cpus: float, pids: int) -> None:
        if memory_bytes:
            _write(f"{group}/memory.max", str(memory_bytes))
            _write_if_there(f"{group}/memory.swap.max", "0")
        if cpus:
            _write(f"{group}/cpu.max", f"{_quota(cpus)} {PERIOD_US}")
        if pids:
            _write(f"{group}/pids.max", str(pids))

    def _limit_v1(self, name: str, memory_bytes: int, cpus: float, pids: int) -> None:
        if memory_bytes:
            group = f"{self.bases['memory']}/{name}"
            _write(f"{group}/memory.limit_in_bytes", str(memory_bytes))
            _write_if_there(f"{group}/memory.memsw.limit_in_bytes", str(memory_bytes))
        if cpus and "cpu" in self.bases:
            group = f"{self.bases['cpu']}/{name}"
            _write(f"{group}/cpu.cfs_period_us", str(PERIOD_US))
            _write(f"{group}/cpu.cfs_quota_us", str(_quota(cpus)))
        if pids and "pids" in self.bases:
            _write(f"{self.bases['pids']}/{name}/pids.max", str(pids))

    def join_v1(self, name: str) -> None:
        """Puts the calling process into a container's groups.

        Through `tasks`, not `cgroup.procs`: a thread that moves itself needs no wait for other processors (kernel,
        cgroup.c).
        """
        for group in self.groups(name):
            _write(f"{group}/tasks", "0")

    def oom_kills(self, name: str) -> int:
        """How many processes of a container the kernel has killed for memory."""
        if self.version == 2:
            path = f"{self.bases['']}/{name}/memory.events"
        elif self.version == 1:
            path = f"{self.bases['memory']}/{name}/memory.oom_control"
        else:
            return 0
        try:
            with open(path) as file:
                for line in file:
                    words = line.split()
                    if len(words) == 2 and words[0] == "oom_kill":
                        return int(words[1])
        except OSError:
            pass
        return 0

    def names(self) -> set[str]:
        """Names of all groups under the bases."""
        found: set[str] = set()
        for base in self.bases.values():
            found.update(entry.name for entry in os.scandir(base) if entry.is_dir(follow_symlinks=False))
        return found

    def kill(self, name: str) -> None:
        """SIGKILL to every process in a container's groups: for those whose parent has gone."""
        for group in self.groups(name):
            try:
                with open(f"{group}/cgroup.procs") as file:
                    members = [int(line) for line in file]
            except OSError:
                continue
            for pid in members:
                if pid not in (0, os.getpid()):
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except OSError:
                        continue

    def remove(self, name: str) -> bool:
        """Removes a container's groups, and groups made below them; False while something is still in them."""
        removed = [_remove(group) for group in self.groups(name)]  # each of them is tried
        return all(removed)

    def remove_bases(self) -> None:
        """Removes the bases, when empty."""
        for base in set(self.bases.values()):
            _remove(base)


def _delegated(root: str) -> str:
    """Our own group of version 2, made able to hold groups: a group with controllers has no processes of its own."""
    with open("/proc/self/cgroup") as file:
        own = next((line.rstrip("\n")[3:] for line in file if line.startswith("0::")), "/")
    parent = root + own.rstrip("/")
    if parent.endswith("/sockerless-launcher"):
        return os.path.dirname(parent)
    leaf = f"{parent}/sockerless-launcher"
    os.makedirs(leaf, exist_ok=True)
    _write(f"{leaf}/cgroup.procs", "0")
    return parent


def _enable(group: str) -> None:
    with open(f"{group}/cgroup.controllers") as file:
        offered = set(file.read().split())
    with open(f"{group}/cgroup.subtree_control") as file:
        enabled = set(file.read().split())
    wanted = [name for name in _WANTED if name in offered and name not in enabled]
    if "memory" not in offered:
        raise OSError(1, "the memory controller is not available here")
    if wanted:
        _write(f"{group}/cgroup.subtree_control", " ".join(f"+{name}" for name in wanted))


def _quota(cpus: float) -> int:
    return max(1000, int(cpus * PERIOD_US))


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _write_if_there(path: str, text: str) -> None:
    """For swap limits: absent where the kernel has no swap accounting."""
    try:
        _write(path, text)
    except FileNotFoundError:
        return


def _remove(group: str) -> bool:
    try:
        os.rmdir(group)
    except FileNotFoundError:
        return True
    except OSError:
        try:
            below = [entry.path for entry in os.scandir(group) if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return True
        removed = [_remove(path) for path in below]
        return bool(removed) and all(removed) and _remove(group)
    return True
