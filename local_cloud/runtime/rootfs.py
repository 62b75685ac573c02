"""Builds a container's file system, in its own mount namespace: layers, kernel file systems, devices, bind mounts.

Host paths are opened before the change of root, targets are resolved after it: a link in an image leads nowhere but
into that image.
"""

from __future__ import annotations

import os
import stat

from local_cloud.runtime import syscalls as sc
from local_cloud.runtime.machine import Machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SHM_BYTES = 64 << 20
"""Docker's default size of /dev/shm."""

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
# What the kernel does not keep apart per container: Docker's lists.
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_HIDDEN_FILES = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/latency_stats", "/proc/sched_debug")
_HIDDEN_DIRECTORIES = ("/proc/acpi", "/proc/scsi", "/sys/firmware")
_NO_EXEC = sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC


def mount_layers(machine: Machine, directory: str, layers: list[str]) -> None:
    """The image's layers (lowest first) under a writable one, at the machine's mount point.

    Layers are named by descriptor, so neither their number nor a comma in a path meets the limits of mount options. A
    layer that occurs twice is mounted where it is topmost: overlayfs refuses it twice, and its files win from there
    anyway. `volatile`: the writable layer never outlives a crash of the machine, so nothing in it needs to be
    flushed.
    """
    opened = [_layer(path) for path in dict.fromkeys(reversed(layers))] or [_layer(machine.empty_layer)]
    lower = ":".join(f"/proc/self/fd/{descriptor}" for descriptor in opened)
    upper, work = (os.open(f"{directory}/{name}", os.O_PATH | os.O_CLOEXEC) for name in ("upper", "work"))
    options = f"lowerdir={lower},upperdir=/proc/self/fd/{upper},workdir=/proc/self/fd/{work},volatile"
    if not machine.privileged:
        options += ",userxattr"
    # nodev: device nodes an image brings, or a container makes, open nothing. /dev has the allowed ones.
    sc.mount("overlay", machine.mount_point, "overlay", sc.MS_NODEV, options)
    for descriptor in (*opened, upper, work):
        os.close(descriptor)


