"""The agent in a bucket, for injection `volume`: put there when it is missing, under the digest of its content.

A newer agent gets another place, so that one which is mounted by a running container never changes.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, Protocol

from control_plane.backends.calls import docker_errors
from control_plane.backends.gcp.storage import ObjectStorage
from control_plane.backends.location import Location

AGENT_FILE = "agent"
_DIGITS = 16


class AgentFiles(Protocol):
    """`registry.agent_binaries.AgentBinaries`, as far as it is needed here."""

    async def read(self, architecture: str) -> bytes:
        """The agent's executable file. Raises DockerError."""
        ...


class AgentVolume:
    """One place in one bucket: `<prefix>/linux-<arch>/<digest>/agent`."""

    def __init__(self, storage: ObjectStorage, place: Location, files: AgentFiles) -> None:
        self._storage = storage
        self._place = place
        self._files = files
        self._ready: dict[str, Location] = {}
        self._lock = asyncio.Lock()

    async def location(self, architecture: str) -> Location:
        """The directory that holds the agent; the first call of a process looks, and uploads what is missing.

        Raises DockerError when the agent cannot be had or the bucket cannot be written.
        """
        async with self._lock:
            found = self._ready.get(architecture)
            if found is None:
                binary = await self._files.read(architecture)
                digest = hashlib.sha256(binary).hexdigest()[:_DIGITS]
                found = self._place.below(f"linux-{architecture}", digest)
                name = found.below(AGENT_FILE).path
                with docker_errors():
                    await self._storage.do(
                        "putting the agent into its bucket", lambda bucket: _put(bucket, name, binary)
                    )
                self._ready[architecture] = found
            return found

    async def close(self) -> None:
        """Closes the connections."""
        await self._storage.close()


def _put(bucket: Any, name: str, binary: bytes) -> None:
    """Uploads unless it is there; whoever else does so at the same time puts the same bytes."""
    blob = bucket.get_blob(name, timeout=30.0, retry=None)
    if blob is not None and blob.size == len(binary):
        return
    bucket.blob(name).upload_from_string(binary, content_type="application/octet-stream", timeout=120.0, retry=None)
