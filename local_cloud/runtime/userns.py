"""A user namespace for an ordinary user: becomes its root, with as many ids as this account may use.

With `newuidmap`/`newgidmap` (Debian's package uidmap) and a range in /etc/subuid and /etc/subgid, id 0 inside is the
caller and ids 1… are the range. Without them only id 0 exists inside, so files of an image all belong to the caller.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CAP_SYS_ADMIN = 21
_HELPERS = ("newuidmap", "newgidmap")
_PLACES = ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin")

Range = tuple[int, int]


def privileged() -> bool:
    """Whether this process is a root that may mount (a root inside an ordinary container may not)."""
    if os.geteuid() != 0:
        return False
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return False


def enter() -> bool:
    """Moves this single-threaded process into a new user namespace, as its root; True if it has a range of ids.

    Raises OSError where the kernel, a sysctl or AppArmor forbids user namespaces.
    """
    from local_cloud.runtime.syscalls import CLONE_NEWUSER, unshare

    uid, gid = os.geteuid(), os.getegid()
    mapping = _mapping(uid)
    if mapping is None:
        unshare(CLONE_NEWUSER)
        map_single(0, 0, uid, gid)
        return False
    done = _beside(lambda pid: _map_range(pid, uid, gid, mapping), lambda: unshare(CLONE_NEWUSER))
    if not done:
        map_single(0, 0, uid, gid)
        return False
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.setgroups([])
    return True


def map_single(inner_uid: int, inner_gid: int, outer_uid: int, outer_gid: int) -> None:
    """Gives the user namespace this process has just made its only id."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inner_uid} {outer_uid} 1"),
        ("gid_map", f"{inner_gid} {outer_gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def range_available(uid: int) -> str:
    """Empty if this account can have a range of ids, else what is missing."""
    missing = [name for name in _HELPERS if not _helper(name)]
    if missing:
        return f"{' and '.join(missing)} not found"
    absent = [path for path in ("/etc/subuid", "/etc/subgid") if _subordinate(path, uid) is None]
    return f"no range for this account in {' and '.join(absent)}" if absent else ""


def _mapping(uid: int) -> tuple[Range, Range] | None:
    if range_available(uid):
        return None
    uids, gids = _subordinate("/etc/subuid", uid), _subordinate("/etc/subgid", uid)
    return (uids, gids) if uids and gids else None


def _helper(name: str) -> str | None:
    for place in _PLACES:
        path = f"{place}/{name}"
        if os.access(path, os.X_OK):
            return path
    return None


def _subordinate(path: str, uid: int) -> Range | None:
    import pwd

    try:
        names = {str(uid), pwd.getpwuid(uid).pw_name}
    except KeyError:
        names = {str(uid)}
    try:
        with open(path) as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in names and fields[1].isdigit() and fields[2].isdigit() and int(fields[2]):
            return int(fields[1]), int(fields[2])
    return None


def _beside(outside: Callable[[int], bool], inside: Callable[[], None]) -> bool:
    """Runs `inside` here, then `outside` with our pid in a child that stayed behind; its success."""
    go_read, go_write = os.pipe()
    own = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(go_write)
        succeeded = False
        try:
            succeeded = os.read(go_read, 1) == b"g" and outside(own)
        finally:
            os._exit(0 if succeeded else 1)
    os.close(go_read)
    try:
        inside()
        os.write(go_write, b"g")
    finally:
        os.close(go_write)
        _, status = os.waitpid(child, 0)
    return status == 0


def _map_range(pid: int, uid: int, gid: int, mapping: tuple[Range, Range]) -> bool:
    for name, own, (start, count) in zip(_HELPERS, (uid, gid), mapping, strict=True):
        path = _helper(name)
        if path is None:
            return False
        arguments = [path, str(pid), "0", str(own), "1", "1", str(start), str(count)]
        helper = os.posix_spawn(path, arguments, {"PATH": "/usr/bin:/bin"})
        if os.waitpid(helper, 0)[1] != 0:
            return False
    return True
