"""A platform volume in the words of Cloud Run (`run_v2.Volume`), the same for jobs and services. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from control_plane.backends.binds import PlatformVolume


def run_volume(volume: PlatformVolume, mount_options: Sequence[str]) -> dict[str, Any]:
    """`run_v2.Volume` as a mapping; `mount_options` are gcsfuse's."""
    location = volume.location
    if location.scheme == "nfs":
        nfs = {"server": location.host, "path": f"/{location.path}", "read_only": volume.read_only}
        return {"name": volume.name, "nfs": nfs}
    options = list(mount_options)
    if location.path:
        options.append(f"only-dir={location.path}")
    return {
        "name": volume.name,
        "gcs": {"bucket": location.host, "read_only": volume.read_only, "mount_options": options},
    }
