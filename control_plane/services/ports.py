"""What the services need of the outside, as Protocols. `compose.py` supplies the real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from control_plane.errors import Conflict
from control_plane.model import Container, Volume


class AgentUnreachable(Conflict):
    """409: no agent of the container is connected (and none redialled within the wait)."""


class Stream(Protocol):
    """The client half of a stream (docs/wire-protocol.md, section 3), as the control plane uses it."""

    async def result(self) -> dict[str, Any]:
        """Waits for the kind's JSON result. Raises DockerError from the agent's `error`."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """Payload as it comes, until the agent's `eof` or `exit`. Raises DockerError from the agent's `error`."""
        ...

    async def send(self, data: bytes) -> None:
        """Sends payload; waits while the window is full."""
        ...

    async def send_eof(self) -> None:
        """No more payload from us."""
        ...

    async def close(self) -> None:
        """Detaches. Safe to call twice."""
        ...


class Agents(Protocol):
    """Reaches containers' agents through their gateway's relay."""

    async def open(self, container: Container, kind: str, params: Mapping[str, Any]) -> Stream:
        """Opens a stream. Raises AgentUnreachable when no agent is connected (after a short wait for a redial)."""
        ...

    async def call(self, container: Container, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """One request over the link. Raises AgentUnreachable, or DockerError with the agent's status and text."""
        ...

    async def call_at(
        self, url: str, container: Container, method: str, params: Mapping[str, Any], timeout: float
    ) -> dict[str, Any]:
        """One call to the gateway at `url`, which may not have the container's agent. Raises DockerError."""
        ...


class Blobs(Protocol):
    """Keeps archives put into containers that have no agent yet (object storage)."""

    async def put(self, key: str, content: AsyncIterator[bytes]) -> int:
        """Stores and returns the size in bytes. Raises Unavailable; nothing is kept of a broken upload."""
        ...

    def get(self, key: str) -> AsyncIterator[bytes]:
        """The bytes. Raises NotFound."""
        ...

    async def delete(self, key: str) -> None:
        """Repeatable."""
        ...


class VolumeStorage(Protocol):
    """The cloud's side of a volume (a bucket prefix, an NFS directory)."""

    async def create(self, volume: Volume) -> None:
        """Makes it mountable. Repeatable."""
        ...

    async def remove(self, volume: Volume) -> None:
        """Deletes it and what is in it. Repeatable."""
        ...

    def mountpoint(self, volume: Volume) -> str:
        """The text `docker volume inspect` shows as Mountpoint, e.g. `gs://bucket/volumes/tenant/name`."""
        ...
