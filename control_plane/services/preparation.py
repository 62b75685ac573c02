"""What a platform has to make before a container's first start, made in the background from its create on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from control_plane.backends.base import Backend
from control_plane.model import Container, Image
from control_plane.services.background import Background
from control_plane.services.moves import Beside, alone
from control_plane.services.records import Records


class Preparation:
    """What a crash loses of it the start makes up for: backends do then what has not been done."""

    def __init__(
        self,
        containers: Records[Container],
        backends: Mapping[str, Backend],
        agent_token: Callable[[Container], str],
        background: Background,
        beside: Beside = alone,
    ) -> None:
        self._containers = containers
        self._backends = backends
        self._agent_token = agent_token
        self._background = background
        self._beside = beside

    def begin(self, container: Container, image: Image) -> None:
        """Returns at once; failures are told by the start."""
        self._background.spawn(self._prepare(container, image), f"prepare {container.id[:12]}")

    async def _prepare(self, container: Container, image: Image) -> None:
        backend = self._backends[container.backend]
        try:
            token = self._agent_token(container)
            await backend.prepare(container, image, token, gateways=await self._beside(container))
        finally:
            # Removed meanwhile: what came into being after the removal has nobody else to free it but the sweep.
            if await self._containers.get(container.tenant, container.id) is None:
                await backend.remove(container)
