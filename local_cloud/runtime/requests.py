"""What clients ask of the launcher: run, address, wait, kill, ids, remove, shutdown.

Each request has `op`, a number `n` and mostly `id`; the answer has the same `n`, and `refused` when it cannot be done.
"""

from __future__ import annotations

import signal
import time
from functools import partial

from local_cloud.runtime.container import Refused
from local_cloud.runtime.execution import Execution, Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from local_cloud.runtime.bridge import Bridge, Namespace
    from local_cloud.runtime.clients import Client
    from local_cloud.runtime.machine import Machine

START_SECONDS = 30.0
"""A container that has not started its program by then (a mount that hangs, say) is given up."""

STARTS_AT_ONCE = 8
"""More of them only wait for each other in the kernel; the others' turn comes sooner so."""

_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


class Requests:
    """The table of executions and the operations on it."""

    def __init__(
        self,
        machine: Machine,
        bridge: Bridge | None,
        executions: dict[str, Execution],
        watch: Callable[..., None],
        forget: Callable[[int], None],
    ) -> None:
        self._machine, self._bridge = machine, bridge
        self._watch, self._forget = watch, forget
        self.executions = executions
        self.running: set[str] = set()
        self.starting: dict[str, tuple[float, Client, int]] = {}
        self._queue: list[tuple[Client, dict[str, Any]]] = []
        self._waiters: dict[str, list[tuple[Client, int]]] = {}
        self._refusals: dict[str, tuple[Client, dict[str, Any]]] = {}
        self._removers: dict[str, list[tuple[Client, int]]] = {}
        self.shutting_down = False
        self.dirty = True  # an earlier launcher may have left something to remove

    def handle(self, client: Client, message: dict[str, Any]) -> None:
        """Answers one request, now or when it can be."""
        number = message.get("n", 0)
        operation = _OPERATIONS.get(str(message.get("op")))
        try:
            if operation is None:
                raise Refused("spec", f"unknown operation {message.get('op')!r}")
            operation(self, client, number, message)
        except Refused as refused:
            client.send({"n": number, "refused": {"kind": refused.kind, "text": str(refused)}})
        except (KeyError, TypeError, ValueError) as error:
            text = f"malformed request: {type(error).__name__}: {error}"
            client.send({"n": number, "refused": {"kind": "spec", "text": text}})

    def forget_client(self, client: Client) -> None:
        """Nobody is there any more to hear these answers."""
        for table in (self._waiters, self._removers):
            for name in list(table):
                table[name] = [each for each in table[name] if each[0] is not client]

    def check_deadlines(self, now: float) -> None:
        """Gives up starts that hang."""
        for name, (deadline, _, _) in list(self.starting.items()):
            if now >= deadline:
                self.executions[name].late = True
                self._kill(name, signal.SIGKILL)

    def _run(self, client: Client, number: int, message: dict[str, Any]) -> None:
        if len(self.starting) >= STARTS_AT_ONCE:
            self._queue.append((client, message))
            return
        launch = message["launch"]
        name = launch["id"]
        if self.shutting_down:
            raise Refused("launcher", "the launcher is shutting down")
        if not name or len(name) > 100 or not _ID_CHARACTERS.issuperset(name):
            raise Refused("spec", f"{name!r} is not an execution id")
        if name in self.executions:
            raise Refused("spec", f"execution {name} exists already")
        execution = Execution(self._machine, name)
        namespace = self._namespace(launch)
        try:
            execution.start(self._machine, launch, namespace)
        except OSError as error:
            self._abandon(execution, namespace)
            kind = "space" if error.errno in (28, 122) else "machine"
            where = f": {error.filename}" if error.filename else ""
            raise Refused(kind, f"starting execution {name}: {(error.strerror or str(error)).lower()}{where}") from None
        except (KeyError, TypeError, ValueError):
            self._abandon(execution, namespace)
            raise
        except Refused:
            if namespace and self._bridge:
                self._bridge.discard(namespace)
            raise
        if namespace:
            namespace.close()
        self.executions[name] = execution
        self.running.add(name)
        self.starting[name] = (time.monotonic() + START_SECONDS, client, number)
        self._watch(execution.report, partial(self._reported, name))
        self._watch(execution.pidfd, partial(self._ended, name))
        for output in execution.outputs:
            self._watch(output.pipe, partial(self._output, output))

    def _namespace(self, launch: dict[str, Any]) -> Namespace | None:
        if launch["network"] != "bridge" or self._bridge is None:
            return None
        try:
            return self._bridge.claim()
        except OSError as error:
            raise Refused("machine", f"making a network namespace: {error.strerror or error}") from None

    def _abandon(self, execution: Execution, namespace: Namespace | None) -> None:
        """Undoes a start that failed before the fork."""
        if namespace and self._bridge:
            self._bridge.discard(namespace)
        execution.discard(self._machine)
        self.dirty = True

    def _output(self, output: Output) -> None:
        if output.pump() == 0:
            self._forget(output.pipe)

    def _reported(self, name: str, ended: bool = False) -> None:
        execution = self.executions[name]
        if not execution.reported() and not ended:
            return
        self._forget(execution.report)
        refused = execution.outcome()
        _, client, number = self.starting.pop(name)
        if refused is None:
            client.send({"n": number, "pid": execution.pid, "address": execution.address})
        else:
            # The answer goes out when the process has ended: from then on the id is free again.
            self._refusals[name] = (client, {"n": number, "refused": {"kind": refused.kind, "text": str(refused)}})
        while self._queue and len(self.starting) < STARTS_AT_ONCE:
            self.handle(*self._queue.pop(0))

    def _ended(self, name: str) -> None:
        execution = self.executions[name]
        if execution.report >= 0:
            self._reported(name, ended=True)
        for descriptor in (execution.pidfd, *(output.pipe for output in execution.outputs)):
            self._forget(descriptor)
        execution.reap(self._machine)
        self.running.discard(name)
        if execution.address and self._bridge:
            self._bridge.give_back(execution.address)
        removers = self._removers.pop(name, [])
        if removers or not execution.started:
            self._discard(execution)
        elif not self._machine.cgroups.remove(name):
            self.dirty = True
        if name in self._refusals:
            client, answer = self._refusals.pop(name)
            client.send(answer)
        for client, number in self._waiters.pop(name, []):
            client.send({"n": number, "exit": execution.exit})
        for client, number in removers:
            client.send({"n": number})

    def _wait(self, client: Client, number: int, message: dict[str, Any]) -> None:
        execution = self._known(message["id"])
        if execution.exit is not None:
            client.send({"n": number, "exit": execution.exit})
        else:
            self._waiters.setdefault(execution.id, []).append((client, number))

    def _address(self, client: Client, number: int, message: dict[str, Any]) -> None:
        client.send({"n": number, "address": self._living(message["id"]).address})

    def _signal(self, client: Client, number: int, message: dict[str, Any]) -> None:
        execution = self._living(message["id"])
        if not 0 < message["signal"] <= 64:
            raise Refused("spec", f"{message['signal']} is not a signal")
        self._kill(execution.id, message["signal"])
        client.send({"n": number})

    def _kill(self, name: str, number: int) -> None:
        try:
            self.executions[name].kill(number)
        except OSError:
            return  # it has ended; its end is about to be handled

    def _ids(self, client: Client, number: int, message: dict[str, Any]) -> None:
        client.send({"n": number, "ids": {name: each.exit is None for name, each in self.executions.items()}})

    def _remove(self, client: Client, number: int, message: dict[str, Any]) -> None:
        execution = self._known(message["id"])
        if execution.exit is None:
            self._removers.setdefault(execution.id, []).append((client, number))
            self._kill(execution.id, signal.SIGKILL)
            return
        self._discard(execution)
        client.send({"n": number})

    def _discard(self, execution: Execution) -> None:
        self.executions.pop(execution.id, None)
        execution.discard(self._machine)
        self._machine.cgroups.remove(execution.id)
        self.dirty = True

    def _shut_down(self, client: Client, number: int, message: dict[str, Any]) -> None:
        self.shutting_down = True
        for name in self.running:
            self._kill(name, signal.SIGKILL)

    def _known(self, name: str) -> Execution:
        execution = self.executions.get(name)
        if execution is None:
            raise Refused("unknown", f"no such execution: {name}")
        return execution

    def _living(self, name: str) -> Execution:
        execution = self._known(name)
        if execution.exit is not None:
            raise Refused("state", f"execution {name} is not running")
        return execution


_OPERATIONS = {
    "run": Requests._run,
    "address": Requests._address,
    "wait": Requests._wait,
    "kill": Requests._signal,
    "ids": Requests._ids,
    "remove": Requests._remove,
    "shutdown": Requests._shut_down,
}
