"""Takes a tar apart as it streams by, and puts one together: headers as `TarInfo`, contents as bytes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator, Iterator

from control_plane.errors import InvalidParameter

BLOCK = 512
END = bytes(2 * BLOCK)
_EXTENSIONS = b"LKxg"
_WITH_CONTENT = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_LONGEST_HEADER = 256 * 1024
_INVALID = "archive/tar: invalid tar header"


class TarEntries:
    """Feed it the tar in any pieces. Raises InvalidParameter at the first block that is no header."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._want = BLOCK
        self._complete = False
        """The header's last block was read: what follows extension blocks belongs to the same entry."""
        self._content = 0
        self._padding = 0
        self.ended = False

    def feed(self, data: bytes) -> Iterator[tarfile.TarInfo | bytes]:
        """What the bytes complete: an entry's `TarInfo`, then its content in pieces."""
        view = memoryview(data)
        while view and not self.ended:
            if self._content:
                piece, view = view[: self._content], view[self._content :]
                self._content -= len(piece)
                yield bytes(piece) if len(piece) != len(data) else data
            elif self._padding:
                taken = min(self._padding, len(view))
                self._padding -= taken
                view = view[taken:]
            else:
                taken = min(self._want - len(self._header), len(view))
                self._header += view[:taken]
                view = view[taken:]
                if len(self._header) == self._want:
                    entry = self._block()
                    if entry is not None:
                        yield entry

    def finish(self) -> None:
        """The tar has ended. Raises InvalidParameter when it ended within an entry."""
        if self._header or self._content or self._padding:
            raise InvalidParameter("unexpected EOF")

    def _block(self) -> tarfile.TarInfo | None:
        """A header block is complete, or an extension's content with the header block after it."""
        block = bytes(self._header[-BLOCK:])
        if not any(block):
            if len(self._header) > BLOCK:
                raise InvalidParameter(_INVALID)
            self._header.clear()
            self.ended = True
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError):
            raise InvalidParameter(_INVALID) from None
        if info.size < 0 or info.type == tarfile.GNUTYPE_SPARSE:
            raise InvalidParameter(_INVALID)
        if info.type in (b"L", b"K", b"x", b"g"):
            self._want = len(self._header) + _padded(info.size) + BLOCK
            if self._want > _LONGEST_HEADER:
                raise InvalidParameter(_INVALID)
            return None
        if len(self._header) > BLOCK:
            info = _extended(bytes(self._header))
        self._header.clear()
        self._want = BLOCK
        self._content = info.size if info.type in _WITH_CONTENT else 0
        self._padding = _padded(self._content) - self._content
        return info


def _extended(header: bytes) -> tarfile.TarInfo:
    """The entry of a header with extensions, as tarfile reads it."""
    try:
        with tarfile.open(fileobj=io.BytesIO(header), mode="r:", errors="surrogateescape") as archive:
            info = archive.next()
    except (tarfile.TarError, ValueError, OverflowError):
        raise InvalidParameter(_INVALID) from None
    if info is None or info.size < 0:
        raise InvalidParameter(_INVALID)
    return info


def header(info: tarfile.TarInfo) -> bytes:
    """The entry's header blocks."""
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def has_content(info: tarfile.TarInfo) -> bool:
    """Whether bytes follow the entry's header."""
    return info.type in _WITH_CONTENT


def padding(size: int) -> bytes:
    """What fills up an entry's content of `size` bytes."""
    return bytes(_padded(size) - size)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


async def entries(tar: AsyncIterator[bytes]) -> AsyncIterator[tarfile.TarInfo | bytes]:
    """The entries of a whole tar. Raises InvalidParameter."""
    parser = TarEntries()
    async for chunk in tar:
        for item in parser.feed(chunk):
            yield item
    parser.finish()
