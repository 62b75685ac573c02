"""Reads the headers of a tar that passes by: proves that it is one, and remembers what is in it."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator
from typing import Any

from control_plane.errors import InvalidParameter

BLOCK = 512
DIRECTORY = 1 << 31
SYMLINK = 1 << 27
_GO_BITS = {b"1": 0, b"2": SYMLINK, b"3": 1 << 26 | 1 << 21, b"4": 1 << 26, b"5": DIRECTORY, b"6": 1 << 25}
"""Type flag → Go's `os.FileMode` type bits, which Docker's PathStat shows."""
_PERMISSION_BITS = {0o4000: 1 << 23, 0o2000: 1 << 22, 0o1000: 1 << 20}
_MOST_ENTRIES = 500
_LONGEST_EXTENSION = 64 * 1024
_INVALID = "archive/tar: invalid tar header"


class TarIndex:
    """Feed it the tar in any pieces. Raises InvalidParameter at the first block that is no header."""

    def __init__(self) -> None:
        self.entries: dict[str, list[Any]] | None = {}
        """Path without leading slash → [Go mode, size, mtime, link target]; None when there are too many."""
        self._pending = bytearray()
        self._skip = 0
        self._collect = 0
        self._extension = b""
        self._name: str | None = None
        self._link: str | None = None
        self._size: int | None = None
        self._ended = False

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        view = memoryview(data)
        while view and not self._ended:
            if self._skip and not self._pending:
                taken = min(self._skip, len(view))
                self._skip -= taken
                view = view[taken:]
                continue
            want = (self._collect or BLOCK) - len(self._pending)
            self._pending += view[:want]
            view = view[want:]
            if len(self._pending) < (self._collect or BLOCK):
                return
            block = bytes(self._pending)
            self._pending.clear()
            if self._collect:
                self._extended(block)
            else:
                self._header(block)

    def finish(self) -> None:
        """The tar has ended. Raises InvalidParameter when it ended within an entry."""
        if self._pending or self._skip or self._collect:
            raise InvalidParameter("unexpected EOF")

    def _header(self, block: bytes) -> None:
        if not any(block):
            self._ended = True
            return
        if _octal(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * 32:
            raise InvalidParameter(_INVALID)
        size = _octal(block[124:136])
        kind = block[156:157]
        if kind in (b"L", b"K", b"x", b"g"):
            if size > _LONGEST_EXTENSION:
                raise InvalidParameter(_INVALID)
            self._extension, self._collect = kind, _padded(size)
            self._extension_size = size
            if not self._collect:
                self._extension = b""
            return
        size = size if self._size is None else self._size
        self._remember(block, kind, size)
        self._name = self._link = self._size = None
        self._skip = _padded(size) if kind in (b"0", b"\0", b"7", b"S") else 0

    def _extended(self, block: bytes) -> None:
        text = block[: self._extension_size]
        kind, self._extension, self._collect = self._extension, b"", 0
        if kind == b"L":
            self._name = text.rstrip(b"\0").decode(errors="surrogateescape")
        elif kind == b"K":
            self._link = text.rstrip(b"\0").decode(errors="surrogateescape")
        elif kind == b"x":
            self._pax(text)

    def _pax(self, text: bytes) -> None:
        while text:
            length, _, _ = text.partition(b" ")
            if not length.isdigit() or not 0 < int(length) <= len(text):
                raise InvalidParameter(_INVALID)
            record, text = text[: int(length)], text[int(length) :]
            key, _, value = record.partition(b" ")[2].rstrip(b"\n").partition(b"=")
            if key == b"path":
                self._name = value.decode(errors="surrogateescape")
            elif key == b"linkpath":
                self._link = value.decode(errors="surrogateescape")
            elif key == b"size" and value.isdigit():
                self._size = int(value)

    def _remember(self, block: bytes, kind: bytes, size: int) -> None:
        if self.entries is None:
            return
        name = self._name
        if name is None:
            name = _text(block[0:100])
            if block[257:262] == b"ustar" and block[345:346] != b"\0":
                name = f"{_text(block[345:500])}/{name}"
        link = self._link if self._link is not None else _text(block[157:257])
        mode = _octal(block[100:108])
        bits = _GO_BITS.get(kind, 0) | (mode & 0o777)
        for bit, go_bit in _PERMISSION_BITS.items():
            bits |= go_bit if mode & bit else 0
        clean = posixpath.normpath("/" + name).lstrip("/")
        if len(self.entries) >= _MOST_ENTRIES:
            self.entries = None
            return
        mtime = _octal(block[136:148])
        shown = clean.encode(errors="replace").decode()
        self.entries[shown] = [bits, size, mtime, link if kind == b"2" else ""]


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


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode(errors="surrogateescape")


def _octal(field: bytes) -> int:
    if field[0] & 0x80:  # GNU's base 256
        if field[0] & 0x40:
            return 0  # negative: only times may be
        return int.from_bytes(bytes([field[0] & 0x3F]) + field[1:], "big")
    digits = field.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise InvalidParameter(_INVALID) from None
