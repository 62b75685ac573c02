"""The system calls of a container which Python 3.11 does not offer, through libc.

All raise OSError with the kernel's errno and, where there is one, the path. Numbers 428 and above are the same on every
architecture (Linux, `include/uapi/asm-generic/unistd.h`).
"""

from __future__ import annotations

import ctypes
import os

# PyDLL keeps the interpreter's lock during a call. That matters for clone(): the child must not have to take a lock
# whose bookkeeping still names the parent.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
_CLONE_PIDFD = 0x00001000
_CLONE_INTO_CGROUP = 0x200000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE = 4096, 16384, 1 << 18, 1 << 19
_MNT_DETACH = 2

ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
_OPEN_TREE_CLONE = 1
_AT_RECURSIVE, _AT_EMPTY_PATH = 0x8000, 0x1000
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD = -100

_CLONE3, _OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 435, 428, 429, 442
_KEYCTL = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine, 0)
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP = 1, 24
_SIGCHLD = 17


def _checked(result: int, path: str | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    arguments = (_bytes(source), _bytes(target), _bytes(kind), ctypes.c_ulong(flags), _bytes(data))
    _checked(_libc.mount(*arguments), target)


def umount_detach(target: str) -> None:
    """umount2(2) with MNT_DETACH: gone from view at once, freed when the last user leaves."""
    _checked(_libc.umount2(_bytes(target), _MNT_DETACH), target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _checked(_libc.pivot_root(_bytes(new), _bytes(old)), new)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_libc.unshare(flags))


def setns(descriptor: int, kind: int) -> None:
    """setns(2)."""
    _checked(_libc.setns(descriptor, kind))


def die_with_parent(number: int) -> None:
    """prctl(PR_SET_PDEATHSIG). The kernel forgets it at a change of user: call it after that."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0))


def drop_from_bounding_set(capability: int) -> None:
    """prctl(PR_CAPBSET_DROP): no process started from here on can gain this capability."""
    _checked(_libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0))


def new_session_keyring() -> None:
    """keyctl(KEYCTL_JOIN_SESSION_KEYRING): leaves the caller's keys behind. Absent on some kernels: not an error."""
    if _KEYCTL:
        _libc.syscall(ctypes.c_long(_KEYCTL), ctypes.c_long(1), None, 0, 0, 0)


class _CloneArguments(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack",
            "stack_size", "tls", "set_tid", "set_tid_size", "cgroup",
        )
    ]  # fmt: skip


def clone(flags: int, cgroup: int = -1) -> tuple[int, int]:
    """clone3(2) as a fork into new namespaces, optionally into a cgroup (v2): (pid, pidfd), or (0, -1) in the child.

    The caller has one thread: Python's own after-fork work is skipped, and the child is to exec or _exit.
    """
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArguments()
    arguments.flags = flags | _CLONE_PIDFD
    arguments.pidfd = ctypes.addressof(pidfd)
    arguments.exit_signal = _SIGCHLD
    if cgroup >= 0:
        arguments.flags |= _CLONE_INTO_CGROUP
        arguments.cgroup = cgroup
    size = ctypes.sizeof(arguments)
    pid = _checked(_libc.syscall(ctypes.c_long(_CLONE3), ctypes.byref(arguments), ctypes.c_size_t(size)))
    return pid, pidfd.value if pid else -1


def open_tree(path: str) -> int:
    """A detached copy of the mounts at `path` (open_tree(2), OPEN_TREE_CLONE and AT_RECURSIVE), as a descriptor."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE
    number, place = ctypes.c_long(_OPEN_TREE), ctypes.c_int(_AT_FDCWD)
    return _checked(_libc.syscall(number, place, _bytes(path), ctypes.c_uint(flags)), path)


def move_mount(tree: int, target: str) -> None:
    """Attaches a detached tree at `target`."""
    place, flags = ctypes.c_int(_AT_FDCWD), ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH)
    number = ctypes.c_long(_MOVE_MOUNT)
    _checked(_libc.syscall(number, ctypes.c_int(tree), b"", place, _bytes(target), flags), target)


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def restrict_tree(tree: int, attributes: int) -> None:
    """mount_setattr(2) over a whole detached tree: adds ATTR_RDONLY, ATTR_NODEV, … and makes it private."""
    wanted = _MountAttributes()
    wanted.attr_set = attributes
    wanted.propagation = MS_PRIVATE
    flags = ctypes.c_uint(_AT_EMPTY_PATH | _AT_RECURSIVE)
    size = ctypes.c_size_t(ctypes.sizeof(wanted))
    number = ctypes.c_long(_MOUNT_SETATTR)
    _checked(_libc.syscall(number, ctypes.c_int(tree), b"", flags, ctypes.byref(wanted), size))
