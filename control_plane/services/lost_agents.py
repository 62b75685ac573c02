"""What is left of a run whose agent is gone: its execs are over, and whoever waits for its output is told."""

from __future__ import annotations

from control_plane.model import Container
from control_plane.services.background import Background
from control_plane.services.execs import Execs
from control_plane.services.ports import Agents


class LostAgents:
    """Without it the clients of such streams would wait until the relay's patience with a redial ends."""

    def __init__(self, execs: Execs, agents: Agents, background: Background) -> None:
        self._execs = execs
        self._agents = agents
        self._background = background

    def follow(self, container: Container) -> None:
        """Ends what belonged to the run, in the background."""
        self._background.spawn(self._end(container), f"end what waits for {container.id[:12]}")

    async def _end(self, container: Container) -> None:
        # The execs first: their clients ask for the exit code as soon as their stream ends.
        await self._execs.end_all(container)
        message = f"the agent of container {container.id} is gone"
        await self._agents.call(container, "end", {"message": message})
