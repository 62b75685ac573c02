"""Takes an uploaded archive to disk: streaming, bounded, decompressed."""

from __future__ import annotations

import asyncio
import errno
import lzma
import tempfile
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO

from control_plane.errors import InvalidParameter, ServerError
from control_plane.registry.tarsource import Readable, compression, decompress

_PIECE = 1024 * 1024


@asynccontextmanager
async def spooled(content: AsyncIterator[bytes], limit: int, temporary: Path | None = None) -> AsyncIterator[IO[bytes]]:
    """The archive as a plain tar in a nameless file. `limit` bounds it in bytes, before and after decompression.

    Raises InvalidParameter when it is larger or broken, ServerError when the disk is full.
    """
    with _file(temporary) as received:
        await _receive(content, received, limit)
        received.seek(0)
        kind = compression(received.read(8))
        received.seek(0)
        if not kind:
            yield received
            return
        with _file(temporary) as plain:
            stopped = threading.Event()
            try:
                await asyncio.to_thread(unpack, received, kind, plain, limit, stopped)
            finally:
                # A cancelled request leaves the thread behind: it must not go on unpacking.
                stopped.set()
            received.close()
            plain.seek(0)
            yield plain


@contextmanager
def _file(temporary: Path | None) -> Iterator[IO[bytes]]:
    try:
        file = tempfile.TemporaryFile(dir=temporary)  # noqa: SIM115 - the caller's block closes it
    except OSError as error:
        raise _disk(error) from error
    try:
        yield file
    finally:
        # On a full disk the close, too, tries to write what is left, and fails again; the file is closed all the same.
        with suppress(OSError):
            file.close()


async def _receive(content: AsyncIterator[bytes], file: IO[bytes], limit: int) -> None:
    size = 0
    async for chunk in content:
        size += len(chunk)
        if size > limit:
            raise InvalidParameter(f"archive is larger than {limit} bytes")
        try:
            file.write(chunk)
        except OSError as error:
            raise _disk(error) from error
    try:
        file.flush()
    except OSError as error:
        raise _disk(error) from error


def unpack(source: IO[bytes], kind: str, target: IO[bytes], limit: int, stopped: threading.Event) -> int:
    """Decompresses in bounded pieces; returns the size in bytes."""
    size = 0
    stream: Readable = decompress(source, kind)
    while not stopped.is_set():
        try:
            piece = stream.read(_PIECE)
        except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
            raise InvalidParameter(f"archive cannot be decompressed: {error}") from error
        except Exception as error:
            if type(error).__name__ != "ZstdError":
                raise
            raise InvalidParameter(f"archive cannot be decompressed: {error}") from error
        if not piece:
            break
        size += len(piece)
        if size > limit:
            raise InvalidParameter(f"archive is larger than {limit} bytes unpacked")
        try:
            target.write(piece)
        except OSError as error:
            raise _disk(error) from error
    try:
        target.flush()
    except OSError as error:
        raise _disk(error) from error
    return size


def _disk(error: OSError) -> ServerError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return ServerError("no space left on device", internal=str(error))
    return ServerError("the archive cannot be spooled", internal=str(error))
