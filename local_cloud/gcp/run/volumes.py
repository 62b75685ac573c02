"""Volumes of a task: which ones are taken, and the directories that stand for them.

- `empty_dir`: a fresh directory per attempt on this machine's disk; its size limit is checked for form, not enforced.
- `gcs`: the bucket's directory in the storage stand-in, with gcsfuse's mount options of `mount_options.py`.
- `nfs`: this machine's own file system is the export of the servers named in `Options.nfs_servers`.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from local_cloud.errors import invalid, unserved
from local_cloud.gcp.run import mount_options
from local_cloud.gcp.storage.model import Buckets

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SIZE = re.compile(r"\d{1,12}(?:\.\d{1,9})?(?:k|M|G|T|Ki|Mi|Gi|Ti)?")


class VolumeMissingError(Exception):
    """A volume's source does not exist when the task starts."""


@dataclass(frozen=True, slots=True)
class Bind:
    """One directory of this machine at a path of the container."""

    source: Path
    target: str
    read_only: bool


def check(template: Any, nfs_servers: tuple[str, ...], at: str = "template.template") -> None:
    """Checks a template's volumes and mounts; raises ServiceError INVALID_ARGUMENT or UNIMPLEMENTED."""
    names: set[str] = set()
    for number, volume in enumerate(template.volumes):
        path = f"{at}.volumes[{number}]"
        if not _NAME.fullmatch(volume.name) or volume.name in names:
            invalid(f"{path}.name: '{volume.name}' is not a unique DNS label.")
        names.add(volume.name)
        _check_source(volume, path, nfs_servers)
    for container in template.containers:
        targets: set[str] = set()
        for number, mount in enumerate(container.volume_mounts):
            path = f"{at}.containers[0].volume_mounts[{number}]"
            if mount.name not in names:
                invalid(f"{path}.name: The volume '{mount.name}' is not defined.")
            target = PurePosixPath(mount.mount_path)
            if not target.is_absolute() or ".." in target.parts or ":" in mount.mount_path or len(target.parts) < 2:
                invalid(f"{path}.mount_path: '{mount.mount_path}' must be an absolute path without ':' or '..'.")
            if str(target) in targets:
                invalid(f"{path}.mount_path: '{mount.mount_path}' is mounted twice.")
            targets.add(str(target))
            _relative(mount.sub_path, f"{path}.sub_path")


def _check_source(volume: Any, path: str, nfs_servers: tuple[str, ...]) -> None:
    kind = volume.WhichOneof("volume_type")
    if kind is None:
        invalid(f"{path}: exactly one volume source must be set.")
    if kind in ("secret", "cloud_sql_instance"):
        unserved(f"{path}: volumes of type {kind}.")
    if kind == "empty_dir" and volume.empty_dir.size_limit and not _SIZE.fullmatch(volume.empty_dir.size_limit):
        invalid(f"{path}.empty_dir.size_limit: Could not parse '{volume.empty_dir.size_limit}' as a quantity.")
    if kind == "gcs":
        Buckets.check_bucket_name(volume.gcs.bucket)
        mount_options.parse(volume.gcs.mount_options, f"{path}.gcs.mount_options")
    if kind == "nfs":
        if volume.nfs.server not in nfs_servers:
            unserved(
                f"{path}.nfs.server: '{volume.nfs.server}'; this machine is the only NFS server: "
                f"{', '.join(nfs_servers)}."
            )
        export = PurePosixPath(volume.nfs.path)
        if not export.is_absolute() or ".." in export.parts:
            invalid(f"{path}.nfs.path: '{volume.nfs.path}' must be an absolute path.")


def _relative(text: str, path: str) -> PurePosixPath:
    relative = PurePosixPath(text)
    if relative.is_absolute() or ".." in relative.parts or "\0" in text:
        invalid(f"{path}: '{text}' must be a relative path without '..'.")
    return relative


def _below(directory: Path, relative: str, name: str) -> Path:
    """A directory inside another, made when missing; a link that leads out of it is not followed."""
    inner = (directory / relative).resolve()
    if not inner.is_relative_to(directory.resolve()):
        raise VolumeMissingError(f"mounting volume '{name}' failed: {relative} leads out of the volume.")
    inner.mkdir(parents=True, exist_ok=True)
    return inner


class Volumes:
    """Makes the binds of one attempt, and clears up after it."""

    def __init__(self, buckets: Buckets, scratch: Path) -> None:
        self._buckets = buckets
        self._scratch = scratch

    def binds(self, task: Any, attempt: str) -> tuple[Bind, ...]:
        """The binds for a Task message; raises VolumeMissingError when a bucket or an export is not there."""
        sources: dict[str, tuple[Path, bool]] = {volume.name: self._source(volume, attempt) for volume in task.volumes}
        binds = []
        for mount in task.containers[0].volume_mounts:
            source, read_only = sources[mount.name]
            if mount.sub_path:
                source = _below(source, mount.sub_path, mount.name)
            binds.append(Bind(source, mount.mount_path, read_only))
        return tuple(binds)

    def clear(self, attempt: str) -> None:
        """Removes an attempt's empty_dir volumes."""
        directory = self._scratch / attempt
        if directory.exists():
            shutil.rmtree(directory, ignore_errors=True)

    def _source(self, volume: Any, attempt: str) -> tuple[Path, bool]:
        kind = volume.WhichOneof("volume_type")
        if kind == "empty_dir":
            directory = self._scratch / attempt / volume.name
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o777)
            return directory, False
        if kind == "nfs":
            export = Path(volume.nfs.path)
            if not export.exists():
                raise VolumeMissingError(
                    f"mounting volume '{volume.name}' failed: nfs export {volume.nfs.path} does not exist."
                )
            return export, volume.nfs.read_only
        return self._bucket_directory(volume), volume.gcs.read_only

    def _bucket_directory(self, volume: Any) -> Path:
        directory = self._buckets.directory(volume.gcs.bucket)
        if directory is None:
            raise VolumeMissingError(
                f"mounting volume '{volume.name}' failed: bucket {volume.gcs.bucket} does not exist."
            )
        options = mount_options.parse(volume.gcs.mount_options, "mount_options")
        if options.only_dir:
            directory = _below(directory, options.only_dir, volume.name)
        try:
            options.apply(directory)
        except OSError as error:
            raise VolumeMissingError(
                f"mounting volume '{volume.name}' failed: {error.filename}: {error.strerror}."
            ) from None
        return directory
