"""A document's body as one value: what a cloud's own maps would change or refuse goes through unchanged.

Firestore's maps take no empty keys and no arrays in arrays; Cosmos reads integers beyond 2^53 as doubles. Docker's
JSON has all of these, so bodies are JSON in one opaque field. Large ones are compressed: JSON shrinks to a fifth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import zstandard

from control_plane.store.base import StoreFull

_COMPRESSED_FROM = 4096
_LEVEL = 3
_LARGEST = 256 * 1024 * 1024
"""Bytes a body may unfold to: a guard against a store that was tampered with."""


def encode(body: Mapping[str, Any], most: int) -> bytes:
    """JSON, or a zstd frame of it (it never starts with `{`). Raises StoreFull when that is over `most` bytes."""
    encoded = orjson.dumps(body)
    if len(encoded) < _COMPRESSED_FROM:
        return encoded
    written = zstandard.ZstdCompressor(level=_LEVEL).compress(encoded)
    if len(written) > most:
        raise StoreFull(
            f"the store cannot take this: it is {len(encoded)} bytes long, {len(written)} compressed, "
            f"and the store takes {most} at most"
        )
    return written


def decode(written: bytes) -> dict[str, Any]:
    """The body. Raises ValueError for what `encode` did not write."""
    if not written.startswith(b"{"):
        parameters = zstandard.get_frame_parameters(written)
        if parameters.content_size > _LARGEST:
            raise ValueError("the body is longer than any that was written")
        written = zstandard.ZstdDecompressor().decompress(written)
    body: dict[str, Any] = orjson.loads(written)
    return body