def _layer(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def open_mounts(mounts: list[list[Any]]) -> list[tuple[int, str, bool]]:
    """Detached copies of the host directories to be bound: (descriptor, target, whether it is a directory)."""
    opened = []
    for source, target, read_only in mounts:
        tree = sc.open_tree(source)
        sc.restrict_tree(tree, sc.ATTR_NODEV | (sc.ATTR_RDONLY if read_only else 0))
        opened.append((tree, target, stat.S_ISDIR(os.fstat(tree).st_mode)))
    return opened


def change_root(machine: Machine) -> None:
    """The mount point becomes the root; the host's root stays mounted over it and is the working directory."""
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.chdir(machine.mount_point)
    sc.pivot_root(".", ".")
    os.fchdir(old)
    os.close(old)


def leave_host() -> None:
    """Lets go of the host's root, which is the working directory."""
    sc.umount_detach(".")
    os.chdir("/")


def write_network_files(resolv_conf: str, hostname: str, address: str) -> None:
    """/etc/resolv.conf always; /etc/hosts and /etc/hostname where the image has none or an empty one."""
    _directory("/etc")
    _write("/etc/resolv.conf", resolv_conf)
    if not _has_text("/etc/hosts"):
        own = f"{address or '127.0.1.1'}\t{hostname}\n" if hostname else ""
        _write("/etc/hosts", f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}")
    if hostname and not _has_text("/etc/hostname"):
        _write("/etc/hostname", f"{hostname}\n")


def _has_text(path: str) -> bool:
    try:
        return os.stat(path).st_size > 0
    except OSError:
        return False


def _write(path: str, text: str) -> None:
    """A plain file, also where the image has a link (to systemd-resolved's file, say)."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    if os.path.islink(path):
        os.unlink(path)
    descriptor = os.open(path, flags, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _directory(path: str) -> None:
    """As os.mkdir, content with one that is there; an image's link to a directory counts."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        if not os.path.isdir(path):
            os.unlink(path)
            os.mkdir(path, 0o755)


def mount_kernel(machine: Machine, own_network: bool) -> None:
    """/proc and /sys, without the parts that reach beyond the container."""
    _directory("/proc")
    sc.mount("proc", "/proc", "proc", _NO_EXEC)
    _directory("/sys")
    if machine.privileged or own_network:
        sc.mount("sysfs", "/sys", "sysfs", _NO_EXEC | sc.MS_RDONLY)
    else:  # sysfs may be mounted only by the owner of the network namespace
        _bind_read_only("sys", "/sys")
    if not machine.privileged:
        return  # what Docker hides belongs to the host's root there, and stays closed
    for path in _READ_ONLY:
        if os.path.exists(path):
            sc.mount(path, path, None, sc.MS_BIND | sc.MS_REC)
            sc.mount("none", path, None, sc.MS_BIND | sc.MS_REMOUNT | sc.MS_RDONLY | _NO_EXEC)
    for path in _HIDDEN_FILES:
        if os.path.exists(path):
            _bind_read_only("dev/null", path)
    for path in _HIDDEN_DIRECTORIES:
        if os.path.exists(path):
            sc.mount("tmpfs", path, "tmpfs", _NO_EXEC | sc.MS_RDONLY, "size=0k")


def mount_devices(machine: Machine, shm_bytes: int) -> None:
    """/dev with the devices every container has, as binds of the host's: made nodes open nothing (nodev)."""
    _directory("/dev")
    sc.mount("tmpfs", "/dev", "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=755,size=64k")
    for name in _DEVICES:
        os.close(os.open(f"/dev/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        _bind_read_only(
            f"dev/{name}", f"/dev/{name}"
        )  # devices can be written all the same; chmod cannot reach the host's
    for name, target in _LINKS.items():
        os.symlink(target, f"/dev/{name}")
    os.symlink("pts/ptmx", "/dev/ptmx")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"/dev/{name}", 0o755)
    group = "" if machine.single_id else ",gid=5"
    sc.mount("devpts", "/dev/pts", "devpts", sc.MS_NOSUID | sc.MS_NOEXEC, f"newinstance,ptmxmode=0666,mode=0620{group}")
    sc.mount("shm", "/dev/shm", "tmpfs", _NO_EXEC, f"mode=1777,size={shm_bytes or SHM_BYTES}")  # noqa: S108
    try:
        sc.mount("mqueue", "/dev/mqueue", "mqueue", _NO_EXEC)
    except OSError:
        return  # a kernel without POSIX message queues


def _bind_read_only(source: str, target: str) -> None:
    """Binds what the working directory, the host's root, has at `source`."""
    tree = sc.open_tree(source)
    try:
        sc.restrict_tree(tree, sc.ATTR_RDONLY)
        sc.move_mount(tree, target)
    finally:
        os.close(tree)


def mount_cgroup_view(machine: Machine, name: str) -> None:
    """The container's own groups, read-only: runtimes (JVM, Go, Node) read their limits there."""
    cgroups = machine.cgroups
    if cgroups.version == 2:
        sc.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", _NO_EXEC | sc.MS_RDONLY)
    elif cgroups.version == 1:
        sc.mount("cgroup", "/sys/fs/cgroup", "tmpfs", _NO_EXEC, "mode=755,size=64k")
        for controller, base in cgroups.bases.items():
            target = f"/sys/fs/cgroup/{controller}"
            os.mkdir(target, 0o755)
            _bind_read_only(f"{base}/{name}".lstrip("/"), target)
        sc.mount("none", "/sys/fs/cgroup", None, sc.MS_BIND | sc.MS_REMOUNT | sc.MS_RDONLY | _NO_EXEC)


def attach_mounts(opened: list[tuple[int, str, bool]]) -> None:
    """Binds the opened host directories, outer targets first; missing targets are made in the writable layer."""
    for tree, target, is_directory in sorted(opened, key=lambda each: each[1].count("/")):
        place = os.path.realpath(target)  # through the image's links, also those that lead to nothing yet
        _target(place, is_directory)
        sc.move_mount(tree, place)
        os.close(tree)


def _target(target: str, is_directory: bool) -> None:
    parent = os.path.dirname(target)
    try:
        _make(target, parent, is_directory)
    except OSError as error:
        if error.errno not in (1, 13, 30):  # EPERM (sysfs, proc), EACCES, EROFS
            raise
        while not os.path.isdir(parent):
            parent = os.path.dirname(parent)
        _mirror(parent)
        _make(target, os.path.dirname(target), is_directory)


def _make(target: str, parent: str, is_directory: bool) -> None:
    if os.path.exists(target):
        return
    os.makedirs(target if is_directory else parent, mode=0o755, exist_ok=True)
    if not is_directory:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def _mirror(place: str) -> None:
    """Replaces a directory nothing can be made in by a writable one in memory, with the same entries bound into it."""
    here = os.stat(place)
    old = sc.open_tree(place)
    sc.mount("tmpfs", place, "tmpfs", sc.MS_NODEV, f"mode={stat.S_IMODE(here.st_mode):o},size=64k")
    for entry in os.scandir(f"/proc/self/fd/{old}"):
        path = f"{place}/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), path)
            continue
        if entry.is_dir(follow_symlinks=False):
            os.mkdir(path)
        else:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        sc.mount(entry.path, path, None, sc.MS_BIND | sc.MS_REC)
    os.close(old)
