"""One execution as the launcher sees it: its process, its output, and the files that outlive the launcher.

`executions/<id>/` holds `upper` and `work` (the writable layer), `state.json` (pid and its start time) and, from the
end until it is removed, `exit.json`. The room for `exit.json` is taken at the start, so that a disk that has become
full does not lose an exit code.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time

from local_cloud.runtime import syscalls as sc
from local_cloud.runtime.container import Birth, Refused
from local_cloud.runtime.machine import Machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from local_cloud.runtime.bridge import Namespace

_ROOM = 1024
_READ = 1 << 18
_PIPE_BYTES = 1 << 18
_F_SETPIPE_SZ = 1031
_KILLED = 128 + signal.SIGKILL


class Output:
    """Carries what a container writes to a file.

    A pipe between them, not the file itself: `> /dev/stderr` in a container would truncate a file.
    """

    __slots__ = ("error", "file", "pipe")

    def __init__(self, path: str) -> None:
        self.error = ""
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        self.pipe = -1

    def connect(self) -> int:
        """Makes the pipe; the container's end of it."""
        self.pipe, write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.pipe, False)
        try:
            fcntl.fcntl(self.pipe, _F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            return write  # the account's pipe budget is used up: the kernel's default serves
        return write

    def pump(self) -> int:
        """Moves what is there, at most one read: how many bytes; 0 at the end, -1 when there is nothing now."""
        try:
            data = os.read(self.pipe, _READ)
        except BlockingIOError:
            return -1
        view = memoryview(data)
        try:
            while view and not self.error:
                view = view[os.write(self.file, view) :]
        except OSError as error:  # the container is not held up for it: the rest is read and dropped
            self.error = f"output was lost: {(error.strerror or str(error)).lower()}"
        return len(data)

    def finish(self) -> None:
        """Takes what is left, then closes. What a process outside the container still holds open is not waited for."""
        for _ in range(2 * _PIPE_BYTES // 4096):
            if self.pump() <= 0:
                break
        self.close()

    def close(self) -> None:
        """Closes the pipe and the file."""
        for descriptor in (self.pipe, self.file):
            if descriptor >= 0:
                os.close(descriptor)
        self.pipe = self.file = -1


class Execution:
    """`exit` is None while it runs."""

    __slots__ = ("_heard", "address", "directory", "exit", "id", "late", "outputs", "pid", "pidfd", "report", "started")

    def __init__(self, machine: Machine, name: str) -> None:
        self.id = name
        self.directory = machine.directory(name)
        self.pid = self.pidfd = self.report = -1
        self.address = ""
        self._heard = b""
        self.outputs: list[Output] = []
        self.started = self.late = False
        self.exit: dict[str, Any] | None = None

    def start(self, machine: Machine, launch: dict[str, Any], namespace: Namespace | None) -> None:
        """Forks the container; its report comes through `report`. Raises Refused or OSError."""
        try:
            os.mkdir(self.directory, 0o755)
        except FileExistsError:
            raise Refused("spec", f"execution {self.id} exists already") from None
        self._reserve()
        birth = Birth(
            launch, machine, namespace.descriptor if namespace else -1, namespace.address if namespace else ""
        )
        theirs: list[int] = []
        group = -1
        try:
            theirs = self._connect(launch)
            birth.stdout, birth.stderr, birth.report = theirs[0], theirs[-2], theirs[-1]
            flags = sc.CLONE_NEWNS | sc.CLONE_NEWPID | sc.CLONE_NEWUTS | sc.CLONE_NEWIPC
            if machine.cgroups.version == 2:
                made = machine.cgroups.make(self.id, launch["memory_bytes"], launch["cpus"], launch["pids"])
                group = os.open(made[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                flags |= sc.CLONE_NEWCGROUP
            self.pid, self.pidfd = sc.clone(flags, group)
            if self.pid == 0:
                birth.become()
        finally:
            for descriptor in (*theirs, group):
                if descriptor >= 0:
                    os.close(descriptor)
        self.address = birth.address
        self._save("state.json", {"pid": self.pid, "start": start_time(self.pid)})

    def _connect(self, launch: dict[str, Any]) -> list[int]:
        """The container's ends: standard output, standard error (one pipe if it is the same file), report."""
        ends = []
        for path in dict.fromkeys((launch["stdout"], launch["stderr"])):
            output = Output(path)
            self.outputs.append(output)
            ends.append(output.connect())
        self.report, write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.report, False)
        return [*ends, write]

    def _reserve(self) -> None:
        with open(f"{self.directory}/exit.new", "wb") as file:
            file.write(b" " * _ROOM)

    def _save(self, name: str, content: dict[str, Any]) -> None:
        with open(f"{self.directory}/{name}", "w") as file:
            json.dump(content, file)

    def reported(self) -> bool:
        """Reads the report as far as it has come; True once it is complete."""
        try:
            while chunk := os.read(self.report, 65536):
                self._heard += chunk
        except BlockingIOError:
            return False
        return True

    def outcome(self) -> Refused | None:
        """What the report says: None when the program has been started."""
        os.close(self.report)
        self.report = -1
        data = self._heard
        if data == b"\n":
            self.started = True
            return None
        try:
            report = json.loads(data)
            return Refused(report["kind"], report["text"])
        except (ValueError, KeyError):
            what = "was not ready in time" if self.late else "died while it was being set up"
            return Refused("machine", f"the container's process {what}")

    def reap(self, machine: Machine) -> None:
        """The process has ended: takes its status and the rest of its output, and writes the exit file."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.pidfd = -1
        errors = []
        for output in self.outputs:
            output.finish()
            errors.append(output.error)
        self.outputs.clear()
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = 128 + number if number else os.WEXITSTATUS(status)
        oom = machine.cgroups.oom_kills(self.id) > 0
        self.finish(code, number, oom, "; ".join(dict.fromkeys(error for error in errors if error)))

    def finish(self, code: int, number: int, oom: bool, error: str) -> None:
        """Records the end, atomically; in memory only where even the reserved room cannot be written."""
        self.exit = {"code": code, "signal": number, "oom": oom, "error": error, "finished_at": time.time()}
        text = json.dumps(self.exit).encode()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(f"{self.directory}/exit.new", flags, 0o600)
            try:
                os.write(descriptor, text.ljust(_ROOM))
            finally:
                os.close(descriptor)
            os.rename(f"{self.directory}/exit.new", f"{self.directory}/exit.json")
        except OSError:
            return

    def kill(self, number: int) -> None:
        """A signal to the container's PID 1; raises OSError."""
        signal.pidfd_send_signal(self.pidfd, number)

    def discard(self, machine: Machine) -> None:
        """Moves the directory to where it is removed in the background, which frees the id at once."""
        for output in self.outputs:
            output.close()
        self.outputs.clear()
        if self.report >= 0:
            os.close(self.report)
            self.report = -1
        stamp = time.monotonic_ns()
        try:
            os.rename(self.directory, f"{machine.data_dir}/trash/{self.id}.{stamp}")
        except FileNotFoundError:
            return


def recover(machine: Machine) -> dict[str, Execution]:
    """The executions earlier launchers knew. What ran under one of them has been killed with it; survivors are now."""
    known: dict[str, Execution] = {}
    for entry in os.scandir(f"{machine.data_dir}/executions"):
        execution = Execution(machine, entry.name)
        execution.exit = _load(f"{entry.path}/exit.json")
        state = _load(f"{entry.path}/state.json")
        if state is None and execution.exit is None:
            execution.discard(machine)  # the launcher ended before it had forked
            continue
        if execution.exit is None:
            _kill_survivor(state or {})
            machine.cgroups.kill(entry.name)
            execution.finish(_KILLED, int(signal.SIGKILL), False, "the launcher ended while the container ran")
        known[entry.name] = execution
    return known


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot: tells it from a later one with the same number; 0 if gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _kill_survivor(state: dict[str, Any]) -> None:
    """A program that changed its user lost the kernel's promise to kill it with its parent."""
    pid, started = state.get("pid"), state.get("start")
    if not isinstance(pid, int) or pid <= 1 or not started:
        return
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if start_time(pid) == started:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return
    finally:
        os.close(descriptor)


def _load(path: str) -> dict[str, Any] | None:
    try:
        with open(path) as file:
            content = json.load(file)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
