"""A process of its own for each layer: `unpack DIRECTORY BLOB`, or `remove PATH…`.

It confines itself to the directory before it reads the tar. As an ordinary user it works in the same kind of user
namespace as the containers, so owners come out as containers see them. It prints one JSON object.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import sys
import zlib
from typing import IO

from local_cloud.runtime import userns
from local_cloud.runtime.layer_tar import HostileLayer, LayerTar
from local_cloud.runtime.trash import remove_tree

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_MEMORY = 1 << 30
"""Address space of this process: a header that claims gigabytes ends it, not the machine."""

_CHUNK = 1 << 20
_ZSTD_WINDOW = 1 << 27


class _NoZstdError(Exception):
    """Stands in for zstandard's own error where that module is not loaded."""


def decompressed(blob: IO[bytes]) -> tuple[IO[bytes], type[Exception]]:
    """The tar in a blob, told by its first bytes as Docker does it, and the error its decompressor raises."""
    magic = blob.read(4)
    blob.seek(0)
    if magic.startswith(_GZIP):
        return io.BufferedReader(gzip.GzipFile(fileobj=blob, mode="rb"), _CHUNK), zlib.error
    if magic == _ZSTD:
        import zstandard

        reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(blob, read_across_frames=True)
        return io.BufferedReader(reader, _CHUNK), zstandard.ZstdError
    return blob, _NoZstdError


def _unpack(directory: str, path: str) -> None:
    privileged = userns.privileged()
    own_only = False if privileged else not userns.enter()
    with open(path, "rb", buffering=_CHUNK) as blob:
        stream, damaged = decompressed(blob)
        os.chroot(directory)
        os.chdir("/")
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        try:
            LayerTar(privileged, own_only).apply(stream)
        except MemoryError:
            raise HostileLayer("its headers are larger than any layer's") from None
        except (damaged, gzip.BadGzipFile) as error:
            raise HostileLayer(f"it is damaged: {error}") from None
        except (HostileLayer, OSError):
            raise
        except Exception as error:  # whatever a hostile header leads to in the parser
            raise HostileLayer(f"it is damaged or not a layer: {error}") from None


def _remove(paths: list[str]) -> None:
    if not userns.privileged():
        userns.enter()
    for path in paths:
        remove_tree(path)


def main(arguments: list[str]) -> int:
    """0 when done; else 1, with `kind` and `text` on standard output."""
    answer: dict[str, str] = {}
    try:
        if arguments[0] == "unpack":
            _unpack(arguments[1], arguments[2])
        else:
            _remove(arguments[1:])
    except HostileLayer as hostile:
        answer = {"kind": "layer", "text": str(hostile)}
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        kind = "space" if error.errno in (28, 122) else "layer"
        answer = {"kind": kind, "text": f"{(error.strerror or str(error)).lower()}{where}"}
    os.write(1, json.dumps(answer).encode())
    return 1 if answer else 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
