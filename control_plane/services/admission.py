"""What create and update ask before a container is made or resized; where there are no policies, nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from control_plane.auth.policy import Wanted


class Admission(Protocol):
    """The bounds of tenants."""

    async def admit(self, tenant: str, wanted: Wanted, platform_limit: int) -> int:
        """Seconds after which a run of it is ended. Raises Forbidden."""
        ...

    async def check_size(self, tenant: str, limits: Mapping[str, Any]) -> None:
        """For `docker update`. Raises Forbidden."""
        ...

    def room(self, tenant: str) -> AbstractAsyncContextManager[None]:
        """Around the making of one more container. Raises TooMany."""
        ...


class NoBounds:
    """The embedded endpoint's: one tenant, on its own machine."""

    async def admit(self, tenant: str, wanted: Wanted, platform_limit: int) -> int:
        """The platform's limit."""
        return platform_limit

    async def check_size(self, tenant: str, limits: Mapping[str, Any]) -> None:
        """Any."""

    @asynccontextmanager
    async def room(self, tenant: str) -> AsyncIterator[None]:
        """Always."""
        yield
