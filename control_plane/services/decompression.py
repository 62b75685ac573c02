"""Archives as they come: gzip, bzip2, xz and zstd are told by their first bytes, as in moby, and undone on the way."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from control_plane.errors import InvalidParameter

_PIECE = 256 * 1024
"""Most bytes one step of a decompressor gives: a bomb meets the stream's window, not our memory."""
_ZSTD_STEP = 1024
"""zstd's decompressor has no output limit; a kibibyte of input gives 32 MiB at the very most."""
_ZSTD_WINDOW = 128 * 1024 * 1024
_MAGIC_LENGTH = 6


class _Decoder(Protocol):
    """One member of a compressed stream (bz2's and lzma's own interface)."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's decompressor in the interface of bz2's."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max(max_length, 0))


async def decompressed(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The tar in `body`. Chunks of a plain one are handed on as they are. Raises InvalidParameter when it is broken."""
    head = b""
    async for chunk in body:
        head = head + chunk if head else chunk
        if len(head) >= _MAGIC_LENGTH:
            break
    try:
        if head.startswith(b"\x1f\x8b\x08"):
            steps = _members(head, body, "gzip")
        elif head.startswith(b"BZh"):
            steps = _members(head, body, "bzip2")
        elif head.startswith(b"\xfd7zXZ\x00"):
            steps = _members(head, body, "xz")
        elif head.startswith(b"\x28\xb5\x2f\xfd"):
            steps = _zstd(head, body)
        else:
            steps = _plain(head, body)
        async for piece in steps:
            yield piece
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError) as error:
        raise InvalidParameter(f"the archive is damaged: {error}") from None


async def _plain(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if head:
        yield head
    async for chunk in rest:
        if chunk:
            yield chunk


async def _chunks(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for chunk in rest:
        yield chunk


def _new(kind: str) -> _Decoder:
    if kind == "gzip":
        return _Gzip()
    if kind == "bzip2":
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=256 * 1024 * 1024)


async def _members(head: bytes, rest: AsyncIterator[bytes], kind: str) -> AsyncIterator[bytes]:
    """Each member in turn; parallel compressors write many."""
    decoder = _new(kind)
    async for chunk in _chunks(head, rest):
        while chunk:
            if decoder.eof:
                if not chunk.strip(b"\0"):
                    break  # padding after the last member
                decoder = _new(kind)
            for piece in _drain(decoder, chunk):
                yield piece
            chunk = decoder.unused_data if decoder.eof else b""
    if not decoder.eof:
        raise EOFError(f"{kind}: unexpected end")


def _drain(decoder: _Decoder, data: bytes) -> Iterator[bytes]:
    piece = decoder.decompress(data, _PIECE)
    while piece or not (decoder.eof or decoder.needs_input):
        if piece:
            yield piece
        if decoder.eof or decoder.needs_input:
            return
        piece = decoder.decompress(b"", _PIECE)


async def _zstd(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    import zstandard

    def frame() -> zstandard.ZstdDecompressionObj:
        return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()

    decoder = frame()
    try:
        async for chunk in _chunks(head, rest):
            for start in range(0, len(chunk), _ZSTD_STEP):
                data = chunk[start : start + _ZSTD_STEP]
                while data:
                    if decoder.eof:
                        decoder = frame()
                    piece = decoder.decompress(data)
                    data = decoder.unused_data if decoder.eof else b""
                    if piece:
                        yield piece
    except zstandard.ZstdError as error:
        raise ValueError(f"zstd: {error}") from None
    if not decoder.eof:
        raise EOFError("zstd: unexpected end")
