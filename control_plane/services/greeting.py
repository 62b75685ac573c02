"""What an agent is told when its link comes up. Pure.

The file system lives and dies with the agent's process (`boot`). One process per run may hold the container: whoever
else turns up (a retried task, a late redial of an execution given up) is told to shut down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from control_plane.model import AgentLink, Container
from control_plane.services.reports import Exited, apply_report

Action = Literal["start", "wait", "resume", "shutdown"]

LOST = 137
"""Exit code of a run whose agent's process was lost."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The agent's first message (docs/wire-protocol.md, section 2)."""

    boot: str
    run: int
    running: bool
    gateway: str
    at: str
    now: float
    token_run: int = 0
    """The run its token was made for; 0: any."""
    instance: str = ""
    link: int = 0


def greet(container: Container, hello: Hello, *, in_place: bool = False) -> tuple[Container, Action]:
    """The container with its link recorded, and what the agent is to do.

    `in_place`: `Capabilities.restarts_in_place` of its platform.
    """
    state, known = container.state, container.agent
    if state.status in {"removing", "dead"} or hello.run > state.run:
        return container, "shutdown"
    if container.execution is not None and container.execution.agentless:
        return container, "shutdown"
    if known is not None and known.boot == hello.boot:
        if hello.link < known.link:
            return container, "wait"  # it has dialled again since, and been heard already
        return _linked(container, hello), _known_agent(container, hello)
    if not in_place and hello.token_run not in (0, state.run):
        # Its token is an earlier run's: not what this run was given. (A platform that starts the same process again
        # gives it the same token again.)
        return container, "shutdown"
    if hello.run != 0:
        # It ran something, and another process has taken its place since; or nobody remembers it.
        return container, "shutdown"
    return _new_agent(container, hello, in_place=in_place)


def _known_agent(container: Container, hello: Hello) -> Action:
    if container.state.status == "starting" and hello.run < container.state.run:
        return "wait" if hello.running else "start"
    return "resume"


def _new_agent(container: Container, hello: Hello, *, in_place: bool) -> tuple[Container, Action]:
    state, known = container.state, container.agent
    rival = known is not None and known.connected and not in_place
    if state.status == "starting" and not rival:
        return _linked(container, hello), "start"
    if state.status in {"running", "paused"} and not rival:
        # The platform has started the task anew: the old process and its file system are gone.
        lost = Exited(state.run, LOST, hello.at, hello.now, error="the agent's process was lost")
        return apply_report(container.model_copy(update={"agent": None}), lost), "shutdown"
    return container, "shutdown"


def _linked(container: Container, hello: Hello) -> Container:
    link = AgentLink(boot=hello.boot, gateway=hello.gateway, connected=True, instance=hello.instance, link=hello.link)
    return container if container.agent == link else container.model_copy(update={"agent": link})
