"""The functions of an endpoint as the store has them: whose each is, and which are ready to be claimed."""

from __future__ import annotations

from typing import Protocol

from control_plane.model import CloudFunction


class FunctionRecords(Protocol):
    """Every change of an owner is a compare-and-set: of two who claim a function one gets it."""

    async def of(self, tenant: str, container: str) -> CloudFunction | None:
        """The function that was claimed by, or made for, this container."""
        ...

    async def claim(self, tenant: str, shape: str, container: str) -> CloudFunction | None:
        """One that is ready, now this container's; None when there is none."""
        ...

    async def put(self, function: CloudFunction) -> None:
        """Keeps a new one, or what its owner changed."""
        ...

    async def release(self, function: CloudFunction) -> bool:
        """Makes it ready again; False when it is gone, or not that container's any more."""
        ...

    async def ready(self, tenant: str, shape: str) -> int:
        """How many can be claimed."""
        ...

    async def forget(self, function: CloudFunction) -> None:
        """Deletes the record; a missing one is no error."""
        ...

    async def all(self) -> list[CloudFunction]:
        """Those of every tenant."""
        ...
