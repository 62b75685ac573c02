"""Key-encryption keys: what wraps the data keys that fields at rest are sealed with."""

from __future__ import annotations

from typing import Protocol


class UnknownKey(Exception):
    """The key-encryption key with this id is not to be had (any more)."""


class KeyWrapper(Protocol):
    """Wraps and unwraps data keys. Several key-encryption keys may be there; one of them is for new data keys."""

    @property
    def key_id(self) -> str:
        """The key-encryption key that `wrap` uses now."""
        ...

    async def wrap(self, data_key: bytes) -> bytes:
        """The data key, encrypted with the key `key_id`."""
        ...

    async def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """The data key. Raises UnknownKey, and ValueError when it was not wrapped with that key."""
        ...
