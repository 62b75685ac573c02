"""Reading hostile tars: bounded memory, bounded size, whatever the headers say.

Python's tarfile believes header sizes; the reader it is given here does not.
"""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, Protocol

_HEADER_LIMIT = 4 * 1024 * 1024
"""Of one member's headers (long names, pax records, sparse maps)."""
_PIECE = 1024 * 1024
_TAIL = 1024
_XZ_MEMORY = 512 * 1024 * 1024


class ArchiveError(Exception):
    """The tar is broken or goes beyond the limits; the message is fit for users."""


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, nothing at the end."""
        ...


class ForwardReader:
    """A readable as the seekable file tarfile wants, going forward only, with a budget for headers."""

    def __init__(self, source: Readable, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._position = 0
        self._wanted = 0
        self._tail = b""
        self._budget = _HEADER_LIMIT

    def refill(self) -> None:
        """A new member begins: its headers have the whole budget."""
        self._budget = _HEADER_LIMIT

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, nothing at the end."""
        if size < 0 or size > self._budget:
            raise ArchiveError("archive/tar: header is too large")
        self._budget -= size
        return self._take(size)

    def data(self, size: int) -> bytes:
        """Up to `size` bytes of a member's content; not counted as headers."""
        return self._take(min(size, _PIECE))

    def _take(self, size: int) -> bytes:
        back = self._position - self._wanted
        head = b""
        if back > 0:
            if back > len(self._tail):
                raise ArchiveError("archive/tar: invalid tar header")
            head = self._tail[len(self._tail) - back :][:size]
            self._wanted += len(head)
        elif back < 0:
            self._skip(-back)
        rest = self._pull(size - len(head)) if size > len(head) else b""
        return head + rest

    def _pull(self, size: int) -> bytes:
        parts: list[bytes] = []
        missing = size
        while missing:
            piece = self._source.read(min(missing, _PIECE))
            if not piece:
                break
            parts.append(piece)
            missing -= len(piece)
            self._advance(piece)
        self._wanted = self._position
        return b"".join(parts)

    def _skip(self, count: int) -> None:
        while count:
            piece = self._source.read(min(count, _PIECE))
            if not piece:
                break
            count -= len(piece)
            self._advance(piece)
        self._wanted = self._position

    def _advance(self, piece: bytes) -> None:
        self._position += len(piece)
        if self._position > self._limit:
            raise ArchiveError(f"archive is larger than {self._limit} bytes unpacked")
        self._tail = (self._tail + piece)[-_TAIL:] if len(piece) < _TAIL else piece[-_TAIL:]

    def seek(self, position: int, whence: int = 0) -> int:
        """Where the next read begins; forward only, but for a few bytes."""
        if whence != 0:
            raise ArchiveError("archive/tar: invalid tar header")
        self._wanted = position
        return position

    def tell(self) -> int:
        """Where the next read begins."""
        return self._wanted


def members(reader: ForwardReader, count_limit: int) -> Iterator[tarfile.TarInfo]:
    """The members in order; content is read with `reader.data` after a `reader.seek(member.offset_data)`.

    Raises ArchiveError for whatever tarfile stumbles over.
    """
    try:
        with tarfile.open(fileobj=_as_file(reader), mode="r:", errorlevel=0) as tar:
            for count, member in enumerate(tar):
                if count >= count_limit:
                    raise ArchiveError(f"archive has more than {count_limit} files")
                if member.size < 0:
                    raise ArchiveError("archive/tar: invalid tar header")
                tar.members.clear()  # type: ignore[attr-defined]
                yield member
                reader.refill()
    except ArchiveError:
        raise
    except (tarfile.TarError, EOFError, ValueError, OverflowError, zlib.error, lzma.LZMAError, RecursionError) as error:
        raise ArchiveError(f"archive/tar: invalid tar header ({error})") from error
    except OSError as error:
        raise ArchiveError(f"archive cannot be read: {error}") from error
    except Exception as error:
        # zstandard has an error class of its own, which is not worth its import here.
        if type(error).__name__ != "ZstdError":
            raise
        raise ArchiveError(f"archive cannot be read: {error}") from error


def _as_file(reader: ForwardReader) -> Any:
    return reader


def normal_path(name: str) -> str | None:
    """A member's place below the root (`` for the root itself); None when it leads out of it."""
    parts: list[str] = []
    for part in name.split("/"):
        if part in {"", "."}:
            continue
        if part == "..":
            return None
        parts.append(part)
    return "/".join(parts)


def compression(head: bytes) -> str:
    """`gzip`, `zstd`, `xz`, `bzip2` or `` by the first bytes."""
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    if head.startswith(b"\xfd7zXZ\x00"):
        return "xz"
    if head.startswith(b"BZh"):
        return "bzip2"
    return ""


def decompress(file: IO[bytes], kind: str) -> Readable:
    """The stream inside, read in bounded pieces."""
    if kind == "gzip":
        return gzip.GzipFile(fileobj=file)
    if kind == "zstd":
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)
    if kind == "xz":
        return _Xz(file)
    if kind == "bzip2":
        import bz2

        return bz2.BZ2File(file)
    return file


class _Xz:
    """xz with a limit on the decoder's memory, which LZMAFile has not."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, nothing at the end."""
        while True:
            if self._decoder.eof:
                rest = self._decoder.unused_data.lstrip(b"\0") or self._file.read(64 * 1024).lstrip(b"\0")
                if not rest:
                    return b""
                self._decoder = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
            elif self._decoder.needs_input:
                rest = self._file.read(64 * 1024)
                if not rest:
                    raise EOFError("unexpected EOF")
            else:
                rest = b""
            piece = self._decoder.decompress(rest, size)
            if piece:
                return piece


class Section:
    """A part of a file as a stream (a layer inside an archive)."""

    def __init__(self, file: IO[bytes], offset: int, size: int) -> None:
        self._file = file
        self._left = size
        file.seek(offset)

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, nothing at the end."""
        wanted = self._left if size < 0 else min(size, self._left)
        piece = self._file.read(wanted)
        self._left -= len(piece)
        return piece
