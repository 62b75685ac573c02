"""The process that starts containers and is their parent: `python -m local_cloud.runtime.launcher --socket PATH`.

Small and single-threaded, because each container begins as a fork of it. It detaches itself from whoever started it, so
containers outlive the endpoint; if it dies, the kernel kills them, and the next one records that. It ends when no
container runs and nobody has been connected for a minute.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time

from local_cloud.runtime import userns
from local_cloud.runtime.bridge import Bridge
from local_cloud.runtime.clients import Clients
from local_cloud.runtime.execution import recover
from local_cloud.runtime.machine import Machine
from local_cloud.runtime.requests import Requests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

IDLE_SECONDS = 60.0


class Launcher:
    """The event loop: sockets, pipes and processes, each with the function to call when it is ready."""

    def __init__(self, machine: Machine, listener: socket.socket, idle_seconds: float) -> None:
        self.machine = machine
        self.bridge, why = _bridge(machine)
        self._idle_seconds = idle_seconds
        self._selector = selectors.DefaultSelector()
        self.requests = Requests(machine, self.bridge, recover(machine), self.watch, self.forget)
        self.clients = Clients(listener, _greeting(machine, self.bridge, why), self.requests, self.watch, self.forget)
        self._cleaner = -1
        self._busy_until = time.monotonic() + idle_seconds

    def watch(self, descriptor: int, ready: Callable[[], None], writing: bool = False) -> None:
        """Calls `ready` whenever the descriptor can be read (and written, with `writing`)."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        if descriptor in self._selector.get_map():
            self._selector.modify(descriptor, events, ready)
        else:
            self._selector.register(descriptor, events, ready)

    def forget(self, descriptor: int) -> None:
        """Stops watching; call it before closing."""
        if descriptor in self._selector.get_map():
            self._selector.unregister(descriptor)

    def serve(self) -> None:
        """Until shut down or idle; then takes the network away."""
        refilling = self.bridge is not None
        while not self._finished():
            # Not while a container starts: both would wait for the kernel's locks on namespaces.
            more = refilling and not self.requests.starting and self.bridge is not None and self.bridge.wants_more
            ready = self._selector.select(0 if more else self._patience())
            for key, _ in ready:
                if key.fd in self._selector.get_map():  # an earlier one of this batch may have closed it
                    self._call(key.fd, key.data)
            self.requests.check_deadlines(time.monotonic())
            if not ready and more and self.bridge is not None:
                refilling = self.bridge.refill()
            elif not ready:
                refilling = self.bridge is not None
                self._clean()
        self._end()

    def _call(self, descriptor: int, ready: Callable[[], None]) -> None:
        """A fault of ours must not end the process: every container would die with it."""
        try:
            ready()
        except Exception:
            sys.excepthook(*sys.exc_info())  # to the log
            self.forget(descriptor)  # or it would be ready again at once

    def _patience(self) -> float:
        if self.requests.starting:
            return 1.0
        if self._cleaner >= 0 or self.requests.dirty:
            return 0.2
        return 600.0 if self.clients.connected or self.requests.running else self._idle_seconds / 4

    def _finished(self) -> bool:
        if self.requests.shutting_down:
            return not self.requests.running
        now = time.monotonic()
        if self.clients.connected or self.requests.running:
            self._busy_until = now + self._idle_seconds
        return now >= self._busy_until

    def _clean(self) -> None:
        """Removes, in a child, what removed executions left; only when nothing else is to be done."""
        if self._cleaner >= 0:
            if os.waitpid(self._cleaner, os.WNOHANG) == (0, 0):
                return
            self._cleaner = -1
        if self.requests.dirty:
            self.requests.dirty = False
            self._cleaner = os.fork()
            if self._cleaner == 0:
                try:
                    os.nice(10)
                    self.machine.clean()
                finally:
                    os._exit(0)

    def _end(self) -> None:
        if self._cleaner >= 0:
            os.waitpid(self._cleaner, 0)
        try:
            self.machine.clean()
            self.machine.cgroups.remove_bases()
        finally:
            if self.bridge:
                self.bridge.remove()
            self.clients.say_farewell()


def _bridge(machine: Machine) -> tuple[Bridge | None, str]:
    """The bridge, or why containers share the network of the host."""
    if not machine.privileged:
        return None, "an ordinary user cannot make bridges"
    try:
        return Bridge(machine.key, machine.data_dir), ""
    except OSError as error:
        return None, f"bridges or veth links cannot be made here: {error.strerror}"


def _greeting(machine: Machine, bridge: Bridge | None, why: str) -> dict[str, object]:
    return {
        "hello": 1,
        "pid": os.getpid(),
        "host_address": bridge.address if bridge else "127.0.0.1",
        "network": "bridge" if bridge else "host",
        "no_bridge": why,
        "no_outbound": bridge.nat.missing if bridge else "",
        "no_limits": machine.cgroups.missing,
        "single_id": machine.single_id,
    }


def _detach() -> None:
    """Leaves the caller's session and process tree."""
    if os.fork():
        os._exit(0)
    os.setsid()


def _listen(path: str) -> socket.socket:
    """The listener, of mode 0600; the lock that is held makes a socket that is there a leftover."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    if os.path.lexists(path):
        os.unlink(path)
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.umask(0o177)
    # Through the descriptor: the path itself may be longer than the 107 bytes an address has.
    listener.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    os.umask(0o022)
    os.close(directory)
    listener.listen(128)
    listener.setblocking(False)
    return listener


def _say(answer: dict[str, str]) -> None:
    """The one line the starter waits for; after it, standard output is nobody's."""
    os.write(1, json.dumps(answer).encode() + b"\n")
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 1)
    os.close(null)


def _lock(data_dir: str) -> bool:
    """One launcher for a data directory; the lock goes with the process."""
    descriptor = os.open(f"{data_dir}/launcher.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _prepare(path: str, idle_seconds: float) -> Launcher | None:
    data_dir = os.path.dirname(path)
    if not _lock(data_dir):
        _say({"state": "another"})
        return None
    os.umask(0o022)
    privileged = userns.privileged()
    try:
        single_id = False if privileged else not userns.enter()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        text = f"this account cannot have namespaces of its own ({why}): `sockerless doctor` says more"
        _say({"state": "refused", "text": text})
        return None
    machine = Machine(data_dir, privileged, single_id)
    return Launcher(machine, _listen(path), idle_seconds)


def main(arguments: list[str]) -> int:
    """`--socket PATH [--idle SECONDS]`."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    if "--socket" not in options or not set(options) <= {"--socket", "--idle"} or len(arguments) % 2:
        sys.stderr.write("usage: launcher --socket PATH [--idle SECONDS]\n")
        return 2
    directory, name = os.path.split(options["--socket"])
    path = f"{os.path.realpath(directory)}/{name}"
    _detach()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        launcher = _prepare(path, float(options.get("--idle", IDLE_SECONDS)))
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _say({"state": "refused", "text": f"the launcher cannot start: {error.strerror or error}{where}"})
        return 1
    if launcher is None:
        return 1
    _say({"state": "ready"})
    gc.collect()
    gc.freeze()  # what exists now is not touched again by collections, so forks keep sharing its pages
    launcher.serve()
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
