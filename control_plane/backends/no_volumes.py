"""The volumes of an endpoint whose backends have none."""

from __future__ import annotations

from control_plane.errors import NotServed
from control_plane.model import Volume


class NoVolumes:
    """`ports.VolumeStorage` that refuses: nothing is recorded that could never be mounted."""

    async def create(self, volume: Volume) -> None:
        """Raises NotServed."""
        raise NotServed(
            "this endpoint has no volumes: its backends (Azure Functions) cannot mount any. "
            "Copy files in with `docker cp`, or use an endpoint with a Google Cloud backend"
        )

    async def remove(self, volume: Volume) -> None:
        """Of an earlier deployment with another backend: the record goes, what it stood for is not ours to reach."""

    def mountpoint(self, volume: Volume) -> str:
        """Nowhere."""
        return ""
