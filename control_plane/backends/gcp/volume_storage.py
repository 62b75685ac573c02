"""The cloud's side of Docker volumes: a prefix of a bucket, or a directory of an NFS export."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

from control_plane.backends.calls import CloudError, docker_errors
from control_plane.backends.gcp.storage import ONCE, ObjectStorage
from control_plane.backends.location import Location, volume_location
from control_plane.errors import ServerError
from control_plane.model import Volume


class BucketVolumes:
    """`ports.VolumeStorage` on a bucket: a volume is the prefix `volumes/<tenant>/<name>/`."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage
        self.root = Location("gs", storage.bucket_name, "")

    async def create(self, volume: Volume) -> None:
        """Puts the folder's marker object, so that the prefix can be mounted while it is empty. Repeatable."""
        marker = volume_location(self.root, volume.tenant, volume.name).path + "/"

        def put(bucket: Any) -> None:
            bucket.blob(marker).upload_from_string(b"", content_type="application/x-directory", **ONCE)

        with docker_errors():
            await self._storage.do("creating the volume", put)

    async def remove(self, volume: Volume) -> None:
        """Deletes every object below the prefix. Repeatable."""
        prefix = volume_location(self.root, volume.tenant, volume.name).path + "/"

        def delete_all(bucket: Any) -> None:
            for blob in list(bucket.list_blobs(prefix=prefix, **ONCE)):
                _delete(blob)

        with docker_errors():
            try:
                await self._storage.do("removing the volume", delete_all)
            except CloudError as error:
                if error.code != "NOT_FOUND":
                    raise

    def mountpoint(self, volume: Volume) -> str:
        """`gs://bucket/volumes/tenant/name`."""
        return str(volume_location(self.root, volume.tenant, volume.name))


def _delete(blob: Any) -> None:
    from google.api_core.exceptions import NotFound

    try:
        blob.delete(**ONCE)
    except NotFound:
        return


class NfsVolumes:
    """`ports.VolumeStorage` on an NFS export: a volume is the directory `volumes/<tenant>/<name>`.

    The directory must exist before Cloud Run can mount it, so the control plane itself has the export mounted,
    at `mounted_at`.
    """

    def __init__(self, root: Location, mounted_at: Path) -> None:
        self.root = root
        self._mounted_at = mounted_at

    async def create(self, volume: Volume) -> None:
        """Makes the directory. Repeatable. Raises ServerError."""
        await self._change("create", lambda: self._directory(volume).mkdir(mode=0o755, parents=True, exist_ok=True))

    async def remove(self, volume: Volume) -> None:
        """Removes the directory with what is in it. Repeatable. Raises ServerError."""
        directory = self._directory(volume)

        def remove() -> None:
            if directory.is_dir():
                shutil.rmtree(directory)

        await self._change("remove", remove)

    def mountpoint(self, volume: Volume) -> str:
        """`nfs://server/export/volumes/tenant/name`."""
        return str(volume_location(self.root, volume.tenant, volume.name))

    def _directory(self, volume: Volume) -> Path:
        relative = volume_location(Location("nfs", "x", ""), volume.tenant, volume.name).path
        return self._mounted_at / relative

    async def _change(self, verb: str, work: Any) -> None:
        try:
            await asyncio.to_thread(work)
        except OSError as error:
            raise ServerError(
                f"the volume's directory cannot be {verb}d: {error.strerror or error}", internal=str(error)
            ) from error
