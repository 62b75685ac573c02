"""What is in an archive that passes by: Docker's PathStat of every entry, for `stat` before the container's start."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import AsyncIterator, Mapping
from typing import Any

from control_plane.errors import InvalidParameter
from control_plane.services.tar_entries import TarEntries
from control_plane.timestamps import rfc3339

DIRECTORY = 1 << 31
SYMLINK = 1 << 27
_GO_TYPE_BITS = {
    tarfile.SYMTYPE: SYMLINK,
    tarfile.CHRTYPE: 1 << 26 | 1 << 21,
    tarfile.BLKTYPE: 1 << 26,
    tarfile.DIRTYPE: DIRECTORY,
    tarfile.FIFOTYPE: 1 << 25,
}
"""Type flag → Go's `os.FileMode` type bits, which PathStat shows."""
_GO_MODE_BITS = {0o4000: 1 << 23, 0o2000: 1 << 22, 0o1000: 1 << 20}
_MOST_ENTRIES = 500
_LATEST = 253_402_300_799
"""The last second of the year 9999."""

Entry = list[Any]
"""[Go mode, size, mtime, link target]."""


class TarIndex:
    """Feed it the tar in any pieces; `entries` is None when there are more than fit a container's document."""

    def __init__(self, limit: int = _MOST_ENTRIES) -> None:
        self._parser = TarEntries()
        self._limit = limit
        self.entries: dict[str, Entry] | None = {}
        """By path without leading slash, `.` for the root."""

    def feed(self, data: bytes) -> None:
        """The next bytes. Raises InvalidParameter when they are no tar."""
        for item in self._parser.feed(data):
            if isinstance(item, tarfile.TarInfo):
                self._remember(item)

    def finish(self) -> None:
        """The tar has ended. Raises InvalidParameter when it ended within an entry."""
        self._parser.finish()

    def _remember(self, info: tarfile.TarInfo) -> None:
        if self.entries is None:
            return
        if len(self.entries) >= self._limit:
            self.entries = None
            return
        mode = _GO_TYPE_BITS.get(info.type, 0) | (info.mode & 0o777)
        for bit, go_bit in _GO_MODE_BITS.items():
            mode |= go_bit if info.mode & bit else 0
        target = _printable(info.linkname) if info.issym() else ""
        self.entries[_printable(entry_path(info))] = [mode, info.size, int(info.mtime), target]


def entry_path(info: tarfile.TarInfo) -> str:
    """The entry's path below the extraction point: relative, without `..`; `.` for the point itself."""
    return posixpath.normpath("/" + info.name.lstrip("/")).lstrip("/") or "."


def path_stat(name: str, entry: Entry) -> dict[str, Any]:
    """Docker's PathStat."""
    mode, size, mtime, target = entry
    at = rfc3339(max(0, min(int(mtime), _LATEST)) * 1_000_000_000)
    return {"name": name, "size": size, "mode": mode, "mtime": at, "linkTarget": target}


def directory_stat(name: str) -> dict[str, Any]:
    """PathStat of a directory that Docker makes because something is to be in it."""
    return path_stat(name, [DIRECTORY | 0o755, 4096, 0, ""])


def find_entry(index: Mapping[str, Entry], path: str) -> dict[str, Any] | None:
    """PathStat of `path` in the index, directories without an entry of their own included."""
    entry = index.get(path)
    if entry is not None:
        return path_stat(posixpath.basename(path), entry)
    if any(known.startswith(path + "/") for known in index):
        return directory_stat(posixpath.basename(path))
    return None


async def indexed(index: TarIndex, tar: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """The tar, while `index` reads it. Raises InvalidParameter when it is none, breaks off, or exceeds `limit`."""
    total = 0
    async for chunk in tar:
        total += len(chunk)
        if total > limit:
            raise InvalidParameter(f"the archive is larger than {limit} bytes: start the container, then copy")
        index.feed(chunk)
        yield chunk
    index.finish()


def _printable(text: str) -> str:
    return text.encode(errors="replace").decode()
