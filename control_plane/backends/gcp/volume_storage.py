"""The cloud's side of Docker volumes: a prefix of a bucket, or a directory of an NFS export."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from control_plane.backends.gcp.calls import CloudError, docker_errors
from control_plane.backends.gcp.storage import ONCE, ObjectStorage
from control_plane.errors import ServerError
from control_plane.model import Volume

_FOLDER = "volumes"


@dataclass(frozen=True, slots=True)
class Location:
    """A place that Cloud Run can mount: `gs://bucket/path` or `nfs://server/path`."""

    scheme: Literal["gs", "nfs"]
    host: str
    """Bucket, or NFS server."""
    path: str
    """Without leading or trailing slash; empty for the whole bucket or export root."""

    @classmethod
    def parse(cls, text: str) -> Location:
        """Raises ValueError, naming what is wrong."""
        parts = urlsplit(text)
        if parts.scheme not in ("gs", "nfs"):
            raise ValueError(f"{text!r}: must begin with nfs:// or gs://")
        if not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError(f"{text!r}: must be scheme://{'bucket' if parts.scheme == 'gs' else 'server'}/path")
        pieces = PurePosixPath(parts.path.strip("/")).parts
        if ".." in pieces:
            raise ValueError(f"{text!r}: must not contain '..'")
        return cls("gs" if parts.scheme == "gs" else "nfs", parts.netloc, "/".join(pieces))

    def below(self, *names: str) -> Location:
        """The place `names` deeper."""
        return Location(self.scheme, self.host, "/".join(part for part in (self.path, *names) if part))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}/{self.path}".rstrip("/")


def volume_location(root: Location, tenant: str, name: str) -> Location:
    """Where a tenant's volume lies below the root of all volumes. Tenant and name cannot leave their folder."""
    return root.below(_FOLDER, _folder_name(tenant), _folder_name(name))


def _folder_name(text: str) -> str:
    named = quote(text, safe="")
    return named.replace(".", "%2E") if set(named) <= {"."} else named


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
