"""What a backend is: the mapping of one container onto one cloud's run of it.

Backends know Docker's container document and the cloud's API, nothing of HTTP or the store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from control_plane.model import Container, Execution, Image, Mount


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the platform can do, with the reason for each no. `docs/compatibility.md` is made from it."""

    name: str
    title: str
    max_run_seconds: int
    refused_options: dict[str, str] = field(default_factory=dict)
    """Docker option (`HostConfig.Privileged`) → why it cannot be served."""
    differences: dict[str, str] = field(default_factory=dict)
    """Docker command or behaviour (`docker start`) → how it differs here from the other backends, and why."""
    agentless: bool = True
    """Can run the user's own command without the agent, when no agent ever connects."""
    restarts_in_place: bool = False
    """The platform starts the process of a running container anew when it has ended, in the container's place: an agent
    with another boot is the successor of one that is gone, not its rival."""
    enforces_limit: bool = True
    """The platform itself ends a run at `max_run_seconds`; else the agent does, from the start of the process on."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How an execution stands in the cloud's own records."""

    finished: bool
    exit_code: int | None = None
    """From the task's last attempt where the platform has it."""
    error: str = ""
    """The platform's text when it failed without an exit code (image not pullable, quota, …)."""
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line from the platform's log archive."""

    at: int
    """Unix nanoseconds."""
    stream: str
    """`stdout` or `stderr`."""
    text: bytes
    """As the process wrote it, with its newline; without one where the process had not ended the line."""
    insert_id: str


@dataclass(frozen=True, slots=True)
class PlatformMount:
    """Where the platform mounts what a bind or volume of the container is taken from (the launch spec's `mounts`)."""

    source: str
    """`/.sockerless/volumes/<n>`: the distinct platform volumes in order of first use in `container.mounts`."""
    subpath: str
    """Below `source`, without leading or trailing slash; empty for the whole of it."""
    mount: Mount


Ended = Callable[[str, str], None]
"""Tenant and container id; must not block."""


class Backend(Protocol):
    """One container platform."""

    @property
    def capabilities(self) -> Capabilities:
        """What the platform can do."""
        ...

    def check(self, container: Container) -> list[str]:
        """Refuses at create what cannot be served.

        Raises InvalidParameter or NotServed, naming the option and the way out. Returns warnings for `docker create`'s
        `Warnings`.
        """
        ...

    async def check_image(self, container: Container, image: Image) -> None:
        """Refuses at create what `run` would refuse at start because of the image. Starts and stores nothing.

        Raises NotServed, naming the reason and the way out.
        """
        ...

    def platform_mounts(self, container: Container) -> list[PlatformMount]:
        """One entry per bind and volume of `container.mounts`, in their order (tmpfs mounts are the agent's alone).

        A bind's platform volume is the bind rule it falls under, a named volume is its own. Pure; raises as `check`.
        """
        ...

    def follow(self, ended: Ended) -> None:
        """Who is told when this process learns, unasked, that the platform has ended an execution or refused it."""
        ...

    async def prepare(
        self, container: Container, image: Image, agent_token: str, *, gateways: Sequence[str] = ()
    ) -> None:
        """Makes in the cloud what a start of a new container needs, in the background after create. Repeatable.

        `run` waits for it, or does what it has not done. Raises DockerError, which `run` will raise too.
        `gateways` as for `run`.
        """
        ...

    async def run(
        self,
        container: Container,
        image: Image,
        agent_token: str,
        *,
        agentless: bool = False,
        recovering: bool = False,
        gateways: Sequence[str] = (),
    ) -> Execution:
        """Starts an execution and returns as soon as the cloud accepted it. Idempotent for (container, state.run).

        `agentless` runs the user's own command without the agent: the way out when no agent ever connected.
        `recovering` says that a process that is gone may have asked for this run already: its execution is looked for
        first (a cloud read that the plain start is spared).
        `gateways` are URLs where the agent may dial when `container.gateway` is gone before it was ever welcome.
        """
        ...

    async def find(self, container: Container, image: Image) -> Execution | None:
        """The execution that the container's newest run was asked to be, when whoever asked died before it was
        recorded. A cloud read; starts nothing."""
        ...

    async def outcome(self, execution: Execution) -> RunOutcome:
        """Reads how an execution ended (one or two cloud calls; never on a Docker read path)."""
        ...

    async def cancel(self, execution: Execution) -> None:
        """Stops an execution whose agent cannot be reached. A finished or unknown one is no error."""
        ...

    async def hold(self, container: Container, *, gateways: Sequence[str] = ()) -> None:
        """The agent says that no request holds the platform's instance any more (docs/wire-protocol.md, section 8):
        asks for it again. Only where a run is a request; returns at once. `gateways` as for `run`."""
        ...

    async def rest(self, container: Container) -> None:
        """The container does not run and its agent is gone: stops what only a running container needs. Repeatable."""
        ...

    async def remove(self, container: Container) -> None:
        """Frees what was made for this container only, also when it was never started. Repeatable."""
        ...

    def logs(
        self, container: Container, *, since: int | None, until: int | None, tail: int | None, follow: bool
    ) -> AsyncIterator[LogLine]:
        """The archive's lines in order, stdout and stderr told apart. `since` and `until` are Unix nanoseconds.

        `tail` counts before `since` and `until` choose, as in moby.
        `follow` ends when the execution has ended and its tail is in.
        """
        ...

    async def sweep(self, known: set[str]) -> int:
        """Removes cloud resources labelled ours whose container is not in `known`, and idle templates.

        Returns how many.
        """
        ...

    async def close(self) -> None:
        """Ends followers and closes connections; executions go on."""
        ...
