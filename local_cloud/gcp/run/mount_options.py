"""gcsfuse's mount options of a bucket volume, as far as a plain directory can have them.

Facts: cloud.google.com/run/docs/configuring/jobs/cloud-storage-volume-mounts and the gcsfuse CLI reference. gcsfuse
shows every file with one mode and owner. Here a directory stands for the bucket: what is in it when the volume is
mounted gets that mode and owner (every mount of the bucket sees it so); what containers create later has what they
give it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from local_cloud.errors import invalid, unserved

_FULFILLED = ("implicit-dirs", "implicit-dirs=true")
"""What a directory does anyway."""
_LARGEST_ID = 2**32 - 2


@dataclass(frozen=True, slots=True)
class MountOptions:
    """The options of one volume; None where an option was not given."""

    only_dir: str = ""
    file_mode: int | None = None
    dir_mode: int | None = None
    uid: int | None = None
    gid: int | None = None

    def apply(self, directory: Path) -> None:
        """Gives what is in the directory its modes and owners. Raises OSError."""
        if (self.file_mode, self.dir_mode, self.uid, self.gid) == (None, None, None, None):
            return
        for _, folders, files, at in os.fwalk(directory, follow_symlinks=False):
            for name in (*folders, *files):
                self._apply(name, at)
        self._apply(str(directory), None)

    def _apply(self, name: str, at: int | None) -> None:
        """By descriptor: a container may put a link in a file's place at any moment, and links are left alone."""
        try:
            if not _wanted(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                return  # opening a device or a pipe may have consequences
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOENT):
                return
            raise
        try:
            found = os.fstat(descriptor)
            if not _wanted(found.st_mode):
                return
            owner = (found.st_uid if self.uid is None else self.uid, found.st_gid if self.gid is None else self.gid)
            if owner != (found.st_uid, found.st_gid):
                os.fchown(descriptor, *owner)
            mode = self.dir_mode if stat.S_ISDIR(found.st_mode) else self.file_mode
            if mode is not None and stat.S_IMODE(found.st_mode) != mode:
                os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)


def _wanted(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def parse(options: Iterable[str], path: str) -> MountOptions:
    """Raises ServiceError INVALID_ARGUMENT, or UNIMPLEMENTED for an option that a directory cannot have."""
    given: dict[str, str] = {}
    for option in options:
        name, _, value = option.partition("=")
        if name in ("only-dir", "file-mode", "dir-mode", "uid", "gid"):
            given[name] = value
        elif option not in _FULFILLED:
            unserved(f"{path}: the mount option '{option}'.")
    only_dir = given.get("only-dir", "")
    relative = PurePosixPath(only_dir)
    if relative.is_absolute() or ".." in relative.parts or "\0" in only_dir:
        invalid(f"{path}: '{only_dir}' must be a relative path without '..'.")
    return MountOptions(
        only_dir=only_dir,
        file_mode=_number(given, "file-mode", 8, 0o777, path),
        dir_mode=_number(given, "dir-mode", 8, 0o777, path),
        uid=_number(given, "uid", 10, _LARGEST_ID, path),
        gid=_number(given, "gid", 10, _LARGEST_ID, path),
    )


def _number(given: dict[str, str], name: str, base: int, most: int, path: str) -> int | None:
    """gcsfuse takes -1 as "not given" for uid and gid."""
    if name not in given or (base == 10 and given[name] == "-1"):
        return None
    text = given[name]
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if not 0 <= number <= most or not text.isascii():
        invalid(
            f"{path}: '{name}={text}' must be a number from 0 to {most:o}."
            if base == 8
            else f"{path}: '{name}={text}' must be a number from 0 to {most}."
        )
    return number
