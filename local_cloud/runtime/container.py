"""The first moments of a container: the forked process that turns itself into PID 1 of an image.

It has its new namespaces already (clone3 made it in them). Everything that fails is reported through a pipe, which the
kernel closes when the image's program starts.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket

from local_cloud.runtime import rootfs, userns, users
from local_cloud.runtime import syscalls as sc
from local_cloud.runtime.machine import Machine, resolvers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Powers over the machine that no namespace confines: MAC_OVERRIDE, MAC_ADMIN, SYS_MODULE, SYS_RAWIO, SYS_BOOT,
# SYS_TIME, SYSLOG, AUDIT_CONTROL, AUDIT_READ, WAKE_ALARM, BLOCK_SUSPEND (include/uapi/linux/capability.h).
_UNCONFINED = (32, 33, 16, 17, 22, 25, 34, 30, 37, 35, 36)
_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Refused(Exception):
    """A start that cannot be; `kind` as in findings.RuntimeRefused."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Birth:
    """What the child needs besides the launch: where its files are, its network, its pipes."""

    __slots__ = ("_doing", "address", "directory", "launch", "machine", "network", "report", "stderr", "stdout")

    def __init__(self, launch: dict[str, Any], machine: Machine, network: int, address: str) -> None:
        self.launch, self.machine = launch, machine
        self.directory = machine.directory(launch["id"])
        self.network, self.address = network, address
        self.stdout = self.stderr = self.report = -1

    def become(self) -> NoReturn:
        """Runs in the child; never returns."""
        self._doing = ("machine", "starting")
        try:
            identity = self._prepare()
            self._execute(identity)
        except Refused as refused:
            self._tell(refused.kind, str(refused))
        except OSError as error:
            kind, doing = self._doing
            where = f": {error.filename}" if error.filename else ""
            text = error.strerror or str(error)
            self._tell("space" if error.errno in _SPACE else kind, f"{doing}: {text[:1].lower()}{text[1:]}{where}")
        except BaseException as error:
            self._tell("machine", f"{self._doing[1]}: {type(error).__name__}: {error}")
        finally:
            os._exit(127)

    def _tell(self, kind: str, text: str) -> None:
        os.write(self.report, json.dumps({"kind": kind, "text": text}).encode())

    def _prepare(self) -> users.Identity:
        launch, machine = self.launch, self.machine
        os.setsid()
        sc.new_session_keyring()
        self._doing = ("machine", "setting the container's limits")
        if machine.cgroups.version == 1:
            machine.cgroups.make(launch["id"], launch["memory_bytes"], launch["cpus"], launch["pids"])
            machine.cgroups.join_v1(launch["id"])
        if self.network >= 0:
            self._doing = ("machine", "entering the network namespace")
            sc.setns(self.network, sc.CLONE_NEWNET)
        if launch["hostname"]:
            self._doing = ("spec", f"setting the host name {launch['hostname']!r}")
            socket.sethostname(launch["hostname"])
        self._file_system()
        self._doing = ("user", f"finding user {launch['user']!r}")
        try:
            identity = users.resolve(launch["user"])
        except users.UnknownUser as unknown:
            raise Refused("user", str(unknown)) from None
        self._stdio(identity)
        self._switch(identity)
        return identity

    def _file_system(self) -> None:
        launch, machine = self.launch, self.machine
        self._doing = ("layer", "making the writable layer")
        for name in ("upper", "work"):
            os.mkdir(f"{self.directory}/{name}", 0o755)
        self._doing = ("layer", "mounting the image's layers")
        sc.mount("none", "/", None, sc.MS_REC | sc.MS_PRIVATE)
        rootfs.mount_layers(machine, self.directory, launch["layers"])
        self._doing = ("mount", "opening the source of a mount")
        mounts = rootfs.open_mounts(launch["mounts"])
        resolv_conf = resolvers(self.network >= 0)
        self._doing = ("machine", "changing the root")
        rootfs.change_root(machine)
        self._doing = ("machine", "writing /etc")
        rootfs.write_network_files(resolv_conf, launch["hostname"], self.address)
        self._doing = ("machine", "mounting /proc and /sys")
        rootfs.mount_kernel(machine, self.network >= 0)
        self._doing = ("machine", "mounting /dev")
        rootfs.mount_devices(machine, launch["tmpfs_bytes"])
        self._doing = ("machine", "mounting /sys/fs/cgroup")
        rootfs.mount_cgroup_view(machine, launch["id"])
        rootfs.leave_host()
        self._doing = ("mount", "mounting on a target")
        rootfs.attach_mounts(mounts)

    def _stdio(self, identity: users.Identity) -> None:
        """The pipes belong to the user, so that opening /dev/stdout again is allowed (as runc does it)."""
        self._doing = ("machine", "connecting the output")
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0)
        for descriptor, place in ((self.stdout, 1), (self.stderr, 2)):
            if identity.uid and not self.machine.single_id:
                os.fchown(descriptor, identity.uid, -1)
            os.dup2(descriptor, place)

    def _switch(self, identity: users.Identity) -> None:
        """Working directory, then the user. root keeps its capabilities within the namespaces."""
        workdir = self.launch["workdir"] or "/"
        self._doing = ("workdir", f"changing to the working directory {workdir!r}")
        os.makedirs(workdir, mode=0o755, exist_ok=True)
        self._doing = ("user", f"becoming user {identity.uid}:{identity.gid}")
        if self.machine.privileged:
            for capability in _UNCONFINED:
                sc.drop_from_bounding_set(capability)
        if self.machine.single_id:
            if identity.uid or identity.gid:
                sc.unshare(sc.CLONE_NEWUSER)
                userns.map_single(identity.uid, identity.gid, 0, 0)
        else:
            os.setgroups(identity.groups)
            os.setresgid(identity.gid, identity.gid, identity.gid)
            os.setresuid(identity.uid, identity.uid, identity.uid)
        self._doing = ("workdir", f"changing to the working directory {workdir!r}")
        os.chdir(workdir)

    def _execute(self, identity: users.Identity) -> None:
        argv: list[str] = self.launch["argv"]
        env = {"PATH": DEFAULT_PATH, "HOME": identity.home, **self.launch["env"]}
        path = find_program(argv[0], env["PATH"])
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and exec would hand that on
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o022)
        self._doing = ("command", f'exec: "{argv[0]}"')
        sc.die_with_parent(signal.SIGKILL)
        # If the launcher died before the line above, nobody reads this pipe: EPIPE, and we go as well.
        os.write(self.report, b"\n")
        try:
            os.execve(path, argv, env)  # noqa: S606 - this is what a container is
        except FileNotFoundError:
            raise Refused(
                "command", f'exec: "{argv[0]}": the interpreter or loader that {path} names is not in the image'
            ) from None


def find_program(name: str, path: str) -> str:
    """Where exec finds `name` in the container; raises Refused with the text Docker's users know."""
    candidates = [name] if "/" in name else [f"{place or '.'}/{name}" for place in path.split(":")]
    denied = False
    for candidate in candidates:
        if not os.path.isdir(candidate) and os.path.exists(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            denied = True
        elif os.path.isdir(candidate) and "/" in name:
            raise Refused("command", f'exec: "{name}": is a directory')
    if denied:
        raise Refused("command", f'exec: "{name}": permission denied')
    if "/" in name:
        raise Refused("command", f'exec: "{name}": stat {name}: no such file or directory')
    raise Refused("command", f'exec: "{name}": executable file not found in $PATH')
