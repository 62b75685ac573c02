"""Key-encryption keys: what wraps the data keys that fields at rest are sealed with."""

from __future__ import annotations

from typing import Protocol


class UnknownKey(Exception):
    """The key-encryption key with this id is not to be had (any more)."""


class KeyWrapper(Protocol):
    """Wraps and unwraps data keys. Several key-encryption keys may be there; one of them is for new data keys.

    Key services raise CloudError besides.
    """

    async def wrap(self, data_key: bytes) -> tuple[str, bytes]:
        """The id of the key-encryption key for new data keys, and the data key encrypted with it."""
        ...

    async def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """The data key. Raises UnknownKey, and ValueError when it was not wrapped with that key.

        The id comes out of the store: it is not to be trusted.
        """
        ...

    async def close(self) -> None:
        """Closes the connections there may be."""
        ...
