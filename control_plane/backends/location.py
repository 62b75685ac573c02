"""Where a volume or a bind mount is taken from, in the words of the clouds' own mounts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import quote, urlsplit

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
